"""`Delivery`: the waveform of one request, joined from its segments in order.

Segments are decoded whenever their frames are ready, so audio may arrive for a later segment
first; it waits here. Pauses between segments and a change of tempo are applied to the joined
stream, which is why a streamed request and a whole one sound the same. This module knows no
scheduler and makes no `AudioChunk`s; `RequestState` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .output import FloatArray
from .time_stretch import TimeStretch

_SILENCE = np.zeros(0, np.float32)


class Delivery:
    """Puts pieces of segments in order.

    Args:
        pauses_s: seconds of silence after each segment; the last one's is not played.
        sample_rate: samples per second.
        speed: tempo; 1 leaves the samples untouched.
    """

    def __init__(self, pauses_s: Sequence[float], sample_rate: int, speed: float) -> None:
        self._pauses_s = pauses_s
        self._rate = sample_rate
        self._stretch = TimeStretch(speed, sample_rate) if speed != 1 else None
        self._waiting: list[list[FloatArray]] = [[] for _ in pauses_s]
        self._ended = [False] * len(pauses_s)
        self._current = 0
        self.num_samples = 0

    @property
    def is_complete(self) -> bool:
        """True when every segment was delivered to its end."""
        return self._current == len(self._ended)

    def push(self, segment_index: int, audio: FloatArray, *, ends: bool) -> FloatArray:
        """Take the next piece of a segment; returns what may be heard now (float32 [samples])."""
        self._waiting[segment_index].append(audio)
        self._ended[segment_index] = ends
        if segment_index != self._current:
            return _SILENCE
        ready = self._advance()
        self.num_samples += len(ready)
        return self._stretched(ready)

    def _advance(self) -> FloatArray:
        pieces: list[FloatArray] = []
        while not self.is_complete:
            pieces += self._waiting[self._current]
            self._waiting[self._current] = []
            if not self._ended[self._current]:
                break
            if self._current < len(self._ended) - 1:
                samples = round(self._pauses_s[self._current] * self._rate)
                pieces.append(np.zeros(samples, np.float32))
            self._current += 1
        return np.concatenate(pieces) if pieces else _SILENCE

    def _stretched(self, ready: FloatArray) -> FloatArray:
        if self._stretch is None:
            return ready
        audio = self._stretch.feed(ready)
        if self.is_complete:
            audio = np.concatenate([audio, self._stretch.finish()])
        return audio
