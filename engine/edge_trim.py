"""`EdgeTrim`: the silence at both ends of a segment, made constant while it streams.

A model decides for itself how much silence it puts around what it says. What counts as silence and
how much of it stays is the model's own declaration (`SpeechEdges`); pauses inside a segment keep
their length. Levels and the pauses between segments are not this module's business.
"""

from __future__ import annotations

import numpy as np

from ..model_executor.interfaces import SpeechEdges
from .output import FloatArray

_NOTHING = np.zeros(0, np.float32)


class EdgeTrim:
    """Cuts or pads one segment's ends.

    Quiet samples beyond those that would stay at the end are held back until something louder
    follows, so what comes out does not depend on how the segment was cut into pieces. Speech is
    never delayed.

    Args:
        edges: what stays.
        sample_rate: samples per second.
    """

    def __init__(self, edges: SpeechEdges, sample_rate: int) -> None:
        self._threshold = edges.threshold
        self._lead = round(edges.lead_s * sample_rate)
        self._tail = round(edges.tail_s * sample_rate)
        self._held = _NOTHING
        self._has_begun = False
        self._owed = 0  # quiet samples still to be handed out if nothing louder follows

    def feed(self, audio: FloatArray, *, ends: bool) -> FloatArray:
        """Take float32 [samples], return what is ready (float32, perhaps empty)."""
        pending = np.concatenate([self._held, audio])
        loud = np.flatnonzero(np.abs(pending) > self._threshold)
        if len(loud):
            skipped = 0 if self._has_begun else int(loud[0]) - self._lead
            pending = _from(pending, skipped)
            self._has_begun = True
            self._owed = int(loud[-1]) - skipped + 1 + self._tail
        elif not self._has_begun:
            self._held = pending[max(0, len(pending) - self._lead) :]
            return _NOTHING
        ready, self._held = pending[: self._owed], pending[self._owed :]
        self._owed -= len(ready)
        return np.pad(ready, (0, self._owed)) if ends else ready


def _from(samples: FloatArray, start: int) -> FloatArray:
    """Samples from `start`; before the first, silence."""
    return samples[start:] if start >= 0 else np.pad(samples, (-start, 0))
