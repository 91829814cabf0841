"""Costs of a loaded model, taken from runs of the engine core itself.

Loads of several sizes run through the real core while every step and every vocoder batch is timed:
first each by itself, whose linear fit gives the simulator's `Costs`; then as in service, where the
vocoder runs beside the steps and requests come after a pause, for what that adds. What the core
does around the executor (scheduling, delivery) is part of a step here, as it is in service.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine.build import assemble_core
from ..engine.config import EngineConfig
from ..engine.core import EngineCore
from ..engine.input_processor import ProcessedRequest
from ..engine.request import SamplingParams, SpeechRequest
from .drive import Clock
from .platform import Costs, Points, SimModel, fit_points
from .recording import BatchSample, Recording, RecordingExecutor, Silence, StepSample
from .workload import load_texts, spread_frames

PAUSES_S = (0.05, 0.2, 0.6)
"""Between requests that come one by one; the first costs as much as the others."""

_PAUSES_EACH = 5
_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_COLD_STEPS_AFTER_BATCH = 5
_STEPS_SHARED = 3  # a batch's end is seen after a step only, so shorter ones say little
_SEGMENTS_HEARD = 120  # few have a long silence, so that its mean needs many
_DRAWS = 8  # texts drawn for each one taken, so that some are left when others are not wanted


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A request that found the engine idle.

    Attributes:
        due: when it was to come, on the calibration's clock.
        recording: of the request.
    """

    due: float
    recording: Recording


@dataclass(slots=True)
class Samples:
    """All that was timed.

    Attributes:
        alone: loads with nothing beside the steps, nor beside the batches.
        service: loads as in service.
        cold: requests after a pause.
        request_s: seconds to take a request in, per segment.
        silence: at the ends of segments.
    """

    alone: list[Recording] = field(default_factory=list)
    service: list[Recording] = field(default_factory=list)
    cold: list[ColdStart] = field(default_factory=list)
    request_s: list[float] = field(default_factory=list)
    silence: list[Silence] = field(default_factory=list)

    def __add__(self, other: Samples) -> Samples:
        """Both."""
        return Samples(
            self.alone + other.alone,
            self.service + other.service,
            self.cold + other.cold,
            self.request_s + other.request_s,
            self.silence + other.silence,
        )


