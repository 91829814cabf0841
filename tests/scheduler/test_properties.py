"""Random traces: whatever arrives, is aborted or runs out of blocks, the promises hold.

A trace is a list of small operations on a real scheduler, with steps answered at once or one step
late. After it, everything still live must end by itself.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stretto.engine.errors import RequestTooLongError
from stretto.scheduler.interfaces import (
    ModelRunnerOutput,
    SchedulerOutput,
    SequenceUpdate,
    VocoderJob,
)
from stretto.scheduler.scheduler import Scheduler
from stretto.scheduler.vocoder_scheduler import VocoderScheduler
from tests.scheduler.factories import make_scheduler, make_sequence, make_vocoder_scheduler

BOUNDED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=120,
    suppress_health_check=list(HealthCheck),
)

schedulers = st.builds(
    make_scheduler,
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(1, 24),
    num_blocks=st.integers(6, 20),
    block_size=st.integers(1, 5),
    max_model_len=st.integers(8, 40),
    enable_prefix_caching=st.booleans(),
    bulk_share=st.integers(1, 4),
    max_bulk_preemptions=st.integers(1, 3),
)


@dataclass(frozen=True)
class Arrival:
    """A sequence that would stop by itself after `stop_after` frames."""

    prompt: int
    voice: int
    max_new_frames: int
    stop_after: int
    bulk: bool


arrivals = st.builds(
    Arrival,
    prompt=st.integers(1, 16),
    voice=st.integers(0, 2),
    max_new_frames=st.integers(1, 14),
    stop_after=st.integers(0, 14),
    bulk=st.booleans(),
)
operations = st.lists(
    st.one_of(arrivals, st.just("step"), st.just("fail"), st.integers(0, 8)), max_size=60
)


@dataclass
class House:
    """A scheduler, a runner that computes nothing but remembers what it was told, and the books."""

    scheduler: Scheduler
    depth: int
    script: dict[str, Arrival] = field(default_factory=dict)
    drawn: Counter[str] = field(default_factory=Counter)
    over: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    in_flight: deque[tuple[SchedulerOutput, ModelRunnerOutput]] = field(default_factory=deque)
    last_run: dict[str, int] = field(default_factory=dict)
    num_steps: int = 0

    def arrive(self, arrival: Arrival) -> None:
        seq_id = f"s{len(self.script)}"
        new = make_sequence(
            seq_id,
            keys=[arrival.voice] * arrival.prompt,
            frames=arrival.max_new_frames,
            arrival=float(len(self.script)),
            priority="bulk" if arrival.bulk else "interactive",
        )
        self.script[seq_id] = arrival
        try:
            self.scheduler.add(new, 0.0)
        except RequestTooLongError:
            self.ended[seq_id] += 1

    def abort(self, index: int) -> None:
        update = self.scheduler.abort(f"s{index}")
        if update is not None:
            self.ended[update.seq_id] += 1

    def step(self) -> None:
        output = self.scheduler.schedule(0.0)
        self.check_output(output)
        self.in_flight.append((output, self.run(output)))
        self.num_steps += 1
        while len(self.in_flight) > self.depth:
            self.answer()

    def run(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Steps run in order, each before the next is scheduled or one step later."""
        sampled, stopped = [], set()
        for item in output.scheduled:
            if not item.samples:
                continue
            sampled.append(item.seq_id)
            if self.drawn[item.seq_id] >= self.script[item.seq_id].stop_after:
                stopped.add(item.seq_id)
            self.drawn[item.seq_id] += 1
        return ModelRunnerOutput(tuple(sampled), frozenset(stopped))

    def answer(self) -> None:
        output, result = self.in_flight.popleft()
        self.record(self.scheduler.update_from_output(output, result, 0.0))
        self.scheduler.check_integrity()

    def fail(self) -> None:
        while self.in_flight:
            self.answer()
        self.record(self.scheduler.fail_step(self.scheduler.schedule(0.0)))
        self.scheduler.check_integrity()

    def record(self, updates: list[SequenceUpdate]) -> None:
        for update in updates:
            arrival = self.script[update.seq_id]
            assert update.num_frames <= min(arrival.stop_after, arrival.max_new_frames)
            if update.finish_reason is not None:
                self.ended[update.seq_id] += 1
            if update.finish_reason == "stop":
                assert update.num_frames == arrival.stop_after

    def check_output(self, output: SchedulerOutput) -> None:
        config = self.scheduler.config
        assert output.num_scheduled_tokens <= config.max_num_batched_tokens
        assert len(output.scheduled) <= config.max_num_seqs
        ids = [item.seq_id for item in output.scheduled]
        assert len(ids) == len(set(ids))
        assert not set(ids) & set(output.preempted)
        written: set[tuple[int, int]] = set()
        for item in output.scheduled:
            assert item.num_scheduled_tokens > 0
            end = item.num_computed_tokens + item.num_scheduled_tokens
            assert end <= len(item.block_table) * config.block_size
            assert len(set(item.block_table)) == len(item.block_table)
            slots = {
                (item.block_table[p // config.block_size], p % config.block_size)
                for p in range(item.num_computed_tokens, end)
            }
            assert not slots & written, "two sequences write to one slot"
            written |= slots
        self.check_sharing(output)

    def check_sharing(self, output: SchedulerOutput) -> None:
        """Block tables are disjoint but for full blocks of an equal prompt, computed before."""
        holders: dict[int, list[tuple[str, int]]] = {}
        for item in output.scheduled:
            for index, block in enumerate(item.block_table):
                holders.setdefault(block, []).append((item.seq_id, index))
        size = self.scheduler.config.block_size
        computed = {item.seq_id: item.num_computed_tokens for item in output.scheduled}
        for shared in holders.values():
            if len(shared) > 1:
                assert len({index for _, index in shared}) == 1
                assert len({self.script[seq_id].voice for seq_id, _ in shared}) == 1
                for seq_id, index in shared:
                    end = (index + 1) * size
                    assert end <= min(computed[seq_id], self.script[seq_id].prompt)

    def settle(self) -> None:
        for _ in range(20_000):
            if not self.scheduler.has_work:
                break
            self.step()
        while self.in_flight:
            self.answer()
        assert not self.scheduler.has_work, "a sequence never ended"
        assert self.ended == Counter(dict.fromkeys(self.script, 1)), "not one end each"
        assert self.scheduler.num_used_blocks == 0
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0
        self.scheduler.check_integrity()


@BOUNDED
@given(scheduler=schedulers, trace=operations, depth=st.integers(0, 1))
def test_every_trace_ends_once_and_leaks_nothing(
    scheduler: Scheduler, trace: list[Arrival | str | int], depth: int
) -> None:
    house = House(scheduler, depth)
    for operation in trace:
        if isinstance(operation, Arrival):
            house.arrive(operation)
        elif operation == "step":
            house.step()
        elif operation == "fail":
            house.fail()
        else:
            house.abort(int(operation))
        house.scheduler.check_integrity()
    house.settle()


@BOUNDED
@given(
    arrivals=st.lists(arrivals, min_size=2, max_size=12),
    depth=st.integers(0, 1),
    num_blocks=st.integers(6, 12),
)
def test_running_streams_never_stall_but_for_preemption(
    arrivals: list[Arrival], depth: int, num_blocks: int
) -> None:
    """Who has drawn a frame draws in every later step, until its end or a preemption."""
    house = House(make_scheduler(num_blocks=num_blocks, max_num_batched_tokens=8), depth)
    streaming: set[str] = set()
    for arrival in arrivals:
        house.arrive(arrival)
        output = house.scheduler.schedule(0.0)
        sampled = {item.seq_id for item in output.scheduled if item.samples}
        drawn_out = {
            seq_id
            for seq_id in streaming
            if house.drawn[seq_id] >= house.script[seq_id].max_new_frames
        }
        assert streaming - drawn_out - set(output.preempted) - set(house.ended) <= sampled
        house.in_flight.append((output, house.run(output)))
        streaming = (streaming - set(output.preempted)) | sampled
        while len(house.in_flight) > depth:
            house.answer()
    house.settle()


@BOUNDED
@given(stop_after=st.integers(1, 6), bulk_share=st.integers(1, 6), seats=st.integers(1, 3))
def test_bulk_is_never_starved(stop_after: int, bulk_share: int, seats: int) -> None:
    """Interactive sequences keep coming faster than they leave; bulk still gets through."""
    house = House(make_scheduler(max_num_seqs=seats, bulk_share=bulk_share), 0)
    house.arrive(Arrival(4, 0, 14, stop_after, bulk=True))
    for _ in range(400):
        if house.ended["s0"]:
            break
        for _ in range(seats):
            house.arrive(Arrival(4, 1, 14, stop_after, bulk=False))
        house.step()
    assert house.ended["s0"] == 1


segments = st.tuples(
    st.integers(0, 3),  # request
    st.booleans(),  # streaming
    st.booleans(),  # low look-ahead
    st.integers(0, 40),  # frames
)


def vocode(
    scheduler: VocoderScheduler, found: dict[str, list[VocoderJob]], now: float, limit: int
) -> None:
    batch = scheduler.schedule(now)
    if batch is None:
        return
    assert len(batch.jobs) == 1 or sum(j.num_window_frames for j in batch.jobs) <= limit
    for job in batch.jobs:
        found[job.seq_id].append(job)


@BOUNDED
@given(
    plan=st.lists(segments, min_size=1, max_size=8),
    pace=st.lists(st.integers(0, 7), min_size=1, max_size=40),
    left=st.integers(0, 5),
    right=st.integers(0, 5),
    max_batch_frames=st.integers(1, 40),
    first_frames=st.integers(1, 6),
    growth=st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    aborted=st.sets(st.integers(0, 7), max_size=2),
)
def test_vocoder_jobs_cover_every_frame_once(
    plan: list[tuple[int, bool, bool, int]],
    pace: list[int],
    left: int,
    right: int,
    max_batch_frames: int,
    first_frames: int,
    growth: float,
    aborted: set[int],
) -> None:
    scheduler = make_vocoder_scheduler(
        left=left,
        right=right,
        low_right=min(1, right),
        max_batch_frames=max_batch_frames,
        first_frames=first_frames,
        growth=growth,
        max_frames=9,
    )
    have = [0] * len(plan)
    found: dict[str, list[VocoderJob]] = {f"s{i}": [] for i in range(len(plan))}
    for i, (request, streaming, low, _) in enumerate(plan):
        scheduler.add(f"s{i}", f"r{request}", i, streaming=streaming, low_lookahead=low, now=0.0)
    for tick, frames in enumerate(pace):
        i = tick % len(plan)
        have[i] = min(have[i] + frames, plan[i][3])
        scheduler.update(f"s{i}", have[i], False, float(tick))
        if tick % 3 == 0:
            vocode(scheduler, found, float(tick), max_batch_frames)
        for seq_id, jobs in found.items():
            ready = have[int(seq_id[1:])]
            assert all(job.window_end <= ready and job.end < max(ready, 1) for job in jobs)
        scheduler.check_integrity()
    for i in sorted(aborted & set(range(len(plan)))):
        scheduler.abort(f"s{i}")
        del found[f"s{i}"]
    for seq_id in found:
        scheduler.update(seq_id, plan[int(seq_id[1:])][3], True, 100.0)
    for _ in range(500):
        if not scheduler.has_work:
            break
        vocode(scheduler, found, 100.0, max_batch_frames)
        scheduler.check_integrity()
    assert not scheduler.has_work
    for seq_id, jobs in found.items():
        check_cover(jobs, plan[int(seq_id[1:])], left, right)


def check_cover(
    jobs: list[VocoderJob], segment: tuple[int, bool, bool, int], left: int, right: int
) -> None:
    _, _, low, num_frames = segment
    look_ahead = min(1, right) if low else right
    end = 0
    for job in jobs:
        assert (job.start, job.end > job.start) == (end, True)
        end = job.end
        assert job.window_start == max(0, job.start - left)
        assert job.window_end == min(num_frames, job.end + look_ahead)
        assert job.is_last == (job is jobs[-1])
    assert end == num_frames
