"""The work per scheduled sequence does not grow with their number. Counted, not timed."""

from __future__ import annotations

import sys
from types import FrameType

from tests.scheduler.factories import answer, make_scheduler, make_sequence


def calls_per_sequence(num_seqs: int) -> float:
    """Python and C calls of a decode step and its update, per sequence."""
    scheduler = make_scheduler(
        max_num_seqs=num_seqs, max_num_batched_tokens=8 * num_seqs, num_blocks=5 * num_seqs
    )
    for index in range(num_seqs):
        scheduler.add(make_sequence(f"s{index}", arrival=float(index)), 0.0)
    while scheduler.num_waiting:
        output = scheduler.schedule(0.0)
        scheduler.update_from_output(output, answer(output), 0.0)
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        output = scheduler.schedule(0.0)
        scheduler.update_from_output(output, answer(output), 0.0)
    finally:
        sys.setprofile(None)
    assert len(output.scheduled) == num_seqs
    return calls / num_seqs


def test_a_step_costs_the_same_per_sequence_from_16_to_4096() -> None:
    few, many = calls_per_sequence(16), calls_per_sequence(4096)
    assert many <= few
    assert many > 1
