"""The short form of the soak: a minute of random traffic, failures and kills; and its judgement."""

from __future__ import annotations

import pytest

from stretto.benchmarks.soak import IdleLevel, SoakConfig, judge_memory, soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_minute_of_everything() -> None:
    report = await soak(SoakConfig(seconds=60.0, rate=10.0, kill_every_s=6.0, rounds=4))
    assert not report.problems, report
    assert len(report.idle) == 4
    assert report.statuses["200"] > 0
    assert report.kills > 0


@pytest.mark.parametrize(
    ("mib_per_round", "objects_per_round", "problems"),
    [(0.0, 0, 0), (10.0, 1_000, 0), (20.0, 0, 1), (0.0, 3_000, 1), (20.0, 3_000, 2)],
)
def test_memory_is_judged_at_rest_after_equal_rounds(
    mib_per_round: float, objects_per_round: int, problems: int
) -> None:
    warm_up = IdleLevel(rss_mib=10.0, objects=0)  # what is loaded in the first round is no leak
    levels = [
        IdleLevel(rss_mib=150 + i * mib_per_round, objects=60_000 + i * objects_per_round)
        for i in range(5)
    ]
    assert len(judge_memory([warm_up, *levels], SoakConfig())) == problems
