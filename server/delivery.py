"""`AudioPipe`: one answer's way from the engine's samples to bytes, off the event loop.

Sample rate, then encoder; each keeps its own state, so a pipe serves one stream. Work that costs
more than a thread hop runs in the pool. The pipe neither knows HTTP nor the engine; the tempo is
the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import soxr

from ..engine.output import FloatArray
from .encoders import Encoder, encode_whole, is_cheap, make_encoder
from .parse import OutputSpec


class _Resampler:
    """One stream's change of sample rate; float32 in, float32 out."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        same = source_rate == target_rate
        self._stream = None if same else soxr.ResampleStream(source_rate, target_rate, 1)
        self._fed = False

    @property
    def is_identity(self) -> bool:
        """True when samples pass unchanged."""
        return self._stream is None

    def run(self, audio: FloatArray, last: bool) -> FloatArray:
        """Take float32 [samples]; return what is ready."""
        if self._stream is None or not (len(audio) or (last and self._fed)):
            return audio
        self._fed = True
        resampled: FloatArray = self._stream.resample_chunk(audio, last=last)
        return resampled


class AudioPipe:
    """A stream of samples becoming a stream of bytes.

    Args:
        output: format and rate.
        source_rate: samples per second of what is fed.
        pool: where the encoding runs.
        on_encode: told the seconds each piece of work took.
    """

    def __init__(
        self,
        output: OutputSpec,
        source_rate: int,
        pool: ThreadPoolExecutor,
        on_encode: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._output = output
        self._resampler = _Resampler(source_rate, output.sample_rate)
        self._encoder: Encoder | None = None  # made where it works: some take milliseconds
        self._pool = pool
        self._inline = self._resampler.is_identity and is_cheap(output.audio_format)
        self._on_encode = on_encode
        self._samples = 0

    @property
    def audio_s(self) -> float:
        """Seconds of audio encoded so far."""
        return self._samples / self._output.sample_rate

    async def feed(self, audio: FloatArray) -> bytes:
        """Encode float32 [samples]; return the bytes that are ready, perhaps none."""
        return await self._run(audio, False)

    async def finish(self) -> bytes:
        """Return the last bytes; the pipe is spent."""
        return await self._run(np.zeros(0, np.float32), True)

    async def whole(self, pieces: Sequence[FloatArray]) -> bytes:
        """Encode everything as one finished file, instead of `feed` and `finish`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._whole, pieces)

    async def _run(self, audio: FloatArray, last: bool) -> bytes:
        if self._inline:
            return self._work(audio, last)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._work, audio, last)

    def _work(self, audio: FloatArray, last: bool) -> bytes:
        start = perf_counter()
        resampled = self._resampler.run(audio, last)
        self._samples += len(resampled)
        encoder = self._encoder
        if encoder is None:
            encoder = make_encoder(self._output.audio_format, self._output.sample_rate)
            self._encoder = encoder
        encoded = encoder.feed(resampled)
        if last:
            encoded += encoder.finish()
        self._on_encode(perf_counter() - start)
        return encoded

    def _whole(self, pieces: Sequence[FloatArray]) -> bytes:
        start = perf_counter()
        joined = np.concatenate([np.zeros(0, np.float32), *pieces])
        resampled = self._resampler.run(joined, True)
        self._samples += len(resampled)
        encoded = encode_whole(self._output.audio_format, self._output.sample_rate, resampled)
        self._on_encode(perf_counter() - start)
        return encoded
