"""Vocoder batches as CUDA graphs, one for each (rows, frames) bucket.

A vocoder batch is hundreds of small kernels per row when every row is cut to its own frames. Here
jobs are padded to buckets and each bucket is one graph, from the frame store to samples, with the
states of streams in slots on the device. A state is a cache, as in `VocoderRunner`: a job whose
state is not there is decoded from its window, with the same samples.

It chooses no windows and computes no samples itself: see `vocoders.padded_chain`. Without CUDA the
same functions run on the same padded inputs, which is how they are tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..engine.request import VocoderInput
from ..scheduler.interfaces import VocoderBatch, VocoderJob
from .cuda_graphs import CapturePool, HostArray, Padding, StepGraphs, Tensors, find_bucket
from .frame_store import BLANK_ROW, FrameStore
from .interfaces import Prompt
from .vocoders.frame_vocoder import MEL_PER_FRAME, FrameVocoder
from .vocoders.padded_chain import PaddedChain

Mode = Literal["whole", "resume"]

FRAME_BUCKETS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
_RESUME_BUCKETS = FRAME_BUCKETS[:5]  # chunks of streams are no longer
_MAX_ROWS = 64
_NO_END = 1 << 40  # frames; a sequence whose end is not known yet


def row_buckets(frames: int, max_batch_frames: int) -> tuple[int, ...]:
    """Powers of two up to the rows of so many frames that a batch may hold; at least 1."""
    most = min(max(max_batch_frames // frames, 1), _MAX_ROWS)
    return tuple(1 << power for power in range(most.bit_length()))


@dataclass(frozen=True, slots=True)
class _Stream:
    """Where a sequence's stream stands.

    Attributes:
        slot: of its state.
        next_start: the frame at which its next job must begin; None when the state is spoilt.
        kind: of its frames.
        length: frames of the sequence, as the inputs so far took it; None while it is not known.
    """

    slot: int
    next_start: int | None
    kind: VocoderInput
    length: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One job as a row of a graph.

    Attributes:
        index: of the job in its batch.
        rows: rows of the frame store, int64 [frames], inputs of this row.
        num_frames: those, and the ones that only push outputs out of the delay line.
        values: the row's other inputs, by name.
        skipped: hops of samples before the wanted ones.
        wanted: hops that are wanted.
    """

    index: int
    mode: Mode
    kind: VocoderInput
    rows: HostArray
    num_frames: int
    values: dict[str, int]
    skipped: int
    wanted: int


