"""What a scheduling decision costs: microseconds per scheduled sequence, from 16 to 4,096.

Runs the real scheduler with a runner that draws at once, so that nothing but scheduling is timed:
`schedule` and `update_from_output` of decode steps, as in a house at full load, with sequences
ending and arriving all the time. It does not measure the preparation of device inputs.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from ..scheduler.interfaces import ModelRunnerOutput, NewSequence, SchedulerConfig, SchedulerOutput
from ..scheduler.scheduler import Scheduler

DEFAULT_SIZES = (16, 64, 256, 1024, 4096)
_BLOCK_SIZE = 16
_PROMPT = 40
_FRAMES = 300


@dataclass(frozen=True, slots=True)
class SchedulerTiming:
    """Cost at one number of running sequences.

    Attributes:
        num_seqs: sequences running.
        schedule_us: microseconds of `schedule` per scheduled sequence, median over steps.
        update_us: microseconds of `update_from_output` per scheduled sequence, median over steps.
    """

    num_seqs: int
    schedule_us: float
    update_us: float

    @property
    def total_us(self) -> float:
        """Microseconds per scheduled sequence and step."""
        return self.schedule_us + self.update_us


def run_scheduler_benchmark(
    sizes: Sequence[int] = DEFAULT_SIZES, *, min_scheduled: int = 200_000
) -> list[SchedulerTiming]:
    """Time the scheduler at each number of running sequences.

    Args:
        sizes: numbers of running sequences.
        min_scheduled: shares to schedule at each size; at least 20 steps are run.
    """
    return [_time_size(size, max(20, min_scheduled // size)) for size in sizes]


def format_timings(timings: Sequence[SchedulerTiming]) -> str:
    """A table of the timings."""
    head = f"{'sequences':>9}  {'schedule us/seq':>15}  {'update us/seq':>13}  {'total us/seq':>12}"
    rows = [
        f"{t.num_seqs:9d}  {t.schedule_us:15.2f}  {t.update_us:13.2f}  {t.total_us:12.2f}"
        for t in timings
    ]
    return "\n".join([head, *rows])


def _time_size(num_seqs: int, num_steps: int) -> SchedulerTiming:
    scheduler = Scheduler(
        SchedulerConfig(
            max_num_seqs=num_seqs,
            max_num_batched_tokens=num_seqs + 2048,
            num_blocks=num_seqs * (_PROMPT + _FRAMES) // _BLOCK_SIZE + num_seqs + 64,
            block_size=_BLOCK_SIZE,
            max_model_len=_PROMPT + _FRAMES,
        )
    )
    for index in range(num_seqs):
        _add(scheduler, index, frames=1 + index * _FRAMES // num_seqs)
    arrived = num_seqs
    while scheduler.num_waiting:
        _answer(scheduler, scheduler.schedule(0.0))
        arrived += _refill(scheduler, num_seqs, arrived)
    schedule_us, update_us = [], []
    gc.collect()
    for _ in range(num_steps):
        arrived += _refill(scheduler, num_seqs, arrived)
        start = perf_counter()
        output = scheduler.schedule(0.0)
        middle = perf_counter()
        result = _draw(output)
        resumed = perf_counter()
        scheduler.update_from_output(output, result, 0.0)
        end = perf_counter()
        schedule_us.append((middle - start) * 1e6 / len(output.scheduled))
        update_us.append((end - resumed) * 1e6 / len(output.scheduled))
    return SchedulerTiming(num_seqs, _median(schedule_us), _median(update_us))


def _add(scheduler: Scheduler, index: int, frames: int) -> None:
    scheduler.add(
        NewSequence(
            seq_id=f"s{index}",
            request_id=f"r{index}",
            arrival_time=float(index),
            num_prompt_tokens=_PROMPT,
            prefix_keys=[index] * _PROMPT,
            prefix_salt=b"",
            max_new_frames=frames,
        ),
        0.0,
    )


def _refill(scheduler: Scheduler, num_seqs: int, arrived: int) -> int:
    missing = num_seqs - scheduler.num_running - scheduler.num_waiting
    for index in range(arrived, arrived + missing):
        _add(scheduler, index, frames=_FRAMES)
    return missing


def _draw(output: SchedulerOutput) -> ModelRunnerOutput:
    return ModelRunnerOutput(tuple(item.seq_id for item in output.scheduled if item.samples))


def _answer(scheduler: Scheduler, output: SchedulerOutput) -> None:
    scheduler.update_from_output(output, _draw(output), 0.0)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench scheduler`."""
    parser.add_argument("--sizes", type=int, nargs="+", default=list(DEFAULT_SIZES))


def run(args: argparse.Namespace) -> int:
    """Run `bench scheduler`: print the table."""
    print(format_timings(run_scheduler_benchmark(args.sizes)))
    return 0
