"""Counters of the engine core, and the `EngineStats` made from them and the schedulers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..scheduler.interfaces import VocoderBatch
from ..scheduler.scheduler import Scheduler
from ..scheduler.vocoder_scheduler import VocoderScheduler
from .interface import EngineStats
from .request_state import RequestState


@dataclass(slots=True)
class Counters:
    """What only grows. Meanings as in `EngineStats`."""

    num_steps: int = 0
    frames_generated: int = 0
    prompt_tokens: int = 0
    audio_s_generated: float = 0.0
    vocoder_batches: int = 0
    vocoder_rows: int = 0
    vocoder_frames: int = 0
    vocoder_window_frames: int = 0
    vocoder_queue_s: float = 0.0
    step_s: float = 0.0
    busy_s: float = 0.0

    def note_batch(self, batch: VocoderBatch) -> None:
        """A vocoder batch was run."""
        self.vocoder_batches += 1
        self.vocoder_rows += len(batch.jobs)
        for job in batch.jobs:
            self.vocoder_frames += job.end - job.start
            self.vocoder_window_frames += job.num_window_frames
            self.vocoder_queue_s += job.waited_s


def snapshot(
    counters: Counters,
    requests: Collection[RequestState],
    scheduler: Scheduler,
    vocoder_scheduler: VocoderScheduler,
) -> EngineStats:
    """The state of the engine as users of it see it."""
    running = sum(request.is_running for request in requests)
    return EngineStats(
        num_requests_running=running,
        num_requests_waiting=len(requests) - running,
        waiting_by_reason=scheduler.waiting_by_reason(),
        num_seqs_running=scheduler.num_running,
        num_seqs_waiting=scheduler.num_waiting,
        kv_blocks_total=scheduler.num_blocks,
        kv_blocks_used=scheduler.num_used_blocks,
        num_preemptions=scheduler.num_preemptions,
        prefix_cache_queries=scheduler.prefix_cache_queries,
        prefix_cache_hits=scheduler.prefix_cache_hits,
        num_steps=counters.num_steps,
        frames_generated=counters.frames_generated,
        prompt_tokens=counters.prompt_tokens,
        audio_s_generated=counters.audio_s_generated,
        vocoder_batches=counters.vocoder_batches,
        vocoder_rows=counters.vocoder_rows,
        vocoder_frames=counters.vocoder_frames,
        vocoder_window_frames=counters.vocoder_window_frames,
        vocoder_jobs_waiting=vocoder_scheduler.num_waiting,
        vocoder_queue_s=counters.vocoder_queue_s,
        step_s=counters.step_s,
        busy_s=counters.busy_s,
    )
