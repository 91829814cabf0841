"""The step: order, budget, chunked prefill, preemption, limits, aborts, failed steps."""

from __future__ import annotations

import pytest

from stretto.engine.errors import RequestTooLongError
from stretto.scheduler.interfaces import ModelRunnerOutput, SchedulerOutput
from tests.scheduler.factories import (
    answer,
    make_scheduler,
    make_sequence,
    run_until_idle,
    step,
)


def shares(output: SchedulerOutput) -> dict[str, int]:
    return {item.seq_id: item.num_scheduled_tokens for item in output.scheduled}


def test_a_sequence_runs_from_prompt_to_its_last_frame() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a", prompt=6, frames=3), 0.0)

    output, updates = step(scheduler)
    (item,) = output.scheduled
    assert (item.num_computed_tokens, item.num_scheduled_tokens, item.samples) == (0, 6, True)
    assert (item.first_new_block, len(item.block_table)) == (0, 2)
    assert [(u.num_frames, u.finish_reason) for u in updates] == [(1, None)]

    output, updates = step(scheduler)
    (item,) = output.scheduled
    assert (item.num_computed_tokens, item.num_scheduled_tokens) == (6, 1)
    assert (item.first_new_block, len(item.block_table)) == (2, 2)

    _, updates = step(scheduler)
    assert [(u.num_frames, u.finish_reason) for u in updates] == [(3, "length")]
    assert not scheduler.has_work
    assert scheduler.num_used_blocks == 0
    scheduler.check_integrity()


def test_the_draw_of_the_end_is_no_frame() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"), 0.0)
    step(scheduler)
    _, updates = step(scheduler, stopping=["a"])
    assert [(u.num_frames, u.finish_reason) for u in updates] == [(1, "stop")]
    scheduler.check_integrity()


def test_frames_are_capped_by_the_model() -> None:
    scheduler = make_scheduler(max_model_len=10)
    scheduler.add(make_sequence("a", prompt=6, frames=100), 0.0)
    ended = run_until_idle(scheduler)
    assert (ended["a"].num_frames, ended["a"].finish_reason) == (4, "length")


@pytest.mark.parametrize(("prompt", "fits"), [(9, True), (10, False), (11, False)])
def test_a_prompt_must_leave_room_for_a_frame(prompt: int, fits: bool) -> None:
    scheduler = make_scheduler(max_model_len=10)
    if fits:
        scheduler.add(make_sequence("a", prompt=prompt), 0.0)
        assert run_until_idle(scheduler)["a"].num_frames == 1
    else:
        with pytest.raises(RequestTooLongError, match=f"{prompt} positions"):
            scheduler.add(make_sequence("a", prompt=prompt), 0.0)
        assert not scheduler.has_work


@pytest.mark.parametrize(("frames", "fits"), [(13, True), (14, False)])
def test_the_worst_case_must_fit_the_pool(frames: int, fits: bool) -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=4)
    sequence = make_sequence("a", prompt=4, frames=frames)
    if fits:
        scheduler.add(sequence, 0.0)
        assert run_until_idle(scheduler)["a"].num_frames == frames
    else:
        with pytest.raises(RequestTooLongError, match="5 KV blocks; the cache has 4"):
            scheduler.add(sequence, 0.0)


def test_broken_sequences_are_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"), 0.0)
    with pytest.raises(ValueError, match="live already"):
        scheduler.add(make_sequence("a"), 0.0)
    with pytest.raises(ValueError, match="nothing to compute"):
        scheduler.add(make_sequence("b", prompt=0), 0.0)
    with pytest.raises(ValueError, match="nothing to compute"):
        scheduler.add(make_sequence("c", frames=0), 0.0)
    with pytest.raises(ValueError, match="must be positive"):
        make_scheduler(max_num_seqs=0)


def test_a_long_prompt_is_computed_in_chunks_beside_running_streams() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("stream", prompt=4, frames=50), 0.0)
    step(scheduler)
    scheduler.add(make_sequence("long", prompt=20, arrival=-1.0), 0.0)
    seen = [shares(step(scheduler)[0]) for _ in range(4)]
    assert seen == [
        {"stream": 1, "long": 7},
        {"stream": 1, "long": 7},
        {"stream": 1, "long": 6},
        {"long": 1, "stream": 1},
    ]


