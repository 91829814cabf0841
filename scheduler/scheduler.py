"""`Scheduler`: which sequences run in the next step, and how many positions of each.

There is no prefill phase and no decode phase: every sequence has `num_computed_tokens` chasing
`num_tokens`, so chunked prefill, prefix hits, and the replay of a preempted sequence are one thing.
A step serves, first the interactive class and then bulk: sequences that need one position (streams
that run never wait for a prompt), then started prompts, then new ones. When blocks run out, the
lowest class and latest arrival loses its blocks and is replayed later, prompt and frames.

`schedule` may be called again before the step before is answered (asynchronous scheduling): a draw
in flight is taken to be a frame. If it was the end of speech, the extra position is ignored when
its answer comes. The scheduler has no clock, no tensors and no knowledge of the vocoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, count

from .admission import admit_sequence
from .interfaces import (
    ModelRunnerOutput,
    NewSequence,
    ScheduledSequence,
    SchedulerConfig,
    SchedulerOutput,
    SequenceFinishReason,
    SequenceUpdate,
)
from .kv_cache import KVCacheManager
from .queues import RunningList, WaitingQueue
from .sequence import Sequence

_INTERACTIVE, _BULK = 0, 1


@dataclass(slots=True)
class _Step:
    """A step in the making. `budget` is what is left of its positions."""

    budget: int
    scheduled: list[ScheduledSequence] = field(default_factory=list)
    preempted: dict[str, Sequence] = field(default_factory=dict)


class Scheduler:
    """Decides each step of the speech model.

    Args:
        config: the limits.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        if min(config.max_num_seqs, config.max_num_batched_tokens, config.block_size) < 1:
            raise ValueError(f"limits must be positive: {config}")
        self.config = config
        self.kv_cache = KVCacheManager(config.num_blocks, config.block_size)
        self.num_preemptions = 0
        self._sequences: dict[str, Sequence] = {}
        self._waiting = (WaitingQueue(), WaitingQueue())  # by rank
        self._running = (RunningList(), RunningList())  # by rank
        self._wait_reason = ["capacity", "capacity"]  # by rank
        self._bulk_credit = 0  # interactive admissions since bulk was last admitted
        self._tickets = count()
        # Every running sequence must get at least one position of a step.
        self._max_running = min(config.max_num_seqs, config.max_num_batched_tokens)

    # What the engine sees of the load.

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks and take part in steps."""
        return sum(map(len, self._running))

    @property
    def num_waiting(self) -> int:
        """Sequences that hold no blocks, preempted ones included."""
        return sum(map(len, self._waiting))

    @property
    def has_work(self) -> bool:
        """True while a sequence is live or a step in flight is not answered."""
        return bool(self._sequences)

    @property
    def num_blocks(self) -> int:
        """KV blocks in the pool."""
        return self.kv_cache.pool.num_blocks

    @property
    def num_used_blocks(self) -> int:
        """KV blocks held by sequences."""
        return self.kv_cache.pool.num_used

    @property
    def prefix_cache_queries(self) -> int:
        """Prompt tokens looked up so far."""
        return self.kv_cache.num_queries

    @property
    def prefix_cache_hits(self) -> int:
        """Prompt tokens found so far."""
        return self.kv_cache.num_hits

    def waiting_by_reason(self) -> tuple[tuple[str, int], ...]:
        """Why sequences wait: `capacity` (running sequences), `blocks`, or `priority`."""
        counts = {"capacity": 0, "blocks": 0, "priority": 0}
        interactive, bulk = map(len, self._waiting)
        counts[self._wait_reason[_INTERACTIVE]] += interactive
        counts["priority" if interactive else self._wait_reason[_BULK]] += bulk
        return tuple(counts.items())

    # Sequences come and go.

    def add(self, new: NewSequence, now: float) -> None:
        """Queue a sequence.

        Args:
            new: the sequence; its frames are capped to what the model's length leaves.
            now: seconds on the caller's clock; later than every earlier call's.

        Raises:
            RequestTooLongError: it could never run, even alone.
            ValueError: its id is in use, or it has no position or frame to compute.
        """
        if new.seq_id in self._sequences:
            raise ValueError(f"sequence {new.seq_id!r} is live already")
        seq = admit_sequence(new, self.config, next(self._tickets))
        self._sequences[seq.seq_id] = seq
        self._waiting[seq.rank].push(seq)

    def abort(self, seq_id: str) -> SequenceUpdate | None:
        """End a sequence now; None when it is unknown or over already."""
        seq = self._sequences.get(seq_id)
        if seq is None or seq.status == "finished":
            return None
        return self._finish(seq, "abort")

    # One step.

    def schedule(self, now: float) -> SchedulerOutput:
        """Decide the next step; it is empty when nothing can run before an answer comes."""
        step = _Step(budget=self.config.max_num_batched_tokens)
        for rank in (_INTERACTIVE, _BULK):
            self._schedule_decodes(step, rank)
            self._schedule_prefills(step, rank)
            self._admit_waiting(step, rank)
        self.kv_cache.commit_step()
        return SchedulerOutput(tuple(step.scheduled), tuple(step.preempted))

    def update_from_output(
        self, output: SchedulerOutput, result: ModelRunnerOutput, now: float
    ) -> list[SequenceUpdate]:
        """Apply the answer to a step; steps are answered in the order they were scheduled.

        Returns:
            One update for every live sequence that drew a frame or the end.

        Raises:
            RuntimeError: the runner did not draw for a sequence that was to; nothing is applied.
        """
        sampled = set(result.sampled)
        forgotten = [i.seq_id for i in output.scheduled if i.samples and i.seq_id not in sampled]
        if forgotten:
            raise RuntimeError(f"the runner drew nothing for {forgotten[:8]}")
        updates = []
        for item in output.scheduled:
            seq = self._answered(item)
            if seq is not None and item.samples:
                updates.append(self._apply_draw(seq, item.seq_id in result.stopped))
        return updates

    def fail_step(self, output: SchedulerOutput) -> list[SequenceUpdate]:
        """Take back a step that the runner could not run: all its sequences end.

        Cached prefixes are forgotten, for some may have been left half computed.
        """
        live = [seq for item in output.scheduled if (seq := self._answered(item)) is not None]
        self.kv_cache.pool.forget_contents()
        return [self._finish(seq, "abort") for seq in live]

    def check_integrity(self) -> None:
        """Raise when blocks leaked or a sequence is in no queue or in two.

        Raises:
            RuntimeError: what is wrong.
        """
        self.kv_cache.pool.check_integrity(
            chain.from_iterable(seq.block_table for seq in self._sequences.values())
        )
        queued = sum(1 for seq in self._sequences.values() if seq.status != "finished")
        if queued != self.num_running + self.num_waiting:
            raise RuntimeError(f"{queued} live sequences, but queues hold another number")
        for seq in self._sequences.values():
            if seq.status == "finished" and not seq.num_in_flight:
                raise RuntimeError(f"finished sequence {seq.seq_id!r} was not forgotten")
            if seq.status == "waiting" and seq.block_table:
                raise RuntimeError(f"waiting sequence {seq.seq_id!r} holds blocks")

    # Admission.

    def _admit_waiting(self, step: _Step, rank: int) -> None:
        """Start waiting sequences in order until one does not fit; it is not overtaken.

        Those whose last answer is due, or whose prefix this step computes, are held back a step.
        """
        waiting = self._waiting[rank]
        held_back: list[Sequence] = []
        while self._may_admit(step, rank, len(held_back)):
            if rank == _INTERACTIVE:
                self._promote_bulk()
            seq = waiting.peek()
            if seq is None:
                break
            if seq.is_drawn_out or self.kv_cache.waits_for_prefix(seq):
                held_back.append(waiting.pop())
            elif self._make_room(step, seq):
                self._admit(step, waiting.pop())
            else:
                self._wait_reason[rank] = "blocks"
                break
        for seq in held_back:
            waiting.push(seq)

    def _may_admit(self, step: _Step, rank: int, num_held_back: int) -> bool:
        """True when a slot and a position are left, or bulk sequences could give theirs up."""
        self._wait_reason[rank] = "capacity"
        num_bulk = len(self._running[_BULK])
        if rank == _BULK:
            if self._waiting[_INTERACTIVE] or step.preempted:
                return False
            return self.num_running + num_held_back < self._max_running and step.budget > 0
        reserved = num_bulk - (self.num_running == self._max_running)
        in_the_way = self.num_running - num_bulk + num_held_back
        return in_the_way < self._max_running and step.budget > reserved

    def _promote_bulk(self) -> None:
        """Give bulk its share: the oldest counts as interactive from now on."""
        oldest = self._waiting[_BULK].peek()
        if oldest is not None and self._bulk_credit >= self.config.bulk_share - 1:
            self._waiting[_BULK].pop()
            oldest.promoted = True
            self._waiting[_INTERACTIVE].push(oldest)
            self._bulk_credit = 0

    def _make_room(self, step: _Step, seq: Sequence) -> bool:
        """Preempt bulk sequences for an interactive one, if that is enough to admit it."""
        bulk = self._running[_BULK]
        if seq.rank == _INTERACTIVE and not self._fits(seq):
            reclaimable = sum(len(victim.block_table) for victim in bulk.items)
            if self.kv_cache.can_admit(seq, self.num_running - len(bulk) - reclaimable):
                while bulk.items and not self._fits(seq):
                    self._preempt(step, bulk.pop_last())
        return self._fits(seq)

    def _fits(self, seq: Sequence) -> bool:
        """True with a slot, and with one block to grow for every sequence that runs."""
        running = self.num_running
        return running < self._max_running and self.kv_cache.can_admit(seq, running)

    def _admit(self, step: _Step, seq: Sequence) -> None:
        if seq.rank == _BULK or not self._waiting[_BULK]:
            self._bulk_credit = 0
        else:
            self._bulk_credit += 1
        self.kv_cache.admit(seq)
        seq.status = "running"
        self._running[seq.rank].add(seq)
        self._schedule_prefill(step, seq)

    # Shares of a step.

    def _schedule_decodes(self, step: _Step, rank: int) -> None:
        """Give every sequence that lacks one position that position, oldest first."""
        items = self._running[rank].items
        size = self.config.block_size
        index = 0
        while index < len(items):
            seq = items[index]
            index += 1
            if seq.num_remaining_tokens != 1:
                continue
            if seq.num_computed_tokens < len(seq.block_table) * size or self._grow(step, seq):
                self._schedule_sequence(step, seq, 1)

    def _grow(self, step: _Step, seq: Sequence) -> bool:
        """Find a block by preempting the last to have come, in the end the sequence itself."""
        while not self.kv_cache.grow(seq):
            victim = (self._running[_BULK] if self._running[_BULK] else self._running[0]).pop_last()
            self._preempt(step, victim)
            if victim is seq:
                return False
        return True

    def _schedule_prefills(self, step: _Step, rank: int) -> None:
        """Continue prompts and replays; all their blocks were theirs at admission."""
        for seq in self._running[rank].items:
            if seq.num_remaining_tokens > 1:
                self._schedule_prefill(step, seq)

    def _schedule_prefill(self, step: _Step, seq: Sequence) -> None:
        reserved = len(self._running[_BULK].items) if seq.rank == _INTERACTIVE else 0
        size = min(step.budget - reserved, seq.num_remaining_tokens)
        if size > 0:
            self._schedule_sequence(step, seq, size)

    def _schedule_sequence(self, step: _Step, seq: Sequence, size: int) -> None:
        start = seq.num_computed_tokens
        samples = start + size == seq.num_tokens
        step.scheduled.append(
            ScheduledSequence(
                seq.seq_id, start, size, seq.block_table, seq.num_known_blocks, samples
            )
        )
        step.budget -= size
        if start < seq.num_prompt_tokens:
            self.kv_cache.mark_computed(seq, start, start + size)
        seq.num_computed_tokens = start + size
        seq.num_known_blocks = len(seq.block_table)
        seq.num_in_flight += 1
        seq.num_pending += samples

    # Ends and answers.

    def _preempt(self, step: _Step, seq: Sequence) -> None:
        """Take a sequence's blocks at once: steps run in order, so their next owner writes last."""
        self.kv_cache.release(seq)
        seq.status = "waiting"
        seq.num_preemptions += 1
        self.num_preemptions += 1
        if seq.num_preemptions >= self.config.max_bulk_preemptions:
            seq.promoted = True
        self._waiting[seq.rank].push(seq)
        step.preempted[seq.seq_id] = seq

    def _answered(self, item: ScheduledSequence) -> Sequence | None:
        """Count a share as answered; the sequence, unless it is over."""
        seq = self._sequences[item.seq_id]
        seq.num_in_flight -= 1
        seq.num_pending -= item.samples
        if seq.status != "finished":
            return seq
        if not seq.num_in_flight:
            self._forget(seq)
        return None

    def _apply_draw(self, seq: Sequence, stopped: bool) -> SequenceUpdate:
        if stopped:
            return self._finish(seq, "stop")
        seq.num_frames += 1
        if seq.num_frames == seq.max_new_frames:
            return self._finish(seq, "length")
        return SequenceUpdate(seq.seq_id, seq.request_id, seq.num_frames)

    def _finish(self, seq: Sequence, reason: SequenceFinishReason) -> SequenceUpdate:
        """End a sequence; its blocks stay held while a step in flight may write to them."""
        if seq.status == "running":
            self._running[seq.rank].remove(seq)
        else:
            self._waiting[seq.rank].remove(seq)
        seq.status = "finished"
        if not seq.num_in_flight:
            self._forget(seq)
        return SequenceUpdate(seq.seq_id, seq.request_id, seq.num_frames, reason)

    def _forget(self, seq: Sequence) -> None:
        self.kv_cache.release(seq)
        del self._sequences[seq.seq_id]
