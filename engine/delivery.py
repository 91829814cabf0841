"""`Delivery`: the waveform of one request, joined from its segments in order.

Segments are decoded whenever their frames are ready, so audio may arrive for a later segment
first; it waits here. A segment's level and the silence at its ends are set piece by piece, pauses
between segments and a change of tempo are applied to the joined stream; none depends on where the
pieces were cut, which is why a streamed request and a whole one sound the same. This module knows
no scheduler and makes no `AudioChunk`s; `RequestState` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model_executor.interfaces import Prompt
from .edge_trim import EdgeTrim
from .output import FloatArray
from .time_stretch import TimeStretch

_SILENCE = np.zeros(0, np.float32)


class Delivery:
    """Puts pieces of segments in order.

    Args:
        prompts: of the segments; they say level, ends and pauses. The pause after
            the last one is not played.
        sample_rate: samples per second.
        speed: tempo; 1 leaves the samples untouched.
    """

    def __init__(self, prompts: Sequence[Prompt], sample_rate: int, speed: float) -> None:
        self._prompts = prompts
        self._rate = sample_rate
        self._stretch = TimeStretch(speed, sample_rate) if speed != 1 else None
        self._trims = [
            None if prompt.edges is None else EdgeTrim(prompt.edges, sample_rate)
            for prompt in prompts
        ]
        self._waiting: list[list[FloatArray]] = [[] for _ in prompts]
        self._ended = [False] * len(prompts)
        self._current = 0
        self.num_samples = 0

    @property
    def is_complete(self) -> bool:
        """True when every segment was delivered to its end."""
        return self._current == len(self._ended)

    def push(self, segment_index: int, audio: FloatArray, *, ends: bool) -> FloatArray:
        """Take the next piece of a segment; returns what may be heard now (float32 [samples])."""
        self._waiting[segment_index].append(self._shaped(segment_index, audio, ends=ends))
        self._ended[segment_index] = ends
        if segment_index != self._current:
            return _SILENCE
        ready = self._advance()
        self.num_samples += len(ready)
        return self._stretched(ready)

    def _shaped(self, segment_index: int, audio: FloatArray, *, ends: bool) -> FloatArray:
        gain, trim = self._prompts[segment_index].gain, self._trims[segment_index]
        louder = audio if gain == 1 else audio * np.float32(gain)
        return louder if trim is None else trim.feed(louder, ends=ends)

    def _advance(self) -> FloatArray:
        pieces: list[FloatArray] = []
        while not self.is_complete:
            pieces += self._waiting[self._current]
            self._waiting[self._current] = []
            if not self._ended[self._current]:
                break
            if self._current < len(self._ended) - 1:
                samples = round(self._prompts[self._current].pause_after_s * self._rate)
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
