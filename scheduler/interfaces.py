"""The types that cross the scheduler's border, both ways. Plain Python: no torch, no clock.

One step is `schedule(now) -> SchedulerOutput`, run by a model runner, answered by a
`ModelRunnerOutput`, applied by `update_from_output`. There are no prefill and decode phases: every
sequence has `num_computed_tokens` chasing `num_tokens`. The vocoder has its own scheduler, whose
batches (`VocoderBatch`) do not follow the steps of the speech model.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

SequencePriority = Literal["interactive", "bulk"]
SequenceFinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits of one scheduler.

    Attributes:
        max_num_seqs: sequences running at once.
        max_num_batched_tokens: positions in one step; a step never has more.
        num_blocks: KV blocks in the pool.
        block_size: positions in a block.
        max_model_len: positions of one sequence, prompt and frames together.
        enable_prefix_caching: share the full blocks of equal prompt prefixes.
        bulk_share: while both classes wait, every so-manieth admission is a bulk sequence's.
        max_bulk_preemptions: a bulk sequence preempted so often counts as interactive from then.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    block_size: int
    max_model_len: int
    enable_prefix_caching: bool = True
    bulk_share: int = 8
    max_bulk_preemptions: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSequence:
    """One segment of a request, as the scheduler first sees it.

    Attributes:
        seq_id: unique among live sequences.
        request_id: the request it belongs to.
        arrival_time: seconds on the caller's clock; order within a class.
        num_prompt_tokens: positions of the prompt.
        prefix_keys: one key a prompt position, equal when the position's input is equal.
        prefix_salt: what else determines the KV of the prompt (the voice conditioning).
        max_new_frames: the sequence ends with `length` after so many frames.
        segment_index: order within the request; lower runs first.
    """

    seq_id: str
    request_id: str
    arrival_time: float
    num_prompt_tokens: int
    prefix_keys: Sequence[Hashable]
    prefix_salt: bytes
    max_new_frames: int
    priority: SequencePriority = "interactive"
    segment_index: int = 0


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """One sequence's share of a step: positions `num_computed_tokens` onwards.

    Attributes:
        seq_id: the sequence.
        num_computed_tokens: positions whose KV exists already (computed or from the prefix cache).
        num_scheduled_tokens: positions to compute now.
        block_table: block ids of the sequence, in order; live, to be read only.
        first_new_block: entries of `block_table` from here on are new to the runner; 0 after
            admission and after a preemption.
        samples: true when the last scheduled position predicts a new frame.
    """

    seq_id: str
    num_computed_tokens: int
    num_scheduled_tokens: int
    block_table: Sequence[int]
    first_new_block: int
    samples: bool


@dataclass(frozen=True, slots=True)
class SchedulerOutput:
    """What one step runs. `preempted` sequences lost their KV and will be replayed."""

    scheduled: tuple[ScheduledSequence, ...]
    preempted: tuple[str, ...] = ()

    @property
    def num_scheduled_tokens(self) -> int:
        """Positions in the step."""
        return sum(item.num_scheduled_tokens for item in self.scheduled)


@dataclass(frozen=True, slots=True)
class ModelRunnerOutput:
    """What the runner tells the scheduler: who sampled, and who said it is done.

    Frames and hidden states stay with the runner. A sequence in `stopped` drew its end of speech:
    that draw is not a frame.
    """

    sampled: tuple[str, ...]  # seq_ids for which a draw was made
    stopped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SequenceUpdate:
    """What one step did to one sequence, for the engine and the vocoder scheduler."""

    seq_id: str
    request_id: str
    num_frames: int  # kept so far
    finish_reason: SequenceFinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSchedule:
    """How a sequence's frames are cut into vocoder jobs.

    Attributes:
        first_frames: frames in the first chunk.
        growth: each chunk is so many times the one before (rounded up).
        max_frames: largest chunk.
    """

    first_frames: int = 7
    growth: float = 1.25
    max_frames: int = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderSchedulerConfig:
    """Limits of the vocoder scheduler. Contexts come from the vocoder's own declaration.

    Attributes:
        left_context: frames before a chunk that its samples depend on.
        right_context: frames after a chunk that its samples depend on.
        low_right_context: the same for low-latency sequences.
        frame_s: seconds of audio in a frame.
        max_batch_frames: window frames in one batch; one job alone may exceed it.
        chunks: the chunk schedule of streamed sequences. Bulk sequences, which nobody listens
            to as they are made, wait until they are finished and are cut by `max_batch_frames`.
    """

    left_context: int
    right_context: int
    low_right_context: int
    frame_s: float
    max_batch_frames: int = 512
    chunks: ChunkSchedule = ChunkSchedule()


@dataclass(frozen=True, slots=True)
class VocoderJob:
    """Decode frames [window_start, window_end) and keep the samples of [start, end).

    `is_last` says that `end` is the end of the sequence, so the last frame's half-window tail
    belongs to it. `waited_s` is how long the job has been ready.
    """

    seq_id: str
    start: int
    end: int
    window_start: int
    window_end: int
    is_last: bool
    waited_s: float = 0.0

    @property
    def num_window_frames(self) -> int:
        """Frames to decode, context included."""
        return self.window_end - self.window_start


@dataclass(frozen=True, slots=True)
class VocoderBatch:
    """Jobs of many sequences, of different lengths, for one launch."""

    jobs: tuple[VocoderJob, ...]
