"""Runs vocoder batches: the only place where waveforms leave the device.

Takes the windows that the frame store cut for the jobs of one `VocoderBatch` and gives back one
array a job. Between the jobs of a sequence it keeps what the vocoder's layers need of the frames
before (see `vocoders.chain`), so that a chunk does not pay for its context. That is a cache: a job
whose state is not there is decoded from its window, with the same samples. It chooses nothing:
windows come from the vocoder scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from ..engine.request import VocoderInput
from ..scheduler.interfaces import VocoderJob
from .interfaces import FloatArray, VocoderSpec
from .vocoders.chain import StreamState
from .vocoders.frame_vocoder import MEL_PER_FRAME, FrameVocoder, Window
from .vocoders.layers import MOST_ROWS
from .vocoders.row_layout import Span, buckets

_WARM_ID = "vocoder-warmup"


@dataclass(frozen=True, slots=True, eq=False)
class _Resume:
    """Where a sequence's decoding stands: `state` continues at frame `start`."""

    start: int
    kind: VocoderInput
    state: StreamState


class VocoderRunner:
    """Decodes the jobs of many requests in one launch per input kind."""

    def __init__(self, vocoder: FrameVocoder) -> None:
        self._vocoder = vocoder
        self._resumes: dict[str, _Resume] = {}
        self.spec: VocoderSpec = vocoder.spec

    @property
    def input_kinds(self) -> tuple[VocoderInput, ...]:
        """What it can decode, the default first."""
        return self._vocoder.input_kinds

    @property
    def num_streams(self) -> int:
        """Sequences that it keeps a state of."""
        return len(self._resumes)

    def warmup(self) -> None:
        """Generate the default input's kernels for every number of rows computed at once."""
        context, kind = self.spec, self.input_kinds[0]
        ends = list(accumulate(count // MEL_PER_FRAME for count in buckets(MOST_ROWS)))
        frames = self._vocoder.blank_frames(ends[-1] + context.right_context, kind)
        start = 0
        for end in ends:
            first, last = max(0, start - context.left_context), end + context.right_context
            job = VocoderJob(_WARM_ID, start, end, first, last, is_last=False)
            self.launch([frames[first:last]], [job])
            start = end
        self.forget(_WARM_ID)

    def forget(self, seq_id: str) -> None:
        """Drop the state of a sequence that will send no more jobs; unknown ids are ignored."""
        self._resumes.pop(seq_id, None)

    @torch.inference_mode()
    def decode(self, windows: Sequence[Tensor], jobs: Sequence[VocoderJob]) -> list[FloatArray]:
        """Like `launch`, but waits for the device; one copy brings all waveforms to the host."""
        waveforms = self.launch(windows, jobs)
        return _to_host(waveforms)

    @torch.inference_mode()
    def launch(self, windows: Sequence[Tensor], jobs: Sequence[VocoderJob]) -> list[Tensor]:
        """Queue the waveforms of the jobs, in order, each as if it were alone.

        Args:
            windows: the frames [window_start, window_end) of each job: hidden states
                (floating, [T_i, hidden_size]) or codes (integer, [T_i, num_codebooks]); both
                kinds may be in one batch.

        Returns:
            float32 [(end - start) * samples_per_frame] on the device, less `tail_samples` for the
            last job of a sequence.

        Raises:
            ValueError: a job that is not its sequence's last has no look-ahead at all, or the
                vocoder does not take its kind of frames.
        """
        for job in jobs:
            if job.end == job.window_end and not job.is_last:
                raise ValueError(f"{job} needs at least one frame of look-ahead")
        kinds = [self._kind(window, job) for window, job in zip(windows, jobs, strict=True)]
        results: dict[int, Tensor] = {}
        for kind in self.input_kinds:
            chosen = [index for index, own in enumerate(kinds) if own == kind]
            if chosen:
                batch = [self._window(windows[index], jobs[index], kind) for index in chosen]
                waveforms, states = self._vocoder.decode(batch, kind)
                results.update(zip(chosen, waveforms, strict=True))
                for index, state in zip(chosen, states, strict=True):
                    self._remember(jobs[index], kind, state)
        return [results[index] for index in range(len(jobs))]

    def _kind(self, window: Tensor, job: VocoderJob) -> VocoderInput:
        kind: VocoderInput = "hidden" if window.is_floating_point() else "codes"
        if kind not in self.input_kinds:
            raise ValueError(f"{job} has {kind}; the vocoder takes {self.input_kinds}")
        return kind

    def _window(self, frames: Tensor, job: VocoderJob, kind: VocoderInput) -> Window:
        state = self._state(job, kind)
        # A single job has nothing to hand on; a first one starts a stream.
        keep = not job.is_last and (state is not None or job.start == job.window_start == 0)
        return Window(frames, job.window_start, Span(job.start, job.end), state, keep)

    def _state(self, job: VocoderJob, kind: VocoderInput) -> StreamState | None:
        resume = self._resumes.get(job.seq_id)
        if resume is None or resume.start != job.start or resume.kind != kind:
            return None
        first_input = resume.state.ends[0]
        return resume.state if first_input >= MEL_PER_FRAME * job.window_start else None

    def _remember(self, job: VocoderJob, kind: VocoderInput, state: StreamState | None) -> None:
        if state is None:
            self.forget(job.seq_id)
        else:
            self._resumes[job.seq_id] = _Resume(job.end, kind, state)


def _to_host(waveforms: Sequence[Tensor]) -> list[FloatArray]:
    """One copy for all waveforms."""
    joined = torch.cat(list(waveforms)).cpu().numpy()
    ends = np.cumsum([len(waveform) for waveform in waveforms])
    return np.split(joined, ends[:-1])
