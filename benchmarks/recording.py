"""What an engine core asks of its executor, and when: the raw material of a calibration.

`RecordingExecutor` stands before a loaded executor and keeps the time of every step and vocoder
batch. In service it records the executor's own work queue, with vocoder batches beside steps;
otherwise it has none, and what would run beside other work is waited for and has its own time. It
computes no costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.core import EngineCore
from ..model_executor.interfaces import FloatArray, Pending, Prompt, ResolvedSampling, WorkQueue
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from .platform import VocoderWork

Now = Callable[[], float]


@dataclass(frozen=True, slots=True)
class StepSample:
    """A step of the speech model, with what the core does around it; times in seconds."""

    began: float
    ended: float
    num_seqs: int
    num_tokens: int
    num_context: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class BatchSample:
    """A vocoder batch; times in seconds.

    Attributes:
        is_beside: steps ran all the time meanwhile.
    """

    began: float
    ended: float
    work: VocoderWork
    is_beside: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Silence:
    """Seconds at a segment's start and end that its model made too quiet to be speech."""

    lead_s: float
    tail_s: float


class _Watched:
    """A vocoder batch in flight; its end lies between the last two looks at it."""

    def __init__(
        self,
        pending: Pending[list[FloatArray]],
        batch: VocoderBatch,
        now: Now,
        hear: Callable[[VocoderBatch, list[FloatArray]], None],
    ) -> None:
        self._pending, self._batch, self._now, self._hear = pending, batch, now, hear
        self._began = self._looked = now()
        self._sample: BatchSample | None = None

    @property
    def is_done(self) -> bool:
        """See `Pending`."""
        done, time = self._pending.is_done, self._now()
        if done:
            self._end((self._looked + time) / 2, is_beside=True)
        self._looked = time
        return done

    def wait(self) -> list[FloatArray]:
        """See `Pending`."""
        audio = self._pending.wait()
        self._end(self._now(), is_beside=False)
        self._hear(self._batch, audio)
        return audio

    @property
    def sample(self) -> BatchSample:
        """Only once it is done."""
        assert self._sample is not None, "a batch in flight"
        return self._sample

    def _end(self, time: float, *, is_beside: bool) -> None:
        if self._sample is None:
            self._sample = BatchSample(self._began, time, VocoderWork.of(self._batch), is_beside)


class RecordingQueue:
    """A `WorkQueue` that notes what is launched."""

    def __init__(self, queue: WorkQueue, recorder: RecordingExecutor, now: Now) -> None:
        self._queue, self._recorder, self._now = queue, recorder, now
        self.depth, self.max_batches = queue.depth, queue.max_batches

    def launch_model(self, output: SchedulerOutput) -> Pending[ModelRunnerOutput]:
        """See `WorkQueue`."""
        self._recorder.output = output
        return self._queue.launch_model(output)

    def launch_vocoder(self, batch: VocoderBatch) -> Pending[list[FloatArray]]:
        """See `WorkQueue`."""
        began = self._now()
        pending = self._queue.launch_vocoder(batch)
        if pending.is_done:
            self._recorder.awaited = began, batch
        watched = _Watched(pending, batch, self._now, self._recorder.quiet.hear)
        if not pending.is_done:
            self._recorder.watched.append(watched)
        return watched


class RecordingExecutor:
    """Stands before an executor and notes what the core asks of it and when.

    Args:
        executor: loaded.
        now: the clock.
        in_service: record its work queue, if it has one, instead of doing without.
    """

    def __init__(self, executor: Any, now: Now, *, in_service: bool = False) -> None:
        self._executor = executor
        self._now = now
        spec = executor.vocoder_spec
        queue = executor.work_queue if in_service else None
        self.work_queue = None if queue is None else RecordingQueue(queue, self, now)
        self.output: SchedulerOutput | None = None
        self.awaited: tuple[float, VocoderBatch] | None = None
        self.watched: list[_Watched] = []
        self.quiet = QuietEnds(spec.samples_per_frame, spec.sample_rate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """Pass on, and remember what counts as silence in it."""
        self.quiet.begin(seq_id, prompt)
        self._executor.add_sequence(seq_id, prompt, sampling)

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Note what the step runs."""
        self.output = output
        result: ModelRunnerOutput = self._executor.execute_model(output)
        return result

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        """Note the batch and when it began."""
        self.awaited = self._now(), batch
        audio: list[FloatArray] = self._executor.execute_vocoder(batch)
        self.quiet.hear(batch, audio)
        return audio


class Recording:
    """Everything timed while a core ran, in order."""

    def __init__(self) -> None:
        self.steps: list[StepSample] = []
        self.batches: list[BatchSample] = []

    def run(self, core: EngineCore, executor: RecordingExecutor, now: Now) -> None:
        """Step until there is no work left."""
        while core.has_work:
            executor.output = executor.awaited = None
            began = now()
            core.step()
            self._note(executor, began, now())
        self.batches += [watched.sample for watched in executor.watched]
        executor.watched.clear()

    def _note(self, executor: RecordingExecutor, began: float, ended: float) -> None:
        """Split one step of the core at the beginning of a vocoder batch that it waited for."""
        middle = ended
        if executor.awaited is not None:
            middle, batch = executor.awaited
            self.batches.append(BatchSample(middle, ended, VocoderWork.of(batch)))
        if (output := executor.output) is not None:
            context = sum(item.num_computed_tokens for item in output.scheduled)
            sizes = len(output.scheduled), output.num_scheduled_tokens, context
            self.steps.append(StepSample(began, middle, *sizes))


class QuietEnds:
    """Measures the silence at both ends of segments whose model says what silence is.

    Args:
        samples_per_frame: a segment's nominal length; what its vocoder makes less at the end counts
            as silence.
        sample_rate: samples per second.

    Attributes:
        found: of each segment that has ended and had speech in it.
    """

    def __init__(self, samples_per_frame: int, sample_rate: int) -> None:
        self._samples_per_frame, self._rate = samples_per_frame, sample_rate
        self._prompts: dict[str, Prompt] = {}
        self._audio: dict[str, list[FloatArray]] = {}
        self.found: list[Silence] = []

    def begin(self, seq_id: str, prompt: Prompt) -> None:
        """A segment begins."""
        if prompt.edges is not None:
            self._prompts[seq_id], self._audio[seq_id] = prompt, []

    def hear(self, batch: VocoderBatch, audio: Sequence[FloatArray]) -> None:
        """Pieces of segments were decoded."""
        for job, piece in zip(batch.jobs, audio, strict=True):
            if job.seq_id in self._audio:
                self._audio[job.seq_id].append(piece)
                if job.is_last:
                    self._end(job.seq_id, job.end * self._samples_per_frame)

    def _end(self, seq_id: str, length: int) -> None:
        prompt, pieces = self._prompts.pop(seq_id), self._audio.pop(seq_id)
        assert prompt.edges is not None, "only segments with edges are kept"
        loud = np.flatnonzero(np.abs(np.concatenate(pieces)) * prompt.gain > prompt.edges.threshold)
        if len(loud):
            lead, tail = int(loud[0]), length - int(loud[-1]) - 1
            self.found.append(Silence(lead / self._rate, tail / self._rate))
