"""Runs vocoder batches: the only place where waveforms leave the device.

Takes the windows that the frame store cut for the jobs of one `VocoderBatch` and gives back one
array a job. It keeps no state between batches and chooses nothing: windows come from the vocoder
scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..scheduler.interfaces import VocoderJob
from .interfaces import FloatArray, VocoderSpec
from .vocoders.frame_vocoder import FrameVocoder, InputKind
from .vocoders.row_layout import Span


class VocoderRunner:
    """Decodes the jobs of many requests in one launch per input kind."""

    def __init__(self, vocoder: FrameVocoder) -> None:
        self._vocoder = vocoder

    @property
    def spec(self) -> VocoderSpec:
        """Declared by the vocoder."""
        return self._vocoder.spec

    @property
    def input_kinds(self) -> tuple[InputKind, ...]:
        """What it can decode, the default first."""
        return self._vocoder.input_kinds

    @torch.inference_mode()
    def decode(self, windows: Sequence[Tensor], jobs: Sequence[VocoderJob]) -> list[FloatArray]:
        """Waveforms of the jobs, in order, each as if it were alone.

        Args:
            windows: the frames [window_start, window_end) of each job: hidden states
                (floating, [T_i, hidden_size]) or codes (integer, [T_i, num_codebooks]); both
                kinds may be in one batch.

        Returns:
            float32 [(end - start) * samples_per_frame] each, less `tail_samples` for the last
            job of a sequence.

        Raises:
            ValueError: a job that is not its sequence's last has no look-ahead at all.
        """
        for job in jobs:
            if job.end == job.window_end and not job.is_last:
                raise ValueError(f"{job} needs at least one frame of look-ahead")
        results: list[FloatArray | None] = [None] * len(jobs)
        for kind in self.input_kinds:
            chosen = [i for i, window in enumerate(windows) if _kind(window) == kind]
            if chosen:
                spans = [_span(jobs[i]) for i in chosen]
                waveforms = self._vocoder.decode([windows[i] for i in chosen], spans, kind)
                for i, waveform in zip(chosen, _to_host(waveforms), strict=True):
                    results[i] = waveform
        missing = [jobs[i].seq_id for i, result in enumerate(results) if result is None]
        if missing:
            raise ValueError(f"the vocoder takes {self.input_kinds}, not the frames of {missing}")
        return [result for result in results if result is not None]


def _kind(window: Tensor) -> InputKind:
    return "hidden" if window.is_floating_point() else "codes"


def _span(job: VocoderJob) -> Span:
    return Span(job.start - job.window_start, job.end - job.window_start)


def _to_host(waveforms: Sequence[Tensor]) -> list[FloatArray]:
    """One copy for all waveforms."""
    joined = torch.cat(list(waveforms)).cpu().numpy()
    ends = np.cumsum([len(waveform) for waveform in waveforms])
    return np.split(joined, ends[:-1])