def test_chunks_sample_only_at_the_end_of_the_prompt() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("a", prompt=20), 0.0)
    flags = [step(scheduler)[0].scheduled[0].samples for _ in range(3)]
    assert flags == [False, False, True]


def test_running_sequences_never_outnumber_the_positions_of_a_step() -> None:
    scheduler = make_scheduler(max_num_seqs=16, max_num_batched_tokens=3)
    for i in range(6):
        scheduler.add(make_sequence(f"s{i}", prompt=1), 0.0)
    for _ in range(4):
        output, _ = step(scheduler)
        assert output.num_scheduled_tokens <= 3
    assert scheduler.num_running == 3
    assert scheduler.waiting_by_reason() == (("capacity", 3), ("blocks", 0), ("priority", 0))
    run_until_idle(scheduler)


def test_first_come_first_served_and_segments_in_order() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    scheduler.add(make_sequence("late", frames=1, arrival=2.0), 2.0)
    scheduler.add(make_sequence("early/1", frames=1, arrival=1.0, segment=1), 2.0)
    scheduler.add(make_sequence("early/0", frames=1, arrival=1.0, segment=0), 2.0)
    order = [step(scheduler)[0].scheduled[0].seq_id for _ in range(3)]
    assert order == ["early/0", "early/1", "late"]


def test_interactive_goes_before_bulk() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    scheduler.add(make_sequence("bulk", frames=1, priority="bulk"), 0.0)
    scheduler.add(make_sequence("live", frames=1, arrival=5.0), 5.0)
    assert scheduler.waiting_by_reason() == (("capacity", 1), ("blocks", 0), ("priority", 1))
    order = [step(scheduler)[0].scheduled[0].seq_id for _ in range(2)]
    assert order == ["live", "bulk"]


def test_an_interactive_sequence_takes_the_slot_of_the_latest_bulk_one() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    scheduler.add(make_sequence("b0", priority="bulk", arrival=0.0), 0.0)
    scheduler.add(make_sequence("b1", priority="bulk", arrival=1.0), 1.0)
    step(scheduler)
    scheduler.add(make_sequence("live", arrival=2.0), 2.0)
    output, _ = step(scheduler)
    assert output.preempted == ("b1",)
    assert shares(output) == {"live": 6, "b0": 1}
    scheduler.check_integrity()
    ended = run_until_idle(scheduler)
    assert {seq_id: update.num_frames for seq_id, update in ended.items()} == {
        "live": 8,
        "b0": 8,
        "b1": 8,
    }


def test_an_interactive_sequence_gets_in_when_bulk_fills_the_step() -> None:
    scheduler = make_scheduler(max_num_seqs=2, max_num_batched_tokens=2)
    for i in range(2):
        scheduler.add(make_sequence(f"b{i}", prompt=1, priority="bulk"), 0.0)
    step(scheduler)
    scheduler.add(make_sequence("live", arrival=1.0), 1.0)
    output, _ = step(scheduler)
    assert (output.preempted, shares(output)) == (("b1",), {"live": 1, "b0": 1})
    run_until_idle(scheduler)


def test_bulk_that_runs_keeps_its_place_in_the_step() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("bulk", prompt=4, priority="bulk"), 0.0)
    step(scheduler)
    scheduler.add(make_sequence("live", prompt=20), 1.0)
    assert shares(step(scheduler)[0]) == {"live": 7, "bulk": 1}
    assert shares(step(scheduler)[0]) == {"live": 7, "bulk": 1}
    run_until_idle(scheduler)


