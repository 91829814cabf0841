"""`Answer`: chunks of speech becoming encoded bytes, with everything measured on the way.

The one place where the endpoints meet: the speech call, the batch call and the WebSocket differ in
where chunks come from and where bytes go, not in what happens between. A playback clock that
starts with the first audio counts underruns. This module writes to no socket.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from time import monotonic

from ..engine.output import AudioChunk, FloatArray
from .delivery import AudioPipe
from .metrics import ServerMetrics
from .parse import OutputSpec
from .protocol import Usage


class PlaybackClock:
    """A player that starts at the first audio and plays at 1x; tells how late each piece came."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._empty_at: float | None = None  # when the player has played all it was given

    def lateness_s(self, audio_s: float) -> float:
        """Hand over `audio_s` seconds; returns for how long the player had run dry."""
        now = self._clock()
        late = 0.0 if self._empty_at is None else max(0.0, now - self._empty_at)
        self._empty_at = max(now, self._empty_at or now) + audio_s
        return late


class Answer:
    """One answer under way.

    Args:
        chunks: the speech, from the synthesizer.
        output: format and rate.
        pool: where encoding runs.
        metrics: told what happens.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[AudioChunk, None],
        output: OutputSpec,
        pool: ThreadPoolExecutor,
        metrics: ServerMetrics,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._chunks = chunks
        self._output = output
        self._pool = pool
        self._metrics = metrics
        self._clock = clock
        self._player = PlaybackClock(clock)
        self._started = clock()
        self._last_audio: float | None = None
        self._input_tokens = 0
        self._output_tokens = 0
        self._pipe: AudioPipe | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio encoded so far."""
        return self._pipe.audio_s if self._pipe else 0.0

    @property
    def usage(self) -> Usage:
        """Tokens in and frames out, complete once the chunks have ended."""
        total = self._input_tokens + self._output_tokens
        return Usage(
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            total_tokens=total,
        )

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Encoded bytes as they are ready, none of them empty."""
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                pipe = self._pipe_for(chunk.sample_rate)
                if piece := await pipe.feed(self._take(chunk)):
                    self._note_audio(len(chunk.audio) / chunk.sample_rate)
                    yield piece
        if self._pipe is not None and (rest := await self._pipe.finish()):
            yield rest
        self._note_end()

    async def whole(self) -> bytes:
        """The finished file, with a header that knows its length."""
        pieces: list[FloatArray] = []
        pipe = None
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                pipe = self._pipe_for(chunk.sample_rate)
                pieces.append(self._take(chunk))
                self._note_audio(len(chunk.audio) / chunk.sample_rate)
        encoded = await pipe.whole(pieces) if pipe else b""
        self._note_end()
        return encoded

    def _pipe_for(self, source_rate: int) -> AudioPipe:
        if self._pipe is None:
            observe = self._metrics.encode_s.labels(self._output.audio_format).observe
            self._pipe = AudioPipe(self._output, source_rate, self._pool, observe)
        return self._pipe

    def _take(self, chunk: AudioChunk) -> FloatArray:
        if chunk.metrics is not None:
            self._input_tokens += chunk.metrics.prompt_tokens
            self._output_tokens += chunk.metrics.frames
        return chunk.audio

    def _note_audio(self, audio_s: float) -> None:
        now = self._clock()
        if self._last_audio is None:
            self._metrics.ttfa.observe(now - self._started)
        else:
            self._metrics.chunk_gap.observe(now - self._last_audio)
        self._last_audio = now
        late = self._player.lateness_s(audio_s)
        if late > 0:
            self._metrics.underruns.inc()
            self._metrics.underrun_s.inc(late)

    def _note_end(self) -> None:
        self._metrics.e2e.observe(self._clock() - self._started)
        self._metrics.audio_s.labels(self._output.audio_format).inc(self.audio_s)
