"""`FakeEngine`: an `EngineClient` that hums tones, for the server's tests and the load harness.

It exists so that everything above the engine can be driven at a chosen pace, with chosen failures,
without weights: audio is a tone that depends on text, voice and seed alone, chunks appear on a
schedule, and a script says which texts fail and how. It keeps the engine's promises (one terminal
chunk, blocks given back, abort within one chunk) so that a leak above it shows in
`check_integrity`. It does not model the scheduler or the cost of a step; the simulator does that.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic
from typing import Any, Literal

import numpy as np

from .errors import (
    EngineDeadError,
    OverloadedError,
    RequestError,
    RequestTooLongError,
    UnknownModelError,
    UnknownVoiceError,
)
from .interface import EngineStats, ModelInfo, VoiceInfo
from .output import AudioChunk, FinishReason, FloatArray, RequestMetrics
from .request import SpeechRequest, Voice
from .time_stretch import TimeStretch

FailureKind = Literal["refuse", "overload", "error", "raise", "kill", "hang"]

_FRAMES_PER_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeFailure:
    """What happens to requests whose text contains `text`.

    Attributes:
        text: part of the text that selects the requests.
        kind: `refuse` and `overload` raise at the first chunk; `error` ends with an error chunk;
            `raise` raises an unforeseen exception; `kill` ends the whole engine; `hang` goes
            silent until the request is aborted or the engine's `release` is called.
        after_chunks: chunks delivered before it happens (the first two kinds ignore it).
    """

    text: str
    kind: FailureKind
    after_chunks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEngineConfig:
    """Pace and size of a `FakeEngine`.

    Attributes:
        pace: seconds of audio made per second and stream; infinite never waits.
        first_chunk_s: seconds until the first chunk of a stream.
        chunk_s: seconds of audio in one chunk.
        seconds_per_char: seconds of audio per character of text.
        sample_rate: samples per second.
        max_num_seqs: streams that run at once; more wait.
        kv_blocks: size of the pretended KV cache.
        voices: names it knows; the first is the default.
        max_text_chars: texts longer than that are refused.
        restart_s: seconds after a death until it serves again; None waits for `revive`.
        failures: the script of failures, first match wins.
    """

    pace: float = math.inf
    first_chunk_s: float = 0.0
    chunk_s: float = 0.08
    seconds_per_char: float = 0.06
    sample_rate: int = 24000
    max_num_seqs: int = 1024
    kv_blocks: int = 65536
    voices: tuple[str, ...] = ("default", "second")
    max_text_chars: int = 100_000
    restart_s: float | None = None
    failures: tuple[FakeFailure, ...] = ()


@dataclass(slots=True)
class _Live:
    """One request in flight; `ending` resolves when something ends it from outside."""

    blocks: int
    ending: asyncio.Future[FinishReason]
    running: bool = False


@dataclass(slots=True)
class _Totals:
    frames: int = 0
    chunks: int = 0
    prompt_tokens: int = 0
    audio_s: float = 0.0


def tone(request: SpeechRequest, seed: int, sample_rate: int, seconds: float) -> FloatArray:
    """The audio of a request: float32 [samples], a tone of 120 to 480 Hz at half scale.

    Its pitch and phase follow from text, voice and seed, so that equal requests sound equal and
    others differ.
    """
    key = repr((request.text, request.voice, seed)).encode()
    digest = blake2b(key, digest_size=8).digest()
    hertz = 120.0 + int.from_bytes(digest[:4], "big") / 2**32 * 360.0
    phase = int.from_bytes(digest[4:], "big") / 2**32 * 2 * math.pi
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * math.pi * hertz * t + phase)).astype(np.float32)


class FakeEngine:
    """An `EngineClient` without a model. See `FakeEngineConfig` for its pace and failures."""

    def __init__(
        self, config: FakeEngineConfig | None = None, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self.config = config or FakeEngineConfig()
        self.requests: list[SpeechRequest] = []
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._totals = _Totals()
        self._ids = itertools.count()
        self._seeds = itertools.count(1_000_000)
        self._ready = False
        self._slots: asyncio.Semaphore | None = None
        self._free_blocks = self.config.kv_blocks

    @property
    def model_info(self) -> ModelInfo:
        """A model of the configured voices that accepts zero-shot references."""
        config = self.config
        return ModelInfo(
            name="fake",
            architecture="fake",
            sample_rate=config.sample_rate,
            frame_rate=1.0 / config.chunk_s,
            languages=("en",),
            voices=tuple(VoiceInfo(id=name, name=name.title()) for name in config.voices),
            default_voice=config.voices[0],
            max_text_chars=config.max_text_chars,
            supports_zero_shot=True,
        )

    @property
    def is_ready(self) -> bool:
        """True between `start` (or `revive`) and the next death or `close`."""
        return self._ready

    @property
    def num_live(self) -> int:
        """Requests in flight, waiting ones included."""
        return len(self._live)

    async def start(self) -> None:
        """Become ready at once."""
        self._slots = asyncio.Semaphore(self.config.max_num_seqs)
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready = True

    def kill(self) -> None:
        """Die: every stream in flight ends with an error, new ones are refused until `revive`."""
        self._ready = False
        for live in self._live.values():
            _end(live, "error")
        if self.config.restart_s is not None:
            asyncio.get_running_loop().call_later(self.config.restart_s, self.revive)

    def release(self) -> None:
        """Let hanging requests, and those that would hang from now on, go on."""
        self._released.set_result(None)

    def revive(self) -> None:
        """Serve again after a death."""
        self._ready = True

    async def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; unknown ids are ignored."""
        if live := self._live.get(request_id):
            _end(live, "abort")

    async def close(self) -> None:
        """End what is in flight with `abort`."""
        self._ready = False
        for live in self._live.values():
            _end(live, "abort")

    async def check_integrity(self) -> None:
        """Raise AssertionError when free + used blocks differ from the total."""
        used = sum(live.blocks for live in self._live.values())
        total = self.config.kv_blocks
        if self._free_blocks + used != total:
            raise AssertionError(f"blocks: {self._free_blocks} free + {used} used != {total}")

    async def stats(self) -> EngineStats:
        """The load, counted from the streams in flight."""
        running = sum(live.running for live in self._live.values())
        waiting = len(self._live) - running
        totals = self._totals
        return EngineStats(
            num_requests_running=running,
            num_requests_waiting=waiting,
            waiting_by_reason=(("capacity", waiting),),
            num_seqs_running=running,
            num_seqs_waiting=waiting,
            kv_blocks_total=self.config.kv_blocks,
            kv_blocks_used=self.config.kv_blocks - self._free_blocks,
            num_steps=totals.chunks,
            frames_generated=totals.frames,
            prompt_tokens=totals.prompt_tokens,
            audio_s_generated=totals.audio_s,
            vocoder_batches=totals.chunks,
            vocoder_rows=totals.chunks,
            vocoder_frames=totals.frames,
            vocoder_window_frames=totals.frames,
        )

    async def stream(
        self, request: SpeechRequest, *, request_id: str | None = None
    ) -> AsyncIterator[AudioChunk]:
        """Hum; yields chunks, the last one terminal. Raises as `EngineClient.stream` says."""
        self.requests.append(request)
        request_id = request_id or f"fake-{next(self._ids)}"
        failure = self._failure_of(request)
        self._check(request, request_id, failure)
        seconds = max(len(request.text) * self.config.seconds_per_char, self.config.chunk_s)
        blocks = math.ceil(seconds / self.config.chunk_s / _FRAMES_PER_BLOCK)
        live = _Live(blocks=blocks, ending=asyncio.get_running_loop().create_future())
        self._live[request_id] = live
        self._free_blocks -= blocks
        try:
            async for chunk in self._speak(request, request_id, live, seconds, failure):
                yield chunk
        finally:
            self._free_blocks += blocks
            del self._live[request_id]

    async def _speak(
        self,
        request: SpeechRequest,
        request_id: str,
        live: _Live,
        seconds: float,
        failure: FakeFailure | None,
    ) -> AsyncIterator[AudioChunk]:
        submitted = self._clock()
        slots = self._slots or asyncio.Semaphore(self.config.max_num_seqs)
        async with slots:
            live.running = True
            seed = next(self._seeds) if request.seed is None else request.seed
            rate = self.config.sample_rate
            audio = _at_speed(tone(request, seed, rate, seconds), request.speed, rate)
            pieces = _cut(audio, round(self.config.chunk_s * rate))
            started = self._clock()
            metrics = _Metering(request, seed, submitted, started, len(pieces), seconds)
            for index, piece in enumerate(pieces):
                if failure is not None and failure.after_chunks == index:
                    self._fail(failure, live)
                    if failure.kind == "hang":
                        await self._hang(live)
                await self._wait_for_turn(live, started, index)
                if live.ending.done():
                    yield _terminal(request_id, rate, index, live.ending.result(), metrics, self)
                    return
                is_last = index == len(pieces) - 1
                self._count(piece, request, index)
                yield AudioChunk(
                    request_id=request_id,
                    audio=piece,
                    sample_rate=rate,
                    index=index,
                    is_last=is_last,
                    finish_reason="stop" if is_last else None,
                    metrics=metrics.at(self._clock()) if is_last else None,
                )

    def _check(self, request: SpeechRequest, request_id: str, failure: FakeFailure | None) -> None:
        if not self._ready:
            raise EngineDeadError("the engine is not up")
        if request_id in self._live:
            raise RequestError(f"request id {request_id!r} is in use", param="request_id")
        if isinstance(request.voice, str) and request.voice not in self.config.voices:
            raise UnknownVoiceError(f"unknown voice {request.voice!r}", param="voice")
        if isinstance(request.voice, Voice) and request.voice.path is not None:
            raise UnknownVoiceError("the fake engine reads no files", param="voice")
        if request.model not in (None, "fake", "default"):
            raise UnknownModelError(f"unknown model {request.model!r}", param="model")
        if len(request.text) > self.config.max_text_chars:
            raise RequestTooLongError(
                f"text is longer than {self.config.max_text_chars} characters", param="text"
            )
        if failure is not None and failure.kind == "refuse":
            raise RequestError("refused as scripted", param="text")
        if failure is not None and failure.kind == "overload":
            raise OverloadedError("overloaded as scripted", retry_after_s=1.5)

    def _failure_of(self, request: SpeechRequest) -> FakeFailure | None:
        return next((f for f in self.config.failures if f.text in request.text), None)

    def _fail(self, failure: FakeFailure, live: _Live) -> None:
        if failure.kind == "raise":
            raise RuntimeError("an unforeseen failure, as scripted")
        if failure.kind == "error":
            _end(live, "error")
        if failure.kind == "kill":
            self.kill()

    async def _hang(self, live: _Live) -> None:
        ways_out: list[asyncio.Future[Any]] = [live.ending, self._released]
        await asyncio.wait(ways_out, return_when=asyncio.FIRST_COMPLETED)

    async def _wait_for_turn(self, live: _Live, started: float, index: int) -> None:
        """Wait until chunk `index` is due, or something ends the request."""
        config = self.config
        due = started + config.first_chunk_s + index * config.chunk_s / config.pace
        delay = due - self._clock()
        if delay > 0 and not live.ending.done():
            await asyncio.wait([live.ending], timeout=delay)
        else:
            await asyncio.sleep(0)

    def _count(self, piece: FloatArray, request: SpeechRequest, index: int) -> None:
        totals = self._totals
        totals.chunks += 1
        totals.frames += 1
        totals.audio_s += len(piece) / self.config.sample_rate
        if index == 0:
            totals.prompt_tokens += len(request.text)


