"""Vocoder jobs: chunks and contexts, first chunks first, playback slack, no starvation."""

from __future__ import annotations

import math

import pytest

from stretto.scheduler.interfaces import VocoderJob
from stretto.scheduler.vocoder_scheduler import PATIENCE_S, VocoderScheduler
from tests.scheduler.factories import make_vocoder_scheduler


def add(
    scheduler: VocoderScheduler,
    seq_id: str,
    *,
    segment: int = 0,
    streaming: bool = True,
    low: bool = False,
    now: float = 0.0,
) -> None:
    request = seq_id.split("/")[0]
    scheduler.add(seq_id, request, segment, streaming=streaming, low_lookahead=low, now=now)


def jobs(scheduler: VocoderScheduler, now: float = 0.0) -> list[VocoderJob]:
    batch = scheduler.schedule(now)
    scheduler.check_integrity()
    return [] if batch is None else list(batch.jobs)


def spans(found: list[VocoderJob]) -> list[tuple[int, int, int, int, bool]]:
    return [(j.start, j.end, j.window_start, j.window_end, j.is_last) for j in found]


def test_a_chunk_waits_for_its_right_context() -> None:
    scheduler = make_vocoder_scheduler(left=3, right=2, first_frames=2)
    add(scheduler, "a")
    scheduler.update("a", 3, False, 0.0)
    assert jobs(scheduler) == []
    scheduler.update("a", 4, False, 0.0)
    assert scheduler.num_waiting == 1
    assert spans(jobs(scheduler)) == [(0, 2, 0, 4, False)]
    assert scheduler.num_waiting == 0


def test_chunks_grow_and_carry_both_contexts() -> None:
    scheduler = make_vocoder_scheduler(left=3, right=2, first_frames=2, growth=2.0, max_frames=6)
    add(scheduler, "a")
    found = []
    for frames in range(1, 31):
        scheduler.update("a", frames, frames == 30, 0.0)
        found += jobs(scheduler)
    assert spans(found) == [
        (0, 2, 0, 4, False),
        (2, 6, 0, 8, False),
        (6, 12, 3, 14, False),
        (12, 18, 9, 20, False),
        (18, 24, 15, 26, False),
        (24, 30, 21, 30, True),
    ]
    assert not scheduler.has_work


def test_a_segment_that_lags_behind_takes_a_larger_chunk() -> None:
    scheduler = make_vocoder_scheduler(first_frames=2, max_frames=8, right=2)
    add(scheduler, "a")
    scheduler.update("a", 13, False, 0.0)
    assert [(j.start, j.end) for j in jobs(scheduler)] == [(0, 2), (2, 10)]


def test_low_lookahead_cuts_do_not_depend_on_the_load() -> None:
    together = make_vocoder_scheduler(first_frames=2, max_frames=8, low_right=1)
    stepwise = make_vocoder_scheduler(first_frames=2, max_frames=8, low_right=1)
    for scheduler in (together, stepwise):
        add(scheduler, "a", low=True)
    together.update("a", 23, True, 0.0)
    found = []
    for frames in range(24):
        stepwise.update("a", frames, frames == 23, 0.0)
        found += jobs(stepwise)
    assert spans(found) == spans(jobs(together))
    assert spans(found)[0] == (0, 2, 0, 3, False)


def test_the_last_frame_is_kept_for_the_job_that_ends_the_sequence() -> None:
    scheduler = make_vocoder_scheduler(left=0, right=0, low_right=0, first_frames=2)
    add(scheduler, "a")
    scheduler.update("a", 2, False, 0.0)
    assert jobs(scheduler) == []
    scheduler.update("a", 2, True, 0.0)
    assert spans(jobs(scheduler)) == [(0, 2, 0, 2, True)]


def test_a_sequence_without_frames_gets_no_job() -> None:
    scheduler = make_vocoder_scheduler()
    add(scheduler, "a")
    scheduler.update("a", 0, True, 0.0)
    assert jobs(scheduler) == []
    assert not scheduler.has_work


def test_bulk_waits_for_its_end_and_is_cut_by_the_batch() -> None:
    scheduler = make_vocoder_scheduler(left=3, right=2, max_batch_frames=15, max_frames=4)
    add(scheduler, "a", streaming=False)
    scheduler.update("a", 22, False, 0.0)
    assert jobs(scheduler) == []
    scheduler.update("a", 22, True, 0.0)
    found = [*jobs(scheduler), *jobs(scheduler), *jobs(scheduler)]
    assert spans(found) == [(0, 10, 0, 12, False), (10, 20, 7, 22, False), (20, 22, 17, 22, True)]


def test_first_chunks_go_first_then_the_listener_who_runs_dry_first() -> None:
    scheduler = make_vocoder_scheduler(max_batch_frames=1, right=2, first_frames=2, frame_s=0.1)
    for seq_id, now in (("a", 0.0), ("b", 0.1)):
        add(scheduler, seq_id)
        scheduler.update(seq_id, 100, False, now)
        assert [j.seq_id for j in jobs(scheduler, now)] == [seq_id]
    # a has audio until 0.2, b until 0.3; c has none.
    add(scheduler, "c")
    scheduler.update("c", 4, False, 0.1)
    order = [jobs(scheduler, 0.1)[0].seq_id for _ in range(3)]
    assert order == ["c", "a", "b"]
    assert scheduler.slack("a", 0.1) == pytest.approx(0.2 + 0.8 - 0.1)


