"""Costs of a loaded model, taken from runs of the engine core itself.

Loads of several sizes run through the real core while every step and every vocoder batch is timed;
a linear fit turns the samples into the simulator's `Costs`. What the core does around the executor
(scheduling, delivery) is part of a step here, as it is in service.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine.build import assemble_core
from ..engine.config import EngineConfig
from ..engine.core import EngineCore
from ..engine.request import SamplingParams, SpeechRequest
from ..model_executor.interfaces import FloatArray
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from .ar_stage import Now
from .platform import Costs, VocoderWork, fit_points
from .workload import load_texts


@dataclass(frozen=True, slots=True)
class StepSample:
    """A step of the speech model."""

    seconds: float
    num_seqs: int
    num_tokens: int
    num_context: int


@dataclass(frozen=True, slots=True)
class BatchSample:
    """A vocoder batch."""

    seconds: float
    work: VocoderWork


@dataclass(slots=True)
class Samples:
    """All that was timed."""

    steps: list[StepSample] = field(default_factory=list)
    batches: list[BatchSample] = field(default_factory=list)


class RecordingExecutor:
    """Stands before an executor and notes what the core asks of it and when.

    It has no work queue: what would run beside other work is waited for and has its own time.
    """

    work_queue = None

    def __init__(self, executor: Any, now: Now) -> None:
        self._executor = executor
        self._now = now
        self.output: SchedulerOutput | None = None
        self.batch: VocoderBatch | None = None
        self.vocoder_began = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def begin(self) -> None:
        """Forget the step before."""
        self.output = self.batch = None

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Note what the step runs."""
        self.output = output
        result: ModelRunnerOutput = self._executor.execute_model(output)
        return result

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        """Note the batch and when it began."""
        self.batch, self.vocoder_began = batch, self._now()
        audio: list[FloatArray] = self._executor.execute_vocoder(batch)
        return audio


def _samples_of(
    executor: RecordingExecutor, began: float, ended: float
) -> Iterator[StepSample | BatchSample]:
    """Split one step of the core at the beginning of its vocoder batch."""
    middle = ended if executor.batch is None else executor.vocoder_began
    if executor.output is not None:
        yield StepSample(
            middle - began,
            len(executor.output.scheduled),
            executor.output.num_scheduled_tokens,
            sum(item.num_computed_tokens for item in executor.output.scheduled),
        )
    if executor.batch is not None:
        yield BatchSample(ended - middle, VocoderWork.of(executor.batch))


def _run_load(
    core: EngineCore, executor: RecordingExecutor, requests: Sequence[SpeechRequest], now: Now
) -> Iterator[StepSample | BatchSample]:
    """Start all requests at once and step to the end."""
    for index, request in enumerate(requests):
        core.add_request(f"calibration-{index}", core.processor.process(request))
    while core.has_work:
        executor.begin()
        began = now()
        core.step()
        yield from _samples_of(executor, began, now())


def collect(
    executor: Any,
    config: EngineConfig,
    sizes: Sequence[int],
    frames: int,
    now: Now,
    texts: str = "en-short",
) -> Samples:
    """Time loads of each size.

    Args:
        executor: loaded.
        config: of the core.
        sizes: requests at once.
        frames: of the longest request; others of a load are shorter, so that sizes in between
            are seen too.
        now: the clock.
        texts: what is spoken.
    """
    recorder = RecordingExecutor(executor, now)
    core = assemble_core(recorder, replace(config, warmup=False))
    core.clock = now
    samples = Samples()
    for size in sizes:
        requests = [
            SpeechRequest(
                text=text, seed=1000 + i, sampling=_exactly(frames - i * frames // 2 // size)
            )
            for i, text in enumerate(load_texts(texts, size, 1000 + size))
        ]
        for sample in _run_load(core, recorder, requests, now):
            if isinstance(sample, StepSample):
                samples.steps.append(sample)
            else:
                samples.batches.append(sample)
    return samples


def _exactly(frames: int) -> SamplingParams:
    return SamplingParams(min_new_tokens=frames, max_new_tokens=frames)


def fit_costs(samples: Samples) -> Costs:
    """Costs that explain the samples.

    Raises:
        ValueError: there are no steps that only decode.
    """
    decodes = [s for s in samples.steps if s.num_tokens == s.num_seqs]
    if not decodes:
        raise ValueError("calibration saw no decode step")
    per_context = _context_cost(decodes)
    bare = [max(s.seconds - s.num_context * per_context, 0.0) for s in decodes]
    decode = fit_points([float(s.num_seqs) for s in decodes], bare)
    costs = Costs(decode=decode, context_s_per_token=per_context)
    batches = samples.batches
    columns = [
        [1.0 for _ in batches],
        [float(b.work.num_frames) for b in batches],
        [float(b.work.num_ahead_frames) for b in batches],
        [float(b.work.num_rows - 1) for b in batches],
    ]
    fixed, frame, ahead, row = _fit_positive(columns, [b.seconds for b in batches])
    return replace(
        costs,
        prefill_s_per_token=_prefill_cost(samples.steps, costs),
        vocoder=((0.0, fixed), (1000.0, fixed + 1000.0 * frame)),
        vocoder_s_per_ahead_frame=ahead,
        vocoder_s_per_row=row,
    )


def _context_cost(decodes: Sequence[StepSample]) -> float:
    """Seconds per cached position, from steps of equal numbers of sequences."""
    x, y = [], []
    for size in {s.num_seqs for s in decodes}:
        group = [s for s in decodes if s.num_seqs == size]
        middle_x = float(np.median([s.num_context for s in group]))
        middle_y = float(np.median([s.seconds for s in group]))
        usual = [s for s in group if s.seconds < 2 * middle_y]
        x += [s.num_context - middle_x for s in usual]
        y += [s.seconds - middle_y for s in usual]
    spread = float(np.dot(x, x))
    return max(float(np.dot(x, y)) / spread, 0.0) if spread else 0.0


def _prefill_cost(steps: Sequence[StepSample], costs: Costs) -> float:
    """Seconds per position beyond one a sequence."""
    extra = [
        (s.seconds - costs.step_s(s.num_seqs, s.num_seqs, s.num_context))
        / (s.num_tokens - s.num_seqs)
        for s in steps
        if s.num_tokens > s.num_seqs
    ]
    return max(float(np.median(extra)), 0.0) if extra else 0.0


def _fit_positive(columns: Sequence[Sequence[float]], y: Sequence[float]) -> list[float]:
    """Least squares without negative coefficients: what would be negative is left out."""
    matrix: npt.NDArray[np.float64] = np.array(columns).T
    target = np.array(y)
    used = list(range(matrix.shape[1]))
    result = [0.0] * matrix.shape[1]
    while used and len(target):
        found = np.linalg.lstsq(matrix[:, used], target, rcond=None)[0]
        if (found >= 0).all():
            for index, value in zip(used, found, strict=True):
                result[index] = float(value)
            break
        used.pop(int(found.argmin()))
    return result
