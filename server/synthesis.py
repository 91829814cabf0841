"""`Synthesizer`: the one way from a `SpeechRequest` to its chunks, for every endpoint.

Looks in the result cache, joins an equal request under way, or is admitted to the engine. A stream
from here either ends with a chunk whose finish reason is `stop` or `length`, or raises; engine
silence is bounded too, so that nothing hangs. Encoding is not done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from uuid import uuid4

from ..engine.interface import EngineClient
from ..engine.output import AudioChunk
from ..engine.request import SpeechRequest
from .admission import Admission
from .config import ServerConfig
from .errors import draining, engine_failure
from .flight import BufferBudget, Flight
from .metrics import ServerMetrics
from .result_cache import ResultCache, audio_key


class Speech:
    """One request being spoken: its chunks, from a flight or from the cache."""

    def __init__(self, flight: Flight | None, cached: Sequence[AudioChunk]) -> None:
        self._flight = flight
        self._cached = cached
        self._listener = flight.join() if flight else None

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        for chunk in self._cached:
            yield chunk
        if self._listener is not None:
            async for chunk in self._listener:
                yield _checked(chunk)

    def close(self) -> None:
        """Give it up, or be done with it."""
        if self._flight is not None and self._listener is not None:
            self._flight.leave(self._listener)
        self._flight = None


class Synthesizer:
    """Speaks requests through one engine."""

    def __init__(
        self,
        engine: EngineClient,
        admission: Admission,
        metrics: ServerMetrics,
        config: ServerConfig,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._metrics = metrics
        self._share = config.single_flight
        self._stall_s = config.stall_timeout_s
        self._cache_bytes = config.cache_mib << 20
        self._flights: dict[SpeechRequest, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.cache = ResultCache(self._cache_bytes)
        self.budget = BufferBudget(config.max_buffered_mib << 20)

    async def stream(self, request: SpeechRequest) -> AsyncGenerator[AudioChunk, None]:
        """The chunks of a request; closing the iterator gives it up.

        Raises:
            StrettoError, ApiError: it was refused, or failed on the way.
        """
        speech = self.start(request)
        try:
            async for chunk in speech:
                yield chunk
        finally:
            speech.close()

    def start(self, request: SpeechRequest) -> Speech:
        """Begin to speak at once; the caller must close what it gets."""
        self._metrics.text_chars.inc(len(request.text))
        key = audio_key(request)
        cached = self.cache.get(key)
        self._metrics.cache_looked_up(hit=cached is not None)
        return Speech(self._flight(request, key) if cached is None else None, cached or ())

    async def close(self) -> None:
        """Cancel what is under way and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flight(self, request: SpeechRequest, key: SpeechRequest) -> Flight:
        under_way = self._flights.get(key) if self._share else None
        if under_way is not None and under_way.is_joinable:
            self._metrics.joined.inc()
            return under_way

        def on_end(flight: Flight) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if (chunks := flight.finished_chunks) is not None:
                self.cache.put(key, chunks)

        keep = self._cache_bytes if request.seed is not None else 0
        flight = Flight(lambda: self._speak(request), self.budget, self._stall_s, keep, on_end)
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        self._flights[key] = flight
        return flight

    async def _speak(self, request: SpeechRequest) -> AsyncGenerator[AudioChunk, None]:
        """The engine's chunks, admitted and counted."""
        request_id = f"req_{uuid4().hex}"
        with self._admission.admit(request.deadline_s) as ticket:
            stream = self._engine.stream(request, request_id=request_id)
            async with aclosing(stream):  # type: ignore[type-var]  # engines return generators
                async for chunk in stream:
                    if len(chunk.audio):
                        ticket.first_audio()
                    if chunk.is_last:
                        ticket.finished()
                        self._metrics.engine_finished(chunk)
                    yield chunk


def _checked(chunk: AudioChunk) -> AudioChunk:
    if chunk.finish_reason == "error":
        raise engine_failure(chunk.error_code, chunk.error)
    if chunk.finish_reason == "abort":
        raise draining()
    return chunk
