"""Schedulers and sequences from numbers, and a runner that draws as many frames as it is told."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from stretto.scheduler.interfaces import (
    ChunkSchedule,
    ModelRunnerOutput,
    NewSequence,
    SchedulerConfig,
    SchedulerOutput,
    SequencePriority,
    SequenceUpdate,
    VocoderSchedulerConfig,
)
from stretto.scheduler.scheduler import Scheduler
from stretto.scheduler.vocoder_scheduler import VocoderScheduler


def make_scheduler(
    *,
    max_num_seqs: int = 16,
    max_num_batched_tokens: int = 256,
    num_blocks: int = 64,
    block_size: int = 4,
    max_model_len: int = 256,
    enable_prefix_caching: bool = True,
    bulk_share: int = 8,
    max_bulk_preemptions: int = 3,
) -> Scheduler:
    return Scheduler(
        SchedulerConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            num_blocks=num_blocks,
            block_size=block_size,
            max_model_len=max_model_len,
            enable_prefix_caching=enable_prefix_caching,
            bulk_share=bulk_share,
            max_bulk_preemptions=max_bulk_preemptions,
        )
    )


def make_sequence(
    seq_id: str,
    *,
    prompt: int = 6,
    frames: int = 8,
    arrival: float = 0.0,
    priority: SequencePriority = "interactive",
    segment: int = 0,
    keys: Sequence[Hashable] | None = None,
    salt: bytes = b"",
) -> NewSequence:
    """Prompts differ between sequences unless `keys` are given."""
    return NewSequence(
        seq_id=seq_id,
        request_id=seq_id.split("/")[0],
        arrival_time=arrival,
        num_prompt_tokens=prompt if keys is None else len(keys),
        prefix_keys=[(seq_id, i) for i in range(prompt)] if keys is None else keys,
        prefix_salt=salt,
        max_new_frames=frames,
        priority=priority,
        segment_index=segment,
    )


def answer(output: SchedulerOutput, stopping: Sequence[str] = ()) -> ModelRunnerOutput:
    """Draw for everyone who samples; those in `stopping` draw the end."""
    sampled = tuple(item.seq_id for item in output.scheduled if item.samples)
    return ModelRunnerOutput(sampled, frozenset(sampled) & frozenset(stopping))


def step(
    scheduler: Scheduler, now: float = 0.0, stopping: Sequence[str] = ()
) -> tuple[SchedulerOutput, list[SequenceUpdate]]:
    """One synchronous step."""
    output = scheduler.schedule(now)
    return output, scheduler.update_from_output(output, answer(output, stopping), now)


def run_until_idle(
    scheduler: Scheduler, stops: Mapping[str, int] | None = None, *, limit: int = 10_000
) -> dict[str, SequenceUpdate]:
    """Step until nothing is live; `stops` gives after how many frames a sequence ends itself."""
    ended: dict[str, SequenceUpdate] = {}
    kept: dict[str, int] = {}
    for now in range(limit):
        if not scheduler.has_work:
            return ended
        wanted = [seq_id for seq_id, n in (stops or {}).items() if kept.get(seq_id, 0) >= n]
        _, updates = step(scheduler, float(now), wanted)
        for update in updates:
            kept[update.seq_id] = update.num_frames
            if update.finish_reason is not None:
                assert update.seq_id not in ended
                ended[update.seq_id] = update
    raise AssertionError("the scheduler did not become idle")


def make_vocoder_scheduler(
    *,
    left: int = 3,
    right: int = 2,
    low_right: int = 1,
    frame_s: float = 0.1,
    max_batch_frames: int = 64,
    first_frames: int = 2,
    growth: float = 2.0,
    max_frames: int = 8,
) -> VocoderScheduler:
    return VocoderScheduler(
        VocoderSchedulerConfig(
            left_context=left,
            right_context=right,
            low_right_context=low_right,
            frame_s=frame_s,
            max_batch_frames=max_batch_frames,
            chunks=ChunkSchedule(first_frames=first_frames, growth=growth, max_frames=max_frames),
        )
    )