class Calibrator:
    """Runs loads on an executor and times them.

    Args:
        executor: loaded.
        config: of the core.
        clock: measures, and sleeps between requests.
        texts: what is spoken.
        avoid: texts that a measurement will use, which is not to be fitted to.
        seed: of the texts and requests.
    """

    def __init__(
        self,
        executor: Any,
        config: EngineConfig,
        clock: Clock,
        texts: str = "en-short",
        avoid: Collection[str] = (),
        seed: int = 1000,
    ) -> None:
        self._executor, self._config = executor, replace(config, warmup=False)
        self._clock, self._texts, self._avoid = clock, texts, frozenset(avoid)
        self._seed = seed
        self._count = 0
        self.samples = Samples()

    def run(self, sizes: Sequence[int], frames: int) -> Samples:
        """Everything that can be measured here.

        Args:
            sizes: requests at once.
            frames: of the longest request; see `spread_frames`.
        """
        self._run_alone(sizes, frames)
        self._run_in_service(sizes, frames)
        return self.samples

    def _run_alone(self, sizes: Sequence[int], frames: int) -> None:
        """Steps and batches by themselves."""
        recorder = RecordingExecutor(self._executor, self._clock.read)
        core = self._core(recorder)
        self.samples.alone += [self._load(core, recorder, n, frames) for n in sizes]
        for _ in range(_SEGMENTS_HEARD // max(sizes)):
            if 0 < len(recorder.quiet.found) < _SEGMENTS_HEARD:
                self.samples.alone.append(self._load(core, recorder, max(sizes), frames))
        self.samples.silence += recorder.quiet.found

    def _run_in_service(self, sizes: Sequence[int], frames: int) -> None:
        """Loads with what may run beside the steps beside them, and requests after pauses."""
        queue = self._executor.work_queue
        is_beside = queue is not None and queue.depth == 0
        recorder = RecordingExecutor(self._executor, self._clock.read, in_service=is_beside)
        core = self._core(recorder)
        if is_beside:
            self.samples.service += [self._load(core, recorder, n, frames) for n in sizes]
        for pause_s in PAUSES_S * _PAUSES_EACH:
            self.samples.cold.append(self._cold_start(core, recorder, frames, pause_s))
        self.samples.silence += recorder.quiet.found

    def _core(self, recorder: RecordingExecutor) -> EngineCore:
        core = assemble_core(recorder, self._config)
        core.clock = self._clock.read
        return core

    def _load(
        self, core: EngineCore, recorder: RecordingExecutor, size: int, frames: int
    ) -> Recording:
        """Start `size` requests at once and step to the end."""
        return self._speak(core, recorder, self._processed(core, size, frames))

    def _cold_start(
        self, core: EngineCore, recorder: RecordingExecutor, frames: int, pause_s: float
    ) -> ColdStart:
        """Start one request after a pause."""
        processed = self._processed(core, 1, frames)
        due = self._clock.read() + pause_s
        self._clock.wait_until(due)
        return ColdStart(due, self._speak(core, recorder, processed))

    def _speak(
        self, core: EngineCore, recorder: RecordingExecutor, processed: Sequence[ProcessedRequest]
    ) -> Recording:
        for index, request in enumerate(processed):
            began = self._clock.read()
            core.add_request(f"calibration-{index}", request)
            self.samples.request_s.append((self._clock.read() - began) / len(request.segments))
        recording = Recording()
        recording.run(core, recorder, self._clock.read)
        return recording

    def _processed(self, core: EngineCore, size: int, frames: int) -> list[ProcessedRequest]:
        return [self._process(core, text, frames) for text in self._draw(size)]

    def _process(self, core: EngineCore, text: str, frames: int) -> ProcessedRequest:
        self._count += 1
        exactly = spread_frames(frames, self._count)
        sampling = SamplingParams(min_new_tokens=exactly, max_new_tokens=exactly)
        return core.processor.process(
            SpeechRequest(text=text, seed=self._seed + self._count, sampling=sampling)
        )

    def _draw(self, size: int) -> list[str]:
        """Texts of a load, each load's own; those to avoid only where there are no others."""
        drawn = load_texts(self._texts, _DRAWS * size, self._seed + self._count)
        wanted = [text for text in drawn if text not in self._avoid] or drawn
        return (wanted * size)[:size]


def fit_silence(samples: Samples, model: SimModel) -> SimModel:
    """The model with the silence that was measured at the ends of its segments."""
    if not samples.silence:
        return model
    lead_s = float(np.mean([silence.lead_s for silence in samples.silence]))
    tail_s = float(np.mean([silence.tail_s for silence in samples.silence]))
    return replace(model, quiet_lead_s=lead_s, quiet_tail_s=tail_s)


def fit_costs(samples: Samples) -> Costs:
    """Costs that explain the samples.

    Raises:
        ValueError: there are no steps that only decode.
    """
    warm = [step for recording in samples.alone for step in warm_steps(recording)]
    steps = warm or [step for recording in samples.alone for step in recording.steps]
    decodes = [s for s in steps if s.num_tokens == s.num_seqs]
    if not decodes:
        raise ValueError("calibration saw no decode step")
    per_context = _context_cost(decodes)
    bare = [max(s.seconds - s.num_context * per_context, 0.0) for s in decodes]
    decode = fit_points([float(s.num_seqs) for s in decodes], bare)
    costs = Costs(
        decode=decode,
        context_s_per_token=per_context,
        request_s=float(np.median(samples.request_s)) if samples.request_s else 0.0,
    )
    costs = replace(costs, prefill_s_per_token=_prefill_cost(steps, costs))
    costs = _with_vocoder(costs, [b for recording in samples.alone for b in recording.batches])
    service = samples.service + [start.recording for start in samples.cold]
    costs = replace(costs, step_after_batch=_after_batches(costs, samples.alone))
    return _with_cold_starts(_with_slowdowns(costs, service), samples.cold)


def warm_steps(recording: Recording) -> list[StepSample]:
    """Steps but for those that a batch before them left with cold caches."""
    cold: set[StepSample] = set()
    for batch in recording.batches:
        cold.update(_steps_after(recording, batch))
    return [step for step in recording.steps if step not in cold]


def _steps_after(recording: Recording, batch: BatchSample) -> list[StepSample]:
    """The few steps after a batch, up to the next one."""
    later = [other.began for other in recording.batches if other.began > batch.began]
    until = min(later, default=np.inf)
    after = [step for step in recording.steps if batch.ended <= step.began < until]
    return after[:_COLD_STEPS_AFTER_BATCH]


def _after_batches(costs: Costs, recordings: Sequence[Recording]) -> Points:
    """Extra seconds of the steps after a batch, over the number of sequences."""
    sizes, extras = [], []
    for recording in recordings:
        for batch in recording.batches:
            if after := _steps_after(recording, batch):
                sizes.append(float(after[0].num_seqs))
                extras.append(max(_seconds(after) - _usual_s(costs, after), 0.0))
    return _binned(sizes, extras) or costs.step_after_batch


def _with_vocoder(costs: Costs, batches: Sequence[BatchSample]) -> Costs:
    columns = [
        [1.0 for _ in batches],
        [float(b.work.num_frames) for b in batches],
        [float(b.work.num_ahead_frames) for b in batches],
        [float(b.work.num_rows - 1) for b in batches],
    ]
    fixed, frame, ahead, row = _fit_positive(columns, [b.seconds for b in batches])
    return replace(
        costs,
        vocoder=((0.0, fixed), (1000.0, fixed + 1000.0 * frame)),
        vocoder_s_per_ahead_frame=ahead,
        vocoder_s_per_row=row,
    )


def _seconds(steps: Sequence[StepSample]) -> float:
    return sum(step.seconds for step in steps)


def _usual_s(costs: Costs, steps: Sequence[StepSample]) -> float:
    """Seconds that the steps would have taken by themselves, with warm caches."""
    return sum(costs.step_s(s.num_seqs, s.num_tokens, s.num_context) for s in steps)


def _binned(sizes: Sequence[float], values: Sequence[float]) -> Points:
    """Medians of `values` over doubling numbers of sequences."""
    bins: dict[int, list[int]] = {}
    for index, size in enumerate(sizes):
        bins.setdefault(round(math.log2(size)), []).append(index)
    return tuple(
        (
            float(np.mean([sizes[index] for index in members])),
            float(np.median([values[index] for index in members])),
        )
        for _, members in sorted(bins.items())
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


def _with_slowdowns(costs: Costs, service: Sequence[Recording]) -> Costs:
    """How much longer steps and batches take side by side than `costs` say of each alone."""
    sizes, step_ratios, batch_ratios = [], [], []
    for recording in service:
        for batch in recording.batches:
            shares = _shares(recording, batch) if batch.is_beside else []
            if len(shares) >= _STEPS_SHARED:
                sizes.append(float(np.mean([step.num_seqs for step, _ in shares])))
                alone_s = sum(_usual_s(costs, [step]) * share for step, share in shares)
                step_ratios.append(batch.seconds / alone_s)
                batch_ratios.append(batch.seconds / costs.vocoder_s(batch.work))
    if not sizes:
        return costs
    return replace(
        costs,
        step_slowdown=_binned(sizes, step_ratios),
        vocoder_slowdown=_binned(sizes, batch_ratios),
    )


def _shares(recording: Recording, batch: BatchSample) -> list[tuple[StepSample, float]]:
    """The steps that ran while a batch did, and how much of each."""
    shares = [
        (step, (min(step.ended, batch.ended) - max(step.began, batch.began)) / step.seconds)
        for step in recording.steps
    ]
    return [(step, share) for step, share in shares if share > 0]


def _with_cold_starts(costs: Costs, cold: Sequence[ColdStart]) -> Costs:
    """How much later the first batch after a pause begins, and how much longer it takes."""
    if not cold:
        return costs
    late, longer = [], []
    for start in cold:
        batch = start.recording.batches[0]
        first = [step for step in start.recording.steps if step.ended <= batch.began]
        late.append(batch.began - start.due - _usual_s(costs, first))
        longer.append(batch.seconds - costs.vocoder_s(batch.work))
    return replace(
        costs,
        cold_after_s=min(PAUSES_S),
        cold_step=_quantiles(late),
        cold_vocoder=_quantiles(longer),
    )


def _quantiles(extra: Sequence[float]) -> Points:
    """(share of the values, no more than), nothing below zero."""
    values = [max(value, 0.0) for value in extra]
    return tuple((share, float(np.quantile(values, share))) for share in _SHARES)


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