def test_bulk_does_not_slip_past_an_interactive_sequence_that_waits_for_blocks() -> None:
    scheduler = make_scheduler(num_blocks=8, block_size=4)
    scheduler.add(make_sequence("first", prompt=16, frames=4), 0.0)
    step(scheduler)
    scheduler.add(make_sequence("big", prompt=20, frames=4, arrival=1.0), 1.0)
    scheduler.add(make_sequence("bulk", prompt=4, frames=4, priority="bulk"), 1.0)
    assert shares(step(scheduler)[0]) == {"first": 1}
    assert scheduler.waiting_by_reason() == (("capacity", 0), ("blocks", 1), ("priority", 1))
    run_until_idle(scheduler)


def test_bulk_is_not_preempted_when_that_would_not_help() -> None:
    scheduler = make_scheduler(num_blocks=8, block_size=4)
    scheduler.add(make_sequence("a", prompt=16, frames=4), 0.0)
    scheduler.add(make_sequence("bulk", prompt=4, frames=4, priority="bulk"), 0.0)
    step(scheduler)
    scheduler.add(make_sequence("big", prompt=26, frames=2, arrival=1.0), 1.0)
    output, _ = step(scheduler)
    assert output.preempted == ()
    assert dict(scheduler.waiting_by_reason())["blocks"] == 1
    assert set(run_until_idle(scheduler)) == {"a", "bulk", "big"}


def test_bulk_gets_its_share_under_interactive_load() -> None:
    scheduler = make_scheduler(max_num_seqs=1, bulk_share=3)
    scheduler.add(make_sequence("bulk", frames=1, priority="bulk"), 0.0)
    order = []
    for i in range(6):
        scheduler.add(make_sequence(f"s{i}", frames=1, arrival=float(i)), float(i))
        scheduler.add(make_sequence(f"t{i}", frames=1, arrival=float(i)), float(i))
        order.append(step(scheduler)[0].scheduled[0].seq_id)
    assert order.index("bulk") == 2


def test_a_bulk_sequence_is_preempted_only_so_often() -> None:
    scheduler = make_scheduler(max_num_seqs=1, bulk_share=1000, max_bulk_preemptions=2)
    scheduler.add(make_sequence("bulk", frames=30, priority="bulk"), 0.0)
    times = 0
    for i in range(6):
        step(scheduler)
        scheduler.add(make_sequence(f"s{i}", frames=1, arrival=float(i + 1)), 0.0)
        output, _ = step(scheduler)
        times += "bulk" in output.preempted
    assert times == 2
    assert run_until_idle(scheduler)["bulk"].num_frames == 30


def test_running_out_of_blocks_replays_the_latest() -> None:
    scheduler = make_scheduler(num_blocks=6, block_size=4)
    scheduler.add(make_sequence("first", prompt=4, frames=16, arrival=0.0), 0.0)
    scheduler.add(make_sequence("second", prompt=4, frames=16, arrival=1.0), 1.0)
    kept = 0
    while True:
        output, updates = step(scheduler)
        if output.preempted:
            break
        kept = next(u.num_frames for u in updates if u.seq_id == "second")
    assert output.preempted == ("second",)
    assert scheduler.num_preemptions == 1
    while "second" not in shares(output):
        output, updates = step(scheduler)
    (item,) = (i for i in output.scheduled if i.seq_id == "second")
    # The block of the prompt is still cached; the frames are computed again.
    assert (item.num_computed_tokens, item.first_new_block) == (4, 0)
    assert item.num_scheduled_tokens == kept
    assert item.samples
    assert updates[-1].num_frames == kept + 1
    scheduler.check_integrity()
    assert run_until_idle(scheduler)["second"].num_frames == 16


def test_abort_gives_back_everything_at_once() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    scheduler.add(make_sequence("a"), 0.0)
    scheduler.add(make_sequence("b"), 0.0)
    step(scheduler)
    for seq_id in ("a", "b"):
        update = scheduler.abort(seq_id)
        assert update is not None
        assert update.finish_reason == "abort"
    assert scheduler.abort("a") is None
    assert not scheduler.has_work
    assert scheduler.num_used_blocks == 0
    scheduler.check_integrity()


