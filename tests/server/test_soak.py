"""The short form of the soak: a minute of random traffic, failures and kills."""

from __future__ import annotations

import pytest

from stretto.benchmarks.soak import SoakConfig, soak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


async def test_a_minute_of_everything() -> None:
    report = await soak(SoakConfig(seconds=60.0, rate=10.0, kill_every_s=10.0))
    assert not report.problems
    assert report.statuses["200"] > 0
    assert report.kills > 0
