"""`AsyncSpeechEngine`: the engine for one event loop; streams are asynchronous iterators.

Text is encoded in worker threads and steps run in the `StepLoop`'s thread, so that the event loop
only ever passes chunks on. This engine runs in the caller's process; `EngineProcessClient` offers
the same interface across a process border.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from .build import build_core
from .config import EngineConfig, as_config
from .core import EngineCore
from .errors import EngineDeadError, StrettoError, describe_error
from .input_processor import ProcessedRequest
from .interface import EngineStats, ModelInfo, VoiceInfo
from .output import AudioChunk, SpeechResult, failure_chunk
from .request import SamplingParams, SpeechRequest, Voice
from .requests import as_request, new_request_id
from .step_loop import StepLoop

logger = logging.getLogger(__name__)

_ENCODER_THREADS = 2


class AsyncSpeechEngine:
    """Text to speech for many concurrent callers of one event loop.

        async with AsyncSpeechEngine(model="default") as engine:
            async for chunk in engine.stream("Hello there."):
                play(chunk.audio)

    Args:
        model: `default`, a folder, or a hub id. Ignored when `config` is given.
        config: all settings at once; then there may be no further fields.
        build: makes the core from the settings; runs in a worker thread.
        fields: further fields of `EngineConfig`.
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
        self._build = build
        self._core: EngineCore | None = None
        self._loop: StepLoop | None = None
        self._encoders = ThreadPoolExecutor(_ENCODER_THREADS, thread_name_prefix="stretto-encode")
        self._encoding: dict[str, bool] = {}  # request id -> was aborted meanwhile

    async def __aenter__(self) -> AsyncSpeechEngine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def model_info(self) -> ModelInfo:
        """What is served; known once `start` has returned."""
        return self._running()[0].executor.model_info

    @property
    def voices(self) -> tuple[VoiceInfo, ...]:
        """Voices by name."""
        return self.model_info.voices

    @property
    def is_ready(self) -> bool:
        """True when requests would be served now."""
        return self._loop is not None and self._loop.is_running

    async def start(self) -> None:
        """Load, warm up, and return when ready; once it is, do nothing.

        Raises:
            CheckpointError: the model's files are incomplete or malformed.
            UnknownModelError: no such model.
        """
        if self._loop is None:
            event_loop = asyncio.get_running_loop()
            self._core = await event_loop.run_in_executor(None, self._build, self.config)
            self._loop = StepLoop(self._core)

    async def stream(
        self,
        text_or_request: str | SpeechRequest,
        *,
        request_id: str | None = None,
        voice: str | Voice | None = None,
        speed: float | None = None,
        seed: int | None = None,
        sampling: SamplingParams | None = None,
        language: str | None = None,
    ) -> AsyncIterator[AudioChunk]:
        """Speak; yields chunks (float32 [samples] each), the last one terminal.

        Closing the iterator early aborts the request.

        Args:
            text_or_request: what to say; the further arguments override fields of a request.
            request_id: for `abort`; unique among requests in flight.
            voice: see `SpeechRequest`.
            speed: see `SpeechRequest`.
            seed: see `SpeechRequest`.
            sampling: see `SpeechRequest`.
            language: see `SpeechRequest`.

        Raises:
            RequestError: from the first step, when the request cannot be served.
            EngineDeadError: the engine is not running.
        """
        request = as_request(
            text_or_request,
            voice=voice,
            speed=speed,
            seed=seed,
            sampling=sampling,
            language=language,
        )
        core, loop = self._running()
        request_id = request_id or new_request_id()
        submitted = core.clock()
        processed = await self._process(core, request, request_id)
        if isinstance(processed, AudioChunk):
            yield processed
            return
        async with aclosing(self._listen(loop, request_id, processed, submitted)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def generate(
        self,
        text_or_request: str | SpeechRequest,
        *,
        request_id: str | None = None,
        voice: str | Voice | None = None,
        speed: float | None = None,
        seed: int | None = None,
        sampling: SamplingParams | None = None,
        language: str | None = None,
    ) -> SpeechResult:
        """Like `stream`, collected into one result."""
        stream = self.stream(
            text_or_request,
            request_id=request_id,
            voice=voice,
            speed=speed,
            seed=seed,
            sampling=sampling,
            language=language,
        )
        return SpeechResult.from_chunks([chunk async for chunk in stream])

    async def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; unknown ids are ignored."""
        if request_id in self._encoding:
            self._encoding[request_id] = True
        elif self._loop is not None:
            self._loop.abort(request_id)

    async def stats(self) -> EngineStats:
        """A snapshot of the engine's load."""
        core, loop = self._running()
        return await asyncio.wrap_future(loop.call(core.stats))

    async def check_integrity(self) -> None:
        """Raise when blocks or slots leaked; meaningful when idle."""
        core, loop = self._running()
        await asyncio.wrap_future(loop.call(core.check_integrity))

    async def close(self) -> None:
        """End in-flight requests with `abort` and release everything."""
        if self._loop is not None and self._core is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._loop.close)
            self._core.executor.close()
        self._encoders.shutdown()

    def _running(self) -> tuple[EngineCore, StepLoop]:
        if self._core is None or self._loop is None or not self._loop.is_running:
            raise EngineDeadError("the engine is not running")
        return self._core, self._loop

    async def _listen(
        self, loop: StepLoop, request_id: str, processed: ProcessedRequest, submitted: float
    ) -> AsyncGenerator[AudioChunk, None]:
        """Submit, and pass on what the step loop's thread delivers."""
        event_loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[AudioChunk] = asyncio.Queue()

        def sink(chunk: AudioChunk) -> None:
            event_loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        is_over = False
        submission = loop.submit(request_id, processed, sink, submitted=submitted)
        try:
            try:
                await asyncio.wrap_future(submission)
            except StrettoError:
                is_over = True
                raise
            if self._encoding.pop(request_id, False):
                loop.abort(request_id)
            while not is_over:
                chunk = await chunks.get()
                is_over = chunk.is_last
                yield chunk
        finally:
            self._encoding.pop(request_id, None)
            if not is_over:
                loop.abort(request_id)

    async def _process(
        self, core: EngineCore, request: SpeechRequest, request_id: str
    ) -> ProcessedRequest | AudioChunk:
        """Encode in a worker thread; what nobody foresaw becomes the terminal chunk."""
        self._encoding[request_id] = False
        try:
            event_loop = asyncio.get_running_loop()
            processor = core.processor
            return await event_loop.run_in_executor(self._encoders, processor.process, request)
        except BaseException as error:
            del self._encoding[request_id]
            if isinstance(error, StrettoError) or not isinstance(error, Exception):
                raise
            logger.exception("encoding request %s failed", request_id)
            message, code = describe_error(error)
            rate = core.executor.vocoder_spec.sample_rate
            return failure_chunk(request_id, rate, message, code)