def test_a_failed_step_ends_its_sequences_and_forgets_their_prefix() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    keys = list(range(9))
    scheduler.add(make_sequence("a", keys=keys), 0.0)
    scheduler.add(make_sequence("b", keys=keys), 0.0)
    output = scheduler.schedule(0.0)
    updates = scheduler.fail_step(output)
    assert [(u.seq_id, u.finish_reason) for u in updates] == [("a", "abort")]
    scheduler.check_integrity()
    output, _ = step(scheduler)
    assert output.scheduled[0].num_computed_tokens == 0
    run_until_idle(scheduler)


def test_a_runner_that_forgets_a_draw_is_found_out() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"), 0.0)
    output = scheduler.schedule(0.0)
    with pytest.raises(RuntimeError, match=r"drew nothing for \['a'\]"):
        scheduler.update_from_output(output, ModelRunnerOutput(()), 0.0)
    scheduler.update_from_output(output, answer(output), 0.0)
    run_until_idle(scheduler)


def test_integrity_check_sees_a_leak() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"), 0.0)
    step(scheduler)
    scheduler.check_integrity()
    scheduler.kv_cache.pool.allocate(1)
    with pytest.raises(RuntimeError, match="reference counts"):
        scheduler.check_integrity()


def test_an_empty_scheduler_schedules_nothing() -> None:
    output = make_scheduler().schedule(0.0)
    assert output.scheduled == ()
    assert output.num_scheduled_tokens == 0


class TestAsynchronous:
    """`schedule` runs once ahead of the answers."""

    def test_a_draw_in_flight_is_taken_to_be_a_frame(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence("a", prompt=6, frames=8), 0.0)
        first = scheduler.schedule(0.0)
        second = scheduler.schedule(0.0)
        assert second.scheduled[0].num_computed_tokens == 6
        assert second.scheduled[0].samples
        (update,) = scheduler.update_from_output(first, answer(first), 0.0)
        assert update.num_frames == 1
        (update,) = scheduler.update_from_output(second, answer(second), 0.0)
        assert update.num_frames == 2

    def test_a_stop_frees_blocks_when_the_extra_step_is_answered(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence("a"), 0.0)
        first, second = scheduler.schedule(0.0), scheduler.schedule(0.0)
        (update,) = scheduler.update_from_output(first, answer(first, ["a"]), 0.0)
        assert update.finish_reason == "stop"
        assert scheduler.num_used_blocks > 0
        scheduler.check_integrity()
        assert scheduler.schedule(0.0).scheduled == ()
        assert scheduler.update_from_output(second, answer(second), 0.0) == []
        assert scheduler.num_used_blocks == 0
        assert not scheduler.has_work

    def test_nothing_is_scheduled_past_the_last_frame(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence("a", frames=1), 0.0)
        first = scheduler.schedule(0.0)
        assert scheduler.schedule(0.0).scheduled == ()
        (update,) = scheduler.update_from_output(first, answer(first), 0.0)
        assert update.finish_reason == "length"

    def test_abort_in_flight_holds_the_blocks_until_the_answer(self) -> None:
        scheduler = make_scheduler()
        scheduler.add(make_sequence("a"), 0.0)
        output = scheduler.schedule(0.0)
        assert scheduler.abort("a") is not None
        assert scheduler.abort("a") is None
        assert scheduler.num_used_blocks == 2
        assert scheduler.update_from_output(output, answer(output), 0.0) == []
        assert scheduler.num_used_blocks == 0
        scheduler.check_integrity()

    def test_a_sequence_that_ends_while_preempted_is_forgotten(self) -> None:
        scheduler = make_scheduler(max_num_seqs=1)
        scheduler.add(make_sequence("bulk", priority="bulk"), 0.0)
        first = scheduler.schedule(0.0)
        scheduler.add(make_sequence("live"), 0.0)
        second = scheduler.schedule(0.0)
        assert second.preempted == ("bulk",)
        (update,) = scheduler.update_from_output(first, answer(first, ["bulk"]), 0.0)
        assert (update.seq_id, update.finish_reason) == ("bulk", "stop")
        assert scheduler.num_waiting == 0
        scheduler.update_from_output(second, answer(second), 0.0)
        scheduler.check_integrity()
        run_until_idle(scheduler)
