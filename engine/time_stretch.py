"""`TimeStretch`: change the tempo of a stream of audio without changing its pitch.

FFmpeg's `atempo` (WSOLA) does the work. What it makes depends a little on how its input is cut, so
it is fed blocks of one size whatever chunks arrive: streamed audio equals whole audio. Changing a
model's own speaking rate is not done here.
"""

from __future__ import annotations

import math

import numpy as np

from .output import FloatArray

_MIN_STAGE, _MAX_STAGE = 0.5, 2.0  # beyond, atempo refuses or skips samples instead of blending
_BLOCK = 512  # samples


def _stages(speed: float) -> list[float]:
    """Factors within one filter's good range whose product is `speed`."""
    count = 1
    while not _MIN_STAGE <= speed ** (1 / count) <= _MAX_STAGE:
        count += 1
    return [speed ** (1 / count)] * count


class TimeStretch:
    """A streaming tempo change.

    Args:
        speed: above 0; 2 halves the duration.
        sample_rate: samples per second, in and out.
    """

    def __init__(self, speed: float, sample_rate: int) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ValueError(f"speed must be above 0, got {speed!r}")
        import av  # here, so that an engine that changes no tempo does without FFmpeg

        self._rate = sample_rate
        self._pts = 0
        self._pending = np.zeros(0, np.float32)  # less than a block
        self._graph = av.filter.Graph()
        filters = [
            self._graph.add_abuffer(
                sample_rate=sample_rate, format="flt", layout="mono", channels=1
            )
        ]
        filters += [self._graph.add("atempo", repr(stage)) for stage in _stages(speed)]
        filters.append(self._graph.add("aformat", "sample_fmts=flt:channel_layouts=mono"))
        filters.append(self._graph.add("abuffersink"))
        self._graph.link_nodes(*filters).configure()

    def feed(self, audio: FloatArray) -> FloatArray:
        """Take float32 [samples], return what is ready (float32, perhaps empty)."""
        pending = np.concatenate([self._pending, audio])
        num_whole = len(pending) // _BLOCK * _BLOCK
        self._pending = pending[num_whole:]
        for start in range(0, num_whole, _BLOCK):
            self._push(pending[start : start + _BLOCK])
        return self._pull()

    def finish(self) -> FloatArray:
        """End the stream and return the rest (float32, perhaps empty)."""
        if len(self._pending):
            self._push(self._pending)
        if not self._pts:
            return np.zeros(0, np.float32)
        self._graph.push(None)
        return self._pull()

    def _push(self, audio: FloatArray) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(audio, np.float32)[None], format="flt", layout="mono"
        )
        frame.sample_rate = self._rate
        frame.pts = self._pts
        self._pts += len(audio)
        self._graph.push(frame)

    def _pull(self) -> FloatArray:
        import av

        pieces = []
        while True:
            try:
                pieces.append(self._graph.pull().to_ndarray()[0])
            except (av.error.BlockingIOError, av.error.EOFError):
                break
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