class VocoderGraphs:
    """Queues vocoder batches on the device.

    Args:
        vocoder: the layers.
        store: the frames of all sequences.
        prompt_of: what a sequence was given.
        decode: queues a batch without graphs, for windows longer than any bucket.
        num_streams: sequences whose state can be kept at once.
        max_batch_frames: frames in the largest batch.
    """

    def __init__(
        self,
        vocoder: FrameVocoder,
        store: FrameStore,
        prompt_of: Callable[[str], Prompt],
        decode: Callable[[VocoderBatch], list[Tensor]],
        *,
        num_streams: int,
        max_batch_frames: int,
    ) -> None:
        self._vocoder, self._store = vocoder, store
        self._prompt_of, self._decode = prompt_of, decode
        self._max_batch_frames = max_batch_frames
        self._free = list(range(num_streams))
        self._streams: dict[str, _Stream] = {}
        self._chains = {kind: self._padded_chain(kind, num_streams) for kind in vocoder.input_kinds}
        self._graphs: dict[tuple[Mode, VocoderInput, int], StepGraphs] = {}
        self._scratch_slot = num_streams
        self._pool = CapturePool.on(vocoder.device)

    @property
    def num_streams(self) -> int:
        """Sequences that it keeps a state of."""
        return len(self._streams)

    @property
    def num_captured(self) -> int:
        """Graphs that are ready."""
        return sum(graphs.num_captured for graphs in self._graphs.values())

    def forget(self, seq_id: str) -> None:
        """Drop the state of a sequence that will send no more jobs; unknown ids are ignored."""
        stream = self._streams.pop(seq_id, None)
        if stream is not None:
            self._free.append(stream.slot)

    @torch.inference_mode()
    def warmup(self) -> None:
        """Capture the buckets of the default input."""
        kind = self._vocoder.input_kinds[0]
        whole = {"ends": 0}
        resume = {"slots": self._scratch_slot, "first": 0, "counts": 0, "ends": 0}
        calls = [_blank_call("whole", kind, frames, whole) for frames in FRAME_BUCKETS]
        calls += [_blank_call("resume", kind, frames, resume) for frames in _RESUME_BUCKETS]
        sizes = [
            (call, rows)
            for call in calls
            for rows in row_buckets(call.num_frames, self._max_batch_frames)
        ]
        # The largest first: smaller ones then fit into the memory that it left in the pool.
        for call, rows in sorted(sizes, key=lambda size: -size[0].num_frames * size[1]):
            self._run([call] * rows)
        if self._vocoder.device.type == "cuda":
            # Service runs on another stream, which does not wait for this one.
            torch.cuda.synchronize(self._vocoder.device)

    @torch.inference_mode()
    def launch(self, batch: VocoderBatch) -> list[Tensor]:
        """Queue the waveforms of the jobs, in order, each as if it were alone.

        Returns:
            float32 [(end - start) * samples_per_frame] on the device, less `tail_samples` for the
            last job of a sequence.

        Raises:
            ValueError: a job that is not its sequence's last has no look-ahead at all, or the
                vocoder does not take its kind of frames.
        """
        try:
            return self._launch(batch.jobs)
        except Exception:
            for job in batch.jobs:
                self._spoil(job.seq_id)
            raise

    def _launch(self, jobs: Sequence[VocoderJob]) -> list[Tensor]:
        results: dict[int, Tensor] = {}
        groups: dict[tuple[Mode, VocoderInput, int], list[_Call]] = {}
        seen: set[str] = set()
        for index, job in enumerate(jobs):
            call = self._call(index, job, may_resume=job.seq_id not in seen)
            seen.add(job.seq_id)
            frames = find_bucket(call.num_frames, FRAME_BUCKETS)
            if frames is None:
                self._spoil(job.seq_id)
                (results[index],) = self._decode(VocoderBatch((job,)))
            else:
                groups.setdefault((call.mode, call.kind, frames), []).append(call)
        for (_, _, frames), calls in groups.items():
            most = row_buckets(frames, self._max_batch_frames)[-1]
            for start in range(0, len(calls), most):
                results |= self._run(calls[start : start + most])
        for job in jobs:
            if job.is_last:
                self.forget(job.seq_id)
        return [results[index] for index in range(len(jobs))]

    def _call(self, index: int, job: VocoderJob, *, may_resume: bool) -> _Call:
        """How a job is decoded; notes where its stream will stand."""
        if job.end == job.window_end and not job.is_last:
            raise ValueError(f"{job} needs at least one frame of look-ahead")
        prompt = self._prompt_of(job.seq_id)
        kind = prompt.vocoder_input or self._vocoder.input_kinds[0]
        if kind not in self._chains:
            raise ValueError(f"{job} has {kind}; the vocoder takes {self._vocoder.input_kinds}")
        skipped = 0 if prompt.frames is None else len(prompt.frames)
        rows = self._store.rows(job.seq_id, skipped + job.window_start, skipped + job.window_end)
        stream = self._stream(job, kind) if may_resume else None
        if stream is None:
            self._spoil(job.seq_id)
            return _whole_call(index, job, kind, rows)
        ahead = self._chains[kind].delay // MEL_PER_FRAME
        length = job.window_end if job.window_end < job.end + ahead else None
        self._streams[job.seq_id] = replace(stream, next_start=job.end, length=length)
        return _resume_call(index, job, kind, rows, ahead, stream.slot, length)

    def _stream(self, job: VocoderJob, kind: VocoderInput) -> _Stream | None:
        """The stream that the job goes on with or begins; None when it must do without."""
        stream = self._streams.get(job.seq_id)
        if stream is None:
            begins = job.start == job.window_start == 0 and not job.is_last and self._free
            return _Stream(self._free.pop(), 0, kind) if begins else None
        goes_on = stream.next_start == job.start and stream.kind == kind
        return stream if goes_on and stream.length in (None, job.window_end) else None

    def _spoil(self, seq_id: str) -> None:
        """See to it that a sequence's state is not used again."""
        if seq_id in self._streams:
            self._streams[seq_id] = replace(self._streams[seq_id], next_start=None)

    def _run(self, calls: Sequence[_Call]) -> dict[int, Tensor]:
        """Replay one graph: waveforms by index."""
        first = calls[0]
        frames = find_bucket(first.num_frames, FRAME_BUCKETS)
        assert frames is not None, "no bucket holds this call"
        arrays: dict[str, HostArray] = {
            name: np.array([call.values[name] for call in calls], np.int64) for name in first.values
        }
        arrays["rows"] = np.full((len(calls), frames), BLANK_ROW, np.int64)
        for row, call in enumerate(calls):
            arrays["rows"][row, : len(call.rows)] = call.rows
        graphs = self._graphs_of(first.mode, first.kind, frames)
        paddings = {name: Padding() for name in first.values}
        paddings["slots"] = Padding(self._scratch_slot)
        paddings["rows"] = Padding(BLANK_ROW)
        # The next replay overwrites the graph's own output.
        hops = graphs.run(arrays, paddings, len(calls)).clone()
        return {
            call.index: hops[row, call.skipped : call.skipped + call.wanted].flatten()
            for row, call in enumerate(calls)
        }

    def _graphs_of(self, mode: Mode, kind: VocoderInput, frames: int) -> StepGraphs:
        key = (mode, kind, frames)
        if key not in self._graphs:
            function = self._whole if mode == "whole" else self._resume
            self._graphs[key] = StepGraphs(
                lambda tensors: function(kind, tensors),
                row_buckets(frames, self._max_batch_frames),
                self._vocoder.device,
                lambda: (self._store.codes, self._store.hidden),
                pool=self._pool,
            )
        return self._graphs[key]

    def _whole(self, kind: VocoderInput, tensors: Tensors) -> Tensor:
        """What a graph of whole windows runs: hops of samples [rows, hops, hop_length]."""
        return self._chains[kind].whole(self._features(kind, tensors["rows"]), tensors["ends"])

    def _resume(self, kind: VocoderInput, tensors: Tensors) -> Tensor:
        """What a graph of streams runs: hops of samples [rows, hops, hop_length]."""
        return self._chains[kind].resume(
            self._features(kind, tensors["rows"]),
            tensors["slots"],
            tensors["first"],
            tensors["counts"],
            tensors["ends"],
        )

    def _features(self, kind: VocoderInput, rows: Tensor) -> Tensor:
        """Rows of the frame store [rows, frames] to [rows, MEL_PER_FRAME * frames, features]."""
        source = self._store.hidden if kind == "hidden" else self._store.codes
        features = self._vocoder.features(source[rows.flatten()], kind)
        return features.view(len(rows), MEL_PER_FRAME * rows.shape[1], -1)

    def _padded_chain(self, kind: VocoderInput, num_streams: int) -> PaddedChain:
        features = self._vocoder.features(self._vocoder.blank_frames(1, kind), kind)
        return PaddedChain(
            self._vocoder.chain(kind).stages,
            features=features.shape[1],
            num_slots=num_streams,
            device=self._vocoder.device,
        )


