"""Arrivals, players, objectives, texts and the capacity search: exact, without a server."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stretto.benchmarks.arrivals import ArrivalConfig, Ramp, arrival_times
from stretto.benchmarks.capacity import search
from stretto.benchmarks.metrics import Plausibility, concurrency, statistics
from stretto.benchmarks.playback import ChunkArrival, buffer_levels, play, time_heard
from stretto.benchmarks.record import RequestRecord
from stretto.benchmarks.slo import Slo
from stretto.benchmarks.workload import TEXT_SETS, load_texts


@pytest.mark.parametrize("pattern", ["poisson", "constant", "gamma", "burst"])
def test_every_pattern_offers_its_rate(pattern: Any) -> None:
    config = ArrivalConfig(rate=20.0, pattern=pattern, burstiness=0.5, burst_size=4)
    times = arrival_times(config, seed=3, num_requests=4000)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(200.0, rel=0.1)
    assert times == arrival_times(config, seed=3, num_requests=4000)


def test_burstiness_sets_the_spread_of_gaps() -> None:
    spread = {}
    for shape in (0.25, 1.0, 16.0):
        config = ArrivalConfig(rate=1.0, pattern="gamma", burstiness=shape)
        gaps = np.diff(arrival_times(config, seed=0, num_requests=5000))
        spread[shape] = float(gaps.std() / gaps.mean())
    assert spread[0.25] > 1.5 > spread[1.0] > 0.8 > 0.4 > spread[16.0]


def test_bursts_come_in_groups() -> None:
    config = ArrivalConfig(rate=6.0, pattern="burst", burst_size=3)
    groups = Counter(arrival_times(config, seed=0, num_requests=9))
    assert list(groups.values()) == [3, 3, 3]


def test_a_ramp_moves_the_rate_and_a_duration_bounds_it() -> None:
    ramp = Ramp(strategy="linear", start=2.0, end=20.0)
    times = np.array(arrival_times(ArrivalConfig(ramp=ramp), seed=1, duration_s=60.0))
    assert times.max() <= 60.0
    early, late = (times < 20).sum(), (times > 40).sum()
    assert late > 2 * early
    assert Ramp(strategy="exponential", start=1.0, end=16.0).rate_at(0.5) == pytest.approx(4.0)


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"burstiness": 0.0}, {"burst_size": 0}])
def test_impossible_arrivals_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"above 0|1 or more"):
        ArrivalConfig(**bad)
    with pytest.raises(ValueError, match="number of requests"):
        arrival_times(ArrivalConfig(), seed=0, duration_s=1.0)


def stream(*chunks: tuple[float, float]) -> tuple[ChunkArrival, ...]:
    return tuple(ChunkArrival(at, audio) for at, audio in chunks)


def test_a_player_stalls_by_exactly_what_is_late() -> None:
    late = stream((1.0, 0.5), (1.4, 0.5), (4.0, 0.5), (4.1, 0.5))
    played = play(late)
    assert (played.start_s, played.underruns) == (1.0, 1)
    assert played.stall_s == pytest.approx(2.0)
    assert play(late, prebuffer_s=0.6).start_s == 1.4
    assert play(late, prebuffer_s=0.6).stall_s == pytest.approx(1.6)
    assert play(late, prebuffer_s=100).underruns == 0
    assert play(()).start_s is None


def test_a_position_is_heard_after_the_stalls_before_it() -> None:
    chunks = stream((1.0, 0.5), (3.0, 0.5))
    assert time_heard(chunks, 0.25) == pytest.approx(1.25)
    assert time_heard(chunks, 0.75) == pytest.approx(3.25)
    assert time_heard(chunks, 1.5) is None


def test_the_buffer_never_holds_less_than_nothing() -> None:
    corners = buffer_levels(stream((1.0, 0.5), (3.0, 0.5)))
    assert corners == [(1.0, 0.0), (1.0, 0.5), (1.5, 0.0), (3.0, 0.0), (3.0, 0.5), (3.5, 0.0)]


def record(*, ttfa_s: float = 0.1, chunks: Any = None, **fields: Any) -> RequestRecord:
    whole = chunks or stream((ttfa_s, 1.0))
    defaults: dict[str, Any] = {
        "index": 0,
        "text": "hello there",
        "arrival_s": 0.0,
        "sent_s": 0.0,
        "e2e_s": 1.0,
        "chunks": whole,
        "audio_s": sum(chunk.audio_s for chunk in whole),
        "ttfa_s": ttfa_s,
        "ttfa_audible_s": ttfa_s,
    }
    return RequestRecord(**{**defaults, **fields})


def test_goodput_asks_every_limit_of_every_request() -> None:
    slo = Slo.parse("ttfa_p95_ms=300, underrun_rate=0.01")
    assert slo.is_good(record())
    assert not slo.is_good(record(ttfa_s=0.4))
    assert not slo.is_good(record(chunks=stream((0.1, 0.1), (2.0, 0.1))))
    assert not slo.is_good(record(error_kind="http_500"))
    assert slo.violations({"p95_audio_ttfp_ms": 299.0, "underrun_rate": 0.0}) == []
    assert len(slo.violations({"p95_audio_ttfp_ms": 301.0, "underrun_rate": None})) == 2


@pytest.mark.parametrize("bad", ["", "ttfa=3", "ttfa_p95_ms", "ttfa_p95_s=1", "foo_p95_ms=1"])
def test_a_malformed_slo_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="SLO"):
        Slo.parse(bad)


def test_statistics_of_nothing_are_nothing() -> None:
    assert set(statistics("e2el", []).values()) == {None}
    assert statistics("e2el", [0.1, 0.3])["mean_e2el_ms"] == pytest.approx(200.0)


def test_concurrency_counts_requests_in_flight() -> None:
    steps = concurrency([record(e2e_s=2.0), record(sent_s=1.0, e2e_s=2.0)])
    assert steps == [(0.0, 1), (1.0, 2), (2.0, 1), (3.0, 0)]


def test_audio_too_short_or_too_long_for_its_text_is_suspect() -> None:
    bounds = Plausibility()
    assert bounds.verdict("a" * 100, 1.0) == "too_short"
    assert bounds.verdict("hello", 10.0) == "too_long"
    assert bounds.verdict("hello there", 0.7) is None
    assert bounds.verdict("你" * 20, 1.0) == "too_short"


@pytest.mark.parametrize("name", TEXT_SETS)
def test_text_sets_are_drawn_by_their_seed(name: str) -> None:
    texts = load_texts(name, 30, 5)
    assert texts == load_texts(name, 30, 5)
    assert texts != load_texts(name, 30, 6)
    assert all(text.strip() for text in texts)


def test_longer_sets_are_longer() -> None:
    lengths = [
        np.median([len(t) for t in load_texts(f"en-{s}", 100, 0)])
        for s in ("short", "medium", "long")
    ]
    assert lengths == sorted(lengths)
    assert lengths[2] > 2 * lengths[0]


def test_texts_from_files(tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_text("one\n\ntwo\n", encoding="utf-8")
    assert sorted(load_texts(str(plain), 4, 0)) == ["one", "one", "two", "two"]
    lines = tmp_path / "b.jsonl"
    lines.write_text('{"input": "one"}\n"two"\n', encoding="utf-8")
    assert sorted(load_texts(str(lines), 2, 0)) == ["one", "two"]
    lines.write_text('{"x": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="input"):
        load_texts(str(lines), 1, 0)
    with pytest.raises(ValueError, match="unknown text set"):
        load_texts("no-such", 1, 0)


@pytest.mark.parametrize("true_capacity", [0.3, 3.7, 40.0])
def test_the_search_brackets_the_capacity(true_capacity: float) -> None:
    probed: list[float] = []

    async def probe(rate: float) -> dict[str, Any]:
        probed.append(rate)
        return {"slo_met": rate <= true_capacity}

    found = asyncio.run(search(probe, start=1.0, limit=100.0, tolerance=0.05))
    assert found.broken_at is not None
    assert found.rate <= true_capacity < found.broken_at
    assert found.broken_at - found.rate <= 0.05 * found.broken_at
    assert len(probed) < 16


def test_the_search_stops_at_its_limits() -> None:
    async def always(_: float) -> dict[str, Any]:
        return {"slo_met": True}

    async def never(_: float) -> dict[str, Any]:
        return {"slo_met": False}

    best = asyncio.run(search(always, start=1.0, limit=10.0, tolerance=0.05))
    assert (best.rate, best.broken_at) == (10.0, None)
    worst = asyncio.run(search(never, start=1.0, limit=10.0, tolerance=0.05))
    assert worst.rate == 0.0
    assert worst.broken_at is not None
    assert math.isfinite(worst.broken_at)
