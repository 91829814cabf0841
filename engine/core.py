"""`EngineCore`: the step loop's body. Schedule, execute, update; then the vocoder.

One thread owns it. Requests go in processed (`InputProcessor`), `AudioChunk`s come out of `step`,
and every request ends in exactly one terminal chunk, whatever fails. Which sequences run is the
schedulers' business, what they compute the executor's; threads, queues and streams live in
`StepLoop` and above.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from ..model_executor.interfaces import Executor
from ..scheduler.interfaces import (
    ModelRunnerOutput,
    NewSequence,
    SchedulerOutput,
    SequenceUpdate,
    VocoderBatch,
    VocoderJob,
)
from ..scheduler.scheduler import Scheduler
from ..scheduler.vocoder_scheduler import VocoderScheduler
from .errors import DeadlineExceededError, RequestError, describe_error
from .input_processor import InputProcessor, ProcessedRequest, Segment
from .interface import EngineStats
from .output import AudioChunk, FloatArray
from .request_state import Phase, RequestState, SequenceState
from .stats import Counters, snapshot
from .vocoder_budget import VocoderBudget
from .work_queue import InFlight, queue_of

logger = logging.getLogger(__name__)

# A listener with less audio than this in hand is served before the budget is asked.
URGENT_SLACK_S = 0.5


class EngineCore:
    """Requests, sequences and their audio for one executor. Not thread-safe.

    Args:
        executor: the loaded model.
        scheduler: decides the steps.
        vocoder_scheduler: decides the vocoder batches.
        processor: needed again here for refined text only.
        clock: seconds; any origin.
    """

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        vocoder_scheduler: VocoderScheduler,
        processor: InputProcessor,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.executor = executor
        self.scheduler = scheduler
        self.vocoder_scheduler = vocoder_scheduler
        self.processor = processor
        self.clock = clock
        self._budget = VocoderBudget()
        self._requests: dict[str, RequestState] = {}
        self._sequences: dict[str, SequenceState] = {}
        self._deadlines: set[str] = set()  # request ids that may become late
        self._outbox: list[AudioChunk] = []
        self._counters = Counters()
        queue = queue_of(executor)
        self._depth, self._max_batches = queue.depth, queue.max_batches
        self._steps: InFlight[SchedulerOutput, ModelRunnerOutput] = InFlight(queue.launch_model)
        self._batches: InFlight[VocoderBatch, list[FloatArray]] = InFlight(queue.launch_vocoder)

    @property
    def has_work(self) -> bool:
        """True while a request is in flight or a chunk was not handed out."""
        in_flight = self._steps or self._batches
        return bool(self._requests or self._outbox or self.scheduler.has_work or in_flight)

    def add_request(
        self, request_id: str, processed: ProcessedRequest, submitted: float | None = None
    ) -> None:
        """Begin a request; from here on it ends in one terminal chunk.

        Args:
            request_id: unique among requests in flight.
            processed: what to speak.
            submitted: when its times began to count, on the engine's clock; None is now.

        Raises:
            RequestError: the id is in use.
        """
        if request_id in self._requests:
            raise RequestError(f"request id {request_id!r} is in use", param="request_id")
        sample_rate = self.executor.vocoder_spec.sample_rate
        begun = self.clock() if submitted is None else submitted
        request = RequestState(request_id, processed, sample_rate, begun)
        self._requests[request_id] = request
        if processed.request.deadline_s is not None:
            self._deadlines.add(request_id)
        self._open_segments(request, processed.segments, request.first_pass)

    def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; unknown ids are ignored."""
        if request := self._requests.get(request_id):
            self._release(request)
            self._outbox.append(request.end("abort", self.clock()))

    def fail_all(self, error: Exception) -> list[AudioChunk]:
        """End every request with `error`; returns all chunks that were not handed out."""
        for request in list(self._requests.values()):
            self._fail(request, error)
        return self._take_outbox()

    def step(self) -> list[AudioChunk]:
        """Run one step and at most one vocoder batch; returns the chunks that became ready."""
        started = self.clock()
        self._end_late_requests(started)
        if self.scheduler.has_work:
            self._speak(started)
        self._deliver_decoded()
        if self._may_decode():
            self._decode()
        self._await_decoded()
        self._counters.busy_s += self.clock() - started
        return self._take_outbox()

    def stats(self) -> EngineStats:
        """A snapshot of the load and the counters."""
        return snapshot(
            self._counters, self._requests.values(), self.scheduler, self.vocoder_scheduler
        )

    def check_integrity(self) -> None:
        """Raise when blocks, sequences or slots leaked; call it when idle for the whole truth."""
        self.scheduler.check_integrity()
        self.vocoder_scheduler.check_integrity()
        if self.has_work:
            return
        if self._sequences or self._deadlines or self.scheduler.num_used_blocks:
            raise RuntimeError("an idle engine holds sequences, deadlines or blocks")
        if self.vocoder_scheduler.has_work:
            raise RuntimeError("an idle engine has vocoder work")
        self.executor.check_idle()

    # The speech model.

    def _speak(self, now: float) -> None:
        """The three calls of a step; with queued work, the answer is that of an earlier step."""
        output = self.scheduler.schedule(now)
        if output.scheduled:
            self._execute(output, now)
        while len(self._steps) > (self._depth if output.scheduled else 0):
            self._update(now)
        self._counters.step_s += (seconds := self.clock() - now)
        self._counters.num_steps += 1
        self._budget.note_step(seconds)

    def _execute(self, output: SchedulerOutput, now: float) -> None:
        """Launch a step."""
        for seq_id in output.preempted:
            self._note_preempted(seq_id)
        try:
            self._introduce(output, now)
            self._steps.launch(output)
        except Exception as error:
            self._fail_step(output, error)

    def _update(self, now: float) -> None:
        """Apply the answer to the oldest step in flight."""
        output, result = self._steps.collect()
        if isinstance(result, Exception):
            self._fail_step(output, result)
            return
        try:
            updates = self.scheduler.update_from_output(output, result, now)
        except RuntimeError as error:  # not an answer to this step; nothing was applied
            self._fail_step(output, error)
            return
        for update in updates:
            self._apply(update)

    def _fail_step(self, output: SchedulerOutput, error: Exception) -> None:
        """End the requests whose sequences were in a step that failed."""
        logger.error("a step of %d sequences failed", len(output.scheduled), exc_info=error)
        self.scheduler.fail_step(output)
        self._fail_owners((item.seq_id for item in output.scheduled), error)

    def _introduce(self, output: SchedulerOutput, now: float) -> None:
        """Tell the executor of sequences that run for the first time; until then they cost it
        nothing."""
        for item in output.scheduled:
            sequence = self._sequences.get(item.seq_id)
            if sequence is not None and not sequence.is_known:
                sequence.is_known = True
                segment = sequence.segment
                self.executor.add_sequence(item.seq_id, segment.prompt, segment.sampling)
                sequence.owner.note_scheduled(item.num_computed_tokens, now)

    def _note_preempted(self, seq_id: str) -> None:
        if sequence := self._sequences.get(seq_id):
            sequence.owner.num_preemptions += 1

    def _apply(self, update: SequenceUpdate) -> None:
        """Pass on what a step did to one sequence."""
        sequence = self._sequences.get(update.seq_id)
        if sequence is None:
            return
        new_frames = update.num_frames - sequence.num_frames
        sequence.num_frames = update.num_frames
        finished = update.finish_reason is not None
        if sequence.is_text:
            if finished:
                self._collect_refined(sequence)
            return
        sequence.owner.note_frames(new_frames)
        self._counters.frames_generated += new_frames
        if update.finish_reason == "length":
            sequence.owner.finish_reason = "length"
        self.vocoder_scheduler.update(update.seq_id, update.num_frames, finished, self.clock())
        if finished and not update.num_frames:
            self._deliver(sequence, None, ends=True)

    def _collect_refined(self, sequence: SequenceState) -> None:
        """Keep the ids of a refined segment; after the last one, begin to speak."""
        request = sequence.owner
        ids = self.executor.generated(sequence.seq_id)  # [num_ids, 1]
        request.refined[sequence.index] = ids[:, 0].tolist()
        self._forget(sequence)
        if request.live:
            return
        try:
            refined = [request.refined[index] for index in sorted(request.refined)]
            segments = self.processor.process_refined(request.processed, refined)
        except Exception as error:
            self._fail(request, error)
        else:
            self._open_segments(request, segments, "speech")

    # The vocoder.

    def _may_decode(self) -> bool:
        """First chunks and starving listeners at once; the rest when the budget allows."""
        if not self.vocoder_scheduler.num_waiting or len(self._batches) >= self._max_batches:
            return False
        if self._budget.allows or not self.scheduler.has_work:
            return True
        deadline = self.vocoder_scheduler.next_deadline()
        return deadline is not None and deadline - self.clock() < URGENT_SLACK_S

    def _decode(self) -> None:
        started = self.clock()
        batch = self.vocoder_scheduler.schedule(started)
        if batch is None:
            return
        self._counters.note_batch(batch)
        try:
            self._batches.launch(batch)
        except Exception as error:
            self._deliver_batch(batch, error)
        self._budget.note_batch(self.clock() - started)

    def _deliver_decoded(self) -> None:
        """Deliver batches that are done."""
        while self._batches.is_oldest_done:
            self._deliver_batch(*self._batches.collect())

    def _await_decoded(self) -> None:
        """Deliver as before; wait for a batch only when there is nothing else to do."""
        if self._batches and not (self.scheduler.has_work or self._may_decode()):
            self._deliver_batch(*self._batches.collect())
        self._deliver_decoded()

    def _deliver_batch(self, batch: VocoderBatch, result: list[FloatArray] | Exception) -> None:
        """Deliver a batch's audio; if it failed, each job is tried alone and only culprits end."""
        if isinstance(result, Exception):
            logger.error("a vocoder batch of %d jobs failed", len(batch.jobs), exc_info=result)
            for job in batch.jobs:
                self._retry_alone(job, result, is_alone=len(batch.jobs) == 1)
            return
        for job, audio in zip(batch.jobs, result, strict=True):
            self._deliver_job(job, audio)

    def _retry_alone(self, job: VocoderJob, error: Exception, *, is_alone: bool) -> None:
        if is_alone or job.seq_id not in self._sequences:
            self._fail_owners([job.seq_id], error)
            return
        try:
            (audio,) = self.executor.execute_vocoder(VocoderBatch((job,)))
        except Exception as culprit:
            self._fail_owners([job.seq_id], culprit)
        else:
            self._deliver_job(job, audio)

    def _deliver_job(self, job: VocoderJob, audio: FloatArray) -> None:
        sequence = self._sequences.get(job.seq_id)
        if sequence is not None:  # else its request ended meanwhile
            self.vocoder_scheduler.delivered(job.seq_id, job.end - job.start, self.clock())
            self._deliver(sequence, audio, ends=job.is_last)

    def _deliver(self, sequence: SequenceState, audio: FloatArray | None, *, ends: bool) -> None:
        request = sequence.owner
        if ends:
            self._forget(sequence)
        if audio is not None:
            seconds = len(audio) / self.executor.vocoder_spec.sample_rate
            self._counters.audio_s_generated += seconds
        chunks = request.deliver(sequence.index, audio, self.clock(), ends=ends)
        self._outbox += chunks
        if chunks:
            self._deadlines.discard(request.request_id)
        if request.is_complete:
            self._release(request)

    # Beginnings and ends.

    def _open_segments(
        self, request: RequestState, segments: tuple[Segment, ...], phase: Phase
    ) -> None:
        """Queue the sequences of a pass."""
        now = self.clock()
        opened = request.open_segments(segments, phase)
        try:
            for sequence in opened:
                self._sequences[sequence.seq_id] = sequence
                self.scheduler.add(_new_sequence(sequence, now), now)
                if not sequence.is_text:
                    self._add_vocoder_work(sequence, now)
        except Exception as error:
            self._fail(request, error)
        else:
            self._counters.prompt_tokens += sum(s.prompt.num_tokens for s in segments)

    def _add_vocoder_work(self, sequence: SequenceState, now: float) -> None:
        asked = sequence.owner.processed.request
        self.vocoder_scheduler.add(
            sequence.seq_id,
            sequence.owner.request_id,
            sequence.index,
            streaming=asked.priority == "interactive",
            low_lookahead=asked.lookahead == "low",
            now=now,
        )

    def _end_late_requests(self, now: float) -> None:
        for request_id in [i for i in self._deadlines if self._requests[i].is_late(now)]:
            self._fail(self._requests[request_id], DeadlineExceededError("no audio in time"))

    def _fail_owners(self, seq_ids: Iterable[str], error: Exception) -> None:
        """End the requests of these sequences, each once."""
        for seq_id in list(seq_ids):
            if sequence := self._sequences.get(seq_id):
                self._fail(sequence.owner, error)

    def _fail(self, request: RequestState, error: Exception) -> None:
        """End a request with an error, in words fit for a user."""
        self._release(request)
        message, code = describe_error(error)
        chunk = request.end("error", self.clock(), error=message, error_code=code)
        self._outbox.append(chunk)

    def _release(self, request: RequestState) -> None:
        """Give back everything a request holds, at once."""
        for sequence in list(request.live.values()):
            self.scheduler.abort(sequence.seq_id)
            self.vocoder_scheduler.abort(sequence.seq_id, self.clock())
            self._forget(sequence)
        self._deadlines.discard(request.request_id)
        del self._requests[request.request_id]

    def _forget(self, sequence: SequenceState) -> None:
        del sequence.owner.live[sequence.seq_id]
        del self._sequences[sequence.seq_id]
        if sequence.is_known:
            self.executor.remove_sequence(sequence.seq_id)

    def _take_outbox(self) -> list[AudioChunk]:
        chunks, self._outbox = self._outbox, []
        return chunks


def _new_sequence(sequence: SequenceState, now: float) -> NewSequence:
    prompt = sequence.segment.prompt
    return NewSequence(
        seq_id=sequence.seq_id,
        request_id=sequence.owner.request_id,
        arrival_time=now,
        num_prompt_tokens=prompt.num_tokens,
        prefix_keys=prompt.prefix_keys(),
        prefix_salt=prompt.prefix_salt(),
        max_new_frames=sequence.segment.sampling.max_new_tokens,
        priority=sequence.owner.processed.request.priority,
        segment_index=sequence.index,
    )
