"""`SpeechEngine`: the engine for scripts. The same loop and the same streams, without asyncio."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .build import build_core
from .config import EngineConfig, as_config
from .core import EngineCore
from .interface import EngineStats, ModelInfo, VoiceInfo
from .output import AudioChunk, SpeechResult
from .request import SamplingParams, SpeechRequest, Voice
from .requests import as_request, new_request_id
from .step_loop import Sink, StepLoop


class SpeechEngine:
    """Text to speech, many texts at once.

        with SpeechEngine(model="default") as engine:
            engine.generate("Hello there.")[0].save("hello.wav")

    Methods may be called from several threads.

    Args:
        model: `default`, a folder in a known layout, or a hub id. Ignored when `config` is given.
        config: all settings at once; then there may be no further fields.
        build: makes the core from the settings.
        fields: further fields of `EngineConfig`.

    Raises:
        CheckpointError: the model's files are incomplete or malformed.
        UnknownModelError: no such model.
    """

    def __init__(
        self,
        model: str = "default",
        *,
        config: EngineConfig | None = None,
        build: Callable[[EngineConfig], EngineCore] = build_core,
        **fields: Any,
    ) -> None:
        self.config = as_config(model, config, fields)
        self._core = build(self.config)
        self._loop = StepLoop(self._core)

    def __enter__(self) -> SpeechEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model_info(self) -> ModelInfo:
        """What is loaded."""
        return self._core.executor.model_info

    @property
    def voices(self) -> tuple[VoiceInfo, ...]:
        """Voices by name."""
        return self.model_info.voices

    @property
    def sample_rate(self) -> int:
        """Samples per second of all audio."""
        return self._core.executor.vocoder_spec.sample_rate

    def generate(
        self,
        texts_or_requests: str | SpeechRequest | Sequence[str | SpeechRequest],
        *,
        voice: str | Voice | None = None,
        speed: float | None = None,
        seed: int | None = None,
        sampling: SamplingParams | None = None,
        language: str | None = None,
    ) -> list[SpeechResult]:
        """Speak all of them in one batch; results in the order of the input.

        Args:
            texts_or_requests: one or many; the further arguments override fields of each. Plain
                texts are spoken as bulk work, which nobody listens to as it is made.
            voice: see `SpeechRequest`.
            speed: see `SpeechRequest`.
            seed: see `SpeechRequest`.
            sampling: see `SpeechRequest`.
            language: see `SpeechRequest`.

        Raises:
            RequestError: one of them cannot be served; then none is. Later failures are results
                with finish reason `error`.
        """
        if isinstance(texts_or_requests, (str, SpeechRequest)):
            texts_or_requests = [texts_or_requests]
        options = {"voice": voice, "speed": speed, "seed": seed}
        requests = [
            as_request(
                item,
                **options,  # type: ignore[arg-type]
                sampling=sampling,
                language=language,
                priority="bulk" if isinstance(item, str) else None,
            )
            for item in texts_or_requests
        ]
        streams: list[ChunkStream] = []
        try:
            streams += (self._start(request) for request in requests)
            return [SpeechResult.from_chunks(list(stream)) for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def stream(
        self,
        text_or_request: str | SpeechRequest,
        *,
        voice: str | Voice | None = None,
        speed: float | None = None,
        seed: int | None = None,
        sampling: SamplingParams | None = None,
        language: str | None = None,
    ) -> ChunkStream:
        """Speak one; yields chunks (float32 [samples] each) as they are made, the last terminal.

        Closing the iterator early aborts the request. Arguments and errors as in `generate`.
        """
        request = as_request(
            text_or_request,
            voice=voice,
            speed=speed,
            seed=seed,
            sampling=sampling,
            language=language,
        )
        return self._start(request)

    def submit(self, request: SpeechRequest, sink: Sink, *, request_id: str | None = None) -> str:
        """Begin a request whose chunks are passed to `sink` in the engine's own thread.

        Args:
            request: what to say.
            sink: must return soon: the engine waits for it.
            request_id: unique among requests in flight.

        Returns:
            The request's id, for `abort`.

        Raises:
            RequestError: it cannot be served.
        """
        request_id = request_id or new_request_id()
        submitted = self._core.clock()
        processed = self._core.processor.process(request)
        self._loop.submit(request_id, processed, sink, submitted=submitted).result()
        return request_id

    def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; unknown ids are ignored."""
        self._loop.abort(request_id)

    def stats(self) -> EngineStats:
        """A snapshot of the engine's load."""
        return self._loop.call(self._core.stats).result()

    def check_integrity(self) -> None:
        """Raise when blocks or slots leaked; meaningful when idle."""
        self._loop.call(self._core.check_integrity).result()

    def close(self) -> None:
        """End what is in flight with `abort` and release everything."""
        if self._loop.is_running:
            self._loop.close()
            self._core.executor.close()

    def _start(self, request: SpeechRequest) -> ChunkStream:
        """Begin at once, so that many streams share the batch; the iterator only listens."""
        chunks: queue.SimpleQueue[AudioChunk] = queue.SimpleQueue()
        request_id = self.submit(request, chunks.put)
        return ChunkStream(chunks, lambda: self._loop.abort(request_id))


class ChunkStream(Iterator[AudioChunk]):
    """The chunks of one request; `close` before the end aborts it."""

    def __init__(self, chunks: queue.SimpleQueue[AudioChunk], abort: Callable[[], None]) -> None:
        self._chunks = chunks
        self._abort = abort
        self._is_over = False

    def __next__(self) -> AudioChunk:
        if self._is_over:
            raise StopIteration
        chunk = self._chunks.get()
        self._is_over = chunk.is_last
        return chunk

    def close(self) -> None:
        """Stop listening; the request is aborted if it is not over."""
        if not self._is_over:
            self._is_over = True
            self._abort()

    def __del__(self) -> None:
        self.close()