def _whole_call(index: int, job: VocoderJob, kind: VocoderInput, rows: HostArray) -> _Call:
    """The job's window, decoded by itself."""
    values = {"ends": MEL_PER_FRAME * len(rows)}
    skipped = MEL_PER_FRAME * (job.start - job.window_start)
    return _Call(index, "whole", kind, rows, len(rows), values, skipped, _wanted_hops(job))


def _resume_call(
    index: int,
    job: VocoderJob,
    kind: VocoderInput,
    rows: HostArray,
    ahead: int,
    slot: int,
    length: int | None,
) -> _Call:
    """The job as the continuation of its stream, whose outputs lag `ahead` frames behind."""
    begin = job.start + ahead if job.start else 0
    count = job.end + ahead - begin
    new = rows[begin - job.window_start :][:count]
    values = {
        "slots": slot,
        "first": MEL_PER_FRAME * begin,
        "counts": MEL_PER_FRAME * count,
        "ends": MEL_PER_FRAME * (_NO_END if length is None else length),
    }
    skipped = 0 if job.start else MEL_PER_FRAME * ahead
    return _Call(index, "resume", kind, new, count, values, skipped, _wanted_hops(job))


def _wanted_hops(job: VocoderJob) -> int:
    """Hops of samples that a job gives; the last hop of a sequence would need frames beyond it."""
    return MEL_PER_FRAME * (job.end - job.start) - job.is_last


def _blank_call(mode: Mode, kind: VocoderInput, frames: int, values: dict[str, int]) -> _Call:
    """A row of a bucket that touches no sequence."""
    return _Call(0, mode, kind, np.zeros(0, np.int64), frames, values, 0, 0)