@dataclass(frozen=True, slots=True)
class _Metering:
    """Times of one request, from which its `RequestMetrics` are made."""

    request: SpeechRequest
    seed: int
    submitted: float
    started: float
    num_chunks: int
    seconds: float

    def at(self, now: float) -> RequestMetrics:
        """The metrics of a request that ends at `now`."""
        return RequestMetrics(
            queue_s=self.started - self.submitted,
            ttfa_s=self.started - self.submitted,
            total_s=now - self.submitted,
            prompt_tokens=len(self.request.text),
            frames=self.num_chunks,
            audio_s=self.seconds,
            num_segments=1,
            seed=self.seed,
        )


def _at_speed(audio: FloatArray, speed: float, sample_rate: int) -> FloatArray:
    if speed == 1:
        return audio
    stretch = TimeStretch(speed, sample_rate)
    return np.concatenate([stretch.feed(audio), stretch.finish()])


def _cut(audio: FloatArray, size: int) -> Sequence[FloatArray]:
    return [audio[i : i + size] for i in range(0, len(audio), size)]


def _end(live: _Live, reason: FinishReason) -> None:
    if not live.ending.done():
        live.ending.set_result(reason)


def _terminal(
    request_id: str,
    sample_rate: int,
    index: int,
    reason: FinishReason,
    metrics: _Metering,
    engine: FakeEngine,
) -> AudioChunk:
    failed = reason == "error"
    code = "internal_error" if engine.is_ready else "engine_dead"
    return AudioChunk(
        request_id=request_id,
        audio=np.zeros(0, np.float32),
        sample_rate=sample_rate,
        index=index,
        is_last=True,
        finish_reason=reason,
        error="failed as scripted" if failed else None,
        error_code=code if failed else None,
        metrics=metrics.at(monotonic()),
    )