def test_a_segment_behind_the_one_heard_is_not_urgent() -> None:
    scheduler = make_vocoder_scheduler(max_batch_frames=1)
    add(scheduler, "r/0", segment=0)
    add(scheduler, "r/1", segment=1)
    add(scheduler, "other")
    scheduler.update("r/1", 50, False, 0.0)
    scheduler.update("other", 50, False, 1.0)
    scheduler.update("r/0", 5, False, 2.0)
    order = [jobs(scheduler, 3.0)[0].seq_id for _ in range(3)]
    assert order == ["other", "r/0", "other"]
    # Audio of the segment behind counts only once the gap before it is closed.
    found = []
    while batch := jobs(scheduler, 3.0):
        found += [j.seq_id for j in batch]
    assert found[-6:] == ["r/1"] * 6
    assert scheduler.slack("r", 3.0) == pytest.approx(0.2)
    scheduler.update("r/0", 5, True, 3.0)
    jobs(scheduler, 3.0)
    assert scheduler.slack("r", 3.0) == pytest.approx(0.5 + 4.2)


def test_bulk_is_as_urgent_as_a_listener_after_its_patience() -> None:
    scheduler = make_vocoder_scheduler(max_batch_frames=1, frame_s=1.0, first_frames=8)
    add(scheduler, "bulk", streaming=False)
    scheduler.update("bulk", 8, True, 0.0)
    add(scheduler, "live")
    scheduler.update("live", 100, False, 0.0)
    order = [jobs(scheduler, 0.0)[0].seq_id for _ in range(4)]
    assert PATIENCE_S == 10.0
    assert order == ["live", "live", "bulk", "live"]  # the listener has audio for 16 s


def test_delivery_later_than_scheduled_moves_the_deadline() -> None:
    scheduler = make_vocoder_scheduler(frame_s=0.1, first_frames=2)
    add(scheduler, "a")
    scheduler.update("a", 5, False, 0.0)
    assert scheduler.slack("a", 0.0) is None
    jobs(scheduler, 0.0)
    assert scheduler.slack("a", 0.0) == pytest.approx(0.2)
    scheduler.delivered("a", 2, 0.5)
    assert scheduler.slack("a", 0.5) == pytest.approx(0.2)
    scheduler.delivered("gone", 2, 0.5)


def test_batches_are_filled_up_to_their_size() -> None:
    scheduler = make_vocoder_scheduler(max_batch_frames=10, right=2, first_frames=2)
    for i in range(5):
        add(scheduler, f"s{i}")
        scheduler.update(f"s{i}", 4, False, float(i))
    assert [[j.seq_id for j in jobs(scheduler, 5.0)] for _ in range(4)] == [
        ["s0", "s1"],
        ["s2", "s3"],
        ["s4"],
        [],
    ]


def test_a_job_larger_than_a_batch_runs_alone() -> None:
    scheduler = make_vocoder_scheduler(max_batch_frames=2, first_frames=4)
    add(scheduler, "a")
    scheduler.update("a", 10, False, 0.0)
    assert len(jobs(scheduler)) == 1


def test_the_next_deadline_is_that_of_the_most_urgent_job() -> None:
    scheduler = make_vocoder_scheduler(max_batch_frames=1, frame_s=0.1, first_frames=2)
    assert scheduler.next_deadline() is None
    add(scheduler, "a")
    scheduler.update("a", 20, False, 1.0)
    assert scheduler.next_deadline() == -math.inf
    jobs(scheduler, 1.0)
    assert scheduler.next_deadline() == pytest.approx(1.2)
    scheduler.abort("a")
    assert scheduler.next_deadline() is None


def test_waits_are_measured() -> None:
    scheduler = make_vocoder_scheduler()
    add(scheduler, "a")
    scheduler.update("a", 4, False, 1.0)
    scheduler.update("a", 5, False, 2.0)
    assert jobs(scheduler, 3.5)[0].waited_s == pytest.approx(2.5)


def test_abort_forgets_and_passes_the_turn() -> None:
    scheduler = make_vocoder_scheduler()
    add(scheduler, "r/0", segment=0)
    add(scheduler, "r/1", segment=1)
    scheduler.update("r/0", 50, False, 0.0)
    scheduler.abort("r/0")
    scheduler.abort("r/0")
    scheduler.update("r/0", 60, False, 0.0)
    scheduler.update("r/1", 4, False, 0.0)
    assert [j.seq_id for j in jobs(scheduler)] == ["r/1"]
    scheduler.abort("r/1")
    assert not scheduler.has_work
    scheduler.check_integrity()


def test_ids_and_segments_are_unique() -> None:
    scheduler = make_vocoder_scheduler()
    add(scheduler, "a")
    with pytest.raises(ValueError, match="live already"):
        add(scheduler, "a")
    with pytest.raises(ValueError, match="has a segment 0 already"):
        add(scheduler, "a/again")
    scheduler.check_integrity()
