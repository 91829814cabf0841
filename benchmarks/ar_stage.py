"""The speech model by itself: real scheduler, real executor, no text and no vocoder.

Sequences of random prompts run for a fixed number of frames (the end of speech is banned), so that
steps of one size can be repeated. `PhaseTimer` splits a step's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ..engine.work_queue import DirectQueue, InFlight, queue_of
from ..model_executor.interfaces import Executor, Prompt, ResolvedSampling
from ..scheduler.interfaces import (
    ModelRunnerOutput,
    NewSequence,
    SchedulerConfig,
    SchedulerOutput,
)
from ..scheduler.scheduler import Scheduler

Now = Callable[[], float]
PHASES = ("schedule", "prepare", "model", "sample", "update")


@dataclass(frozen=True, slots=True)
class StepTiming:
    """One step: what ran, and seconds by phase (see `PHASES`)."""

    num_seqs: int
    num_tokens: int
    num_context: int
    seconds: dict[str, float]

    @property
    def total_s(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())


class PhaseTimer:
    """Splits `execute_model` of a local executor into prepare, model and sample.

    On CUDA every boundary waits for the device, so the parts add up and nothing overlaps; totals
    are then larger than in service, and are better taken without it.

    Args:
        executor: a `LocalExecutor`.
        wait: waits for its device.
        now: the clock.
    """

    def __init__(self, executor: Any, wait: Callable[[], None], now: Now = perf_counter) -> None:
        self._wait, self._now = wait, now
        self._seconds = {"model": 0.0, "sample": 0.0}
        self._phase, self._began = "end", 0.0
        executor.watch_steps(self._enter)

    def take(self) -> dict[str, float]:
        """Seconds since the last call."""
        taken, self._seconds = self._seconds, {"model": 0.0, "sample": 0.0}
        return taken

    def _enter(self, phase: str) -> None:
        self._wait()
        now = self._now()
        if self._phase in self._seconds:
            self._seconds[self._phase] += now - self._began
        self._phase, self._began = phase, now


def device_wait(executor: Any) -> Callable[[], None]:
    """A function that waits for the executor's device; nothing to wait for on CPU."""
    import torch

    return torch.cuda.synchronize if torch.cuda.is_available() else _nothing


def _nothing() -> None:
    return None


class ArStage:
    """Runs steps of the speech model.

    Args:
        executor: loaded.
        max_num_seqs: sequences at once.
        max_num_batched_tokens: positions in a step.
        block_size: of the KV cache, as the executor was made.
        timer: splits the steps, which are then waited for one by one; without one `model` holds
            all of the executor's time, and steps are queued where the executor queues them.
        now: the clock that steps are timed by.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int = 4096,
        block_size: int = 16,
        timer: PhaseTimer | None = None,
        now: Now = perf_counter,
    ) -> None:
        self._executor = executor
        self._timer = timer
        self._now = now
        self._count = 0
        self._live: list[str] = []
        queue = queue_of(executor) if timer is None else DirectQueue(executor)
        self._depth = queue.depth
        self._steps: InFlight[SchedulerOutput, ModelRunnerOutput] = InFlight(queue.launch_model)
        self._scheduler = Scheduler(
            SchedulerConfig(
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                num_blocks=executor.num_kv_blocks,
                block_size=block_size,
                max_model_len=executor.speech_spec.max_model_len,
                enable_prefix_caching=False,
            )
        )

    @contextmanager
    def sequences(self, count: int, prompt_tokens: int, frames: int) -> Iterator[None]:
        """Queue `count` sequences; they are ended when the block is left."""
        for _ in range(count):
            self._add(prompt_tokens, frames)
        try:
            yield
        finally:
            while self._steps:
                self._steps.collect()
            for seq_id in self._live:
                self._scheduler.abort(seq_id)
                self._executor.remove_sequence(seq_id)
            self._live.clear()

    def steps(self) -> Iterator[StepTiming]:
        """Run steps until every sequence has its frames."""
        while self._scheduler.has_work or self._steps:
            yield self._step()

    def _add(self, prompt_tokens: int, frames: int) -> None:
        seq_id, self._count = f"bench-{self._count}", self._count + 1
        spec = self._executor.speech_spec
        rng = np.random.default_rng(self._count)
        ids = rng.integers(0, spec.text_vocab_size, prompt_tokens).astype(np.int32)
        prompt = Prompt(token_ids=ids)
        sampling = ResolvedSampling(
            temperature=(spec.sampling.temperature,) * spec.num_codebooks,
            top_p=spec.sampling.top_p,
            top_k=spec.sampling.top_k,
            repetition_penalty=spec.sampling.repetition_penalty,
            min_new_tokens=frames,
            max_new_tokens=frames,
            seed=self._count,
        )
        self._executor.add_sequence(seq_id, prompt, sampling)
        self._live.append(seq_id)
        self._scheduler.add(
            NewSequence(
                seq_id=seq_id,
                request_id=seq_id,
                arrival_time=0.0,
                num_prompt_tokens=prompt_tokens,
                prefix_keys=prompt.prefix_keys(),
                prefix_salt=b"",
                max_new_frames=frames,
            ),
            0.0,
        )

    def _step(self) -> StepTiming:
        """As in `EngineCore`: where work is queued, the answer is that of an earlier step."""
        began = self._now()
        output = self._scheduler.schedule(0.0)
        scheduled = self._now()
        if output.scheduled:
            self._steps.launch(output)
        answers = []
        while len(self._steps) > (self._depth if output.scheduled else 0):
            answers.append(self._steps.collect())
        executed = self._now()
        for answered, result in answers:
            if isinstance(result, Exception):
                raise result
            self._scheduler.update_from_output(answered, result, 0.0)
        updated = self._now()
        phases = {"schedule": scheduled - began, "update": updated - executed}
        return _timing(output, phases | self._split(executed - scheduled))

    def _split(self, execute_s: float) -> dict[str, float]:
        if self._timer is None:
            return {"prepare": 0.0, "model": execute_s, "sample": 0.0}
        inner = self._timer.take()
        return {**inner, "prepare": max(execute_s - sum(inner.values()), 0.0)}


def _timing(output: SchedulerOutput, seconds: dict[str, float]) -> StepTiming:
    return StepTiming(
        num_seqs=len(output.scheduled),
        num_tokens=output.num_scheduled_tokens,
        num_context=sum(item.num_computed_tokens for item in output.scheduled),
        seconds=seconds,
    )


def decode_steps(stage: ArStage, num_seqs: int, context: int, steps: int) -> list[StepTiming]:
    """Steps in which `num_seqs` sequences get one frame each, starting at `context` positions."""
    with stage.sequences(num_seqs, context, steps + 2):
        timings = list(stage.steps())
    decodes = [t for t in timings if t.num_tokens == num_seqs == t.num_seqs and t.num_context]
    return decodes[1:] or decodes
