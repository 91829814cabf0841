"""A hundred paced streams through one server process: all whole, all on schedule."""

from __future__ import annotations

import pytest

from tests.server.paced_load import SECONDS, STREAMS, measure

# Seconds; generous, because the machine that runs the tests may be busy. Gaps, and streams that are
# encoded, are measured apart and recorded in benchmarks/RESULTS.md.
LATENESS_S = 300.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_hundred_streams() -> None:
    seen, _ = measure("pcm")
    assert len(seen) == STREAMS
    assert {stream.status for stream in seen} == {200}
    for stream in seen:
        assert stream.num_bytes == round(SECONDS * 24000) * 2
        assert len(stream.arrivals) > 5, "it must have come in pieces, as it was made"
        last = stream.arrivals[-1][0] - stream.started
        assert last < SECONDS + LATENESS_S
