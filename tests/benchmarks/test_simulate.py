"""The simulator: right on cases worked out by hand, and telling policies apart under load."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stretto.benchmarks import cli
from stretto.benchmarks.arrivals import ArrivalConfig
from stretto.benchmarks.calibration import collect, fit_costs
from stretto.benchmarks.metrics import summarize
from stretto.benchmarks.platform import (
    Costs,
    Platform,
    SimModel,
    VocoderWork,
    builtin_platforms,
    fit_points,
    interpolate,
)
from stretto.benchmarks.sim_executor import SimClock, SimExecutor, split
from stretto.benchmarks.simulate import POLICIES, SimConfig, simulate
from stretto.engine.config import EngineConfig
from stretto.scheduler.interfaces import VocoderBatch, VocoderJob

STEP_S, VOCODER_S = 0.01, 0.002

HAND = Platform(
    name="by-hand",
    costs=Costs(decode=((1.0, STEP_S),), vocoder=((1.0, VOCODER_S),)),
    model=SimModel(left_context=0, right_context=2, length_sigma=0.0, tokens_per_char=0.0),
)
SETTINGS = EngineConfig(first_chunk_frames=4, max_chunk_frames=48, chunk_growth=2.0)


def config(platform: Platform = HAND, **changes: Any) -> SimConfig:
    base = SimConfig(platform=platform, num_requests=1, engine=SETTINGS)
    return replace(base, **changes)


def test_the_first_chunk_comes_when_its_frames_do() -> None:
    records, _ = simulate(config(), frames_of=lambda text, seed: 100)
    (record,) = records
    # Four frames and two of look-ahead are six steps, then the vocoder.
    assert record.ttfa_s == pytest.approx(6 * STEP_S + VOCODER_S)
    assert record.audio_s == pytest.approx(100 / 46.875)


def test_time_passes_for_every_step_and_batch() -> None:
    records, duration_s = simulate(config(), frames_of=lambda text, seed: 4)
    # Four frames and the draw that ends them, then one vocoder batch.
    assert duration_s == pytest.approx(5 * STEP_S + VOCODER_S)
    assert records[0].e2e_s == pytest.approx(duration_s)


def test_a_chunk_costs_its_own_frames_and_a_first_one_its_lookahead() -> None:
    jobs = (
        VocoderJob("begins", 0, 4, 0, 9, is_last=False),
        VocoderJob("goes-on", 30, 50, 10, 55, is_last=False),
        VocoderJob("ends", 90, 100, 70, 100, is_last=True),
        VocoderJob("whole", 0, 6, 0, 6, is_last=True),
    )
    work = VocoderWork.of(VocoderBatch(jobs))
    assert work == VocoderWork(num_rows=4, num_frames=40, num_ahead_frames=5)
    costs = Costs(
        decode=((1.0, 0.0),),
        vocoder=((0.0, 1.0), (1.0, 3.0)),
        vocoder_s_per_ahead_frame=10.0,
        vocoder_s_per_row=100.0,
    )
    assert costs.vocoder_s(work) == 1 + 40 * 2 + 5 * 10 + 3 * 100


def test_a_vocoder_beside_the_steps_takes_none_of_their_time() -> None:
    """Six steps to the first chunk; it is heard after the step in which it became ready."""
    slow = replace(HAND.costs, vocoder=((1.0, 2.5 * STEP_S),))
    finished: dict[bool, float] = {}
    for beside in (False, True):
        platform = replace(HAND, costs=slow, vocoder_beside=beside)
        (record,), finished[beside] = simulate(config(platform), lambda text, seed: 100)
        assert record.ttfa_s == pytest.approx((9 if beside else 8.5) * STEP_S)
        assert record.audio_s == pytest.approx(100 / 46.875)
    assert finished[True] < finished[False]


def test_batching_shares_steps_and_serving_one_by_one_does_not() -> None:
    together = config(num_requests=8)
    _, shared = simulate(together, frames_of=lambda text, seed: 50)
    _, serial = simulate(replace(together, policy="serial"), frames_of=lambda text, seed: 50)
    assert shared < 60 * STEP_S + 50 * VOCODER_S
    assert serial > 8 * 50 * STEP_S


def test_replicas_divide_the_load() -> None:
    limited = replace(SETTINGS, max_num_seqs=4)
    one = config(num_requests=32, engine=limited)
    _, alone = simulate(one, frames_of=lambda text, seed: 50)
    _, four = simulate(replace(one, replicas=4), frames_of=lambda text, seed: 50)
    assert four < alone / 2.5


def test_the_least_loaded_router_evens_out_what_round_robin_does_not() -> None:
    limited = replace(SETTINGS, max_num_seqs=1)
    base = config(
        num_requests=40,
        replicas=2,
        engine=limited,
        arrivals=ArrivalConfig(rate=2.0, pattern="constant"),
    )

    def every_other_is_long(text: str, seed: int) -> int:
        return 80 if seed % 2 else 4

    waits = {}
    for router in ("round-robin", "least-loaded"):
        records, _ = simulate(replace(base, router=router), every_other_is_long)
        waits[router] = sum(record.ttfa_s or math.inf for record in records)
    assert waits["least-loaded"] < waits["round-robin"]


def test_every_policy_serves_everybody() -> None:
    for policy in POLICIES:
        records, _ = simulate(
            config(
                num_requests=30,
                policy=policy,
                arrivals=ArrivalConfig(rate=5.0),
                texts="all-mixed",
                bulk_share=0.2,
            )
        )
        assert len(records) == 30
        assert all(record.ok for record in records), policy


def test_deadlines_keep_listeners_from_running_dry() -> None:
    busy = Platform(
        name="busy",
        costs=Costs(decode=((1.0, 0.004), (64.0, 0.008)), vocoder=((0.0, 0.004), (1000.0, 0.06))),
        model=SimModel(left_context=52, right_context=52),
    )
    base = config(busy, num_requests=150, arrivals=ArrivalConfig(rate=8.0), engine=EngineConfig())
    underruns = {}
    for policy in ("stretto", "static"):
        records, duration_s = simulate(replace(base, policy=policy))
        underruns[policy] = summarize(records, duration_s)["p95_audio_ttfp_ms"]
    assert underruns["stretto"] < underruns["static"]


def test_a_simulation_is_repeatable() -> None:
    platform = builtin_platforms()["t4-assumed"]
    busy = config(platform, num_requests=40, arrivals=ArrivalConfig(rate=10.0))
    assert simulate(busy) == simulate(busy)
    assert simulate(busy) != simulate(replace(busy, seed=1))


def test_thousands_of_streams_at_once() -> None:
    platform = builtin_platforms()["h200-assumed"]
    crowd = config(platform, num_requests=2000, replicas=4, texts="en-short")
    records, _ = simulate(crowd)
    assert len(records) == 2000
    assert summarize(records, 1.0)["max_concurrent_requests"] == 2000


def test_platforms_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    HAND.save(path)
    assert Platform.load(path) == HAND
    path.write_text('{"name": "x", "costs": {"decode": [[1, 2]]}, "model": {"typo": 1}}')
    with pytest.raises(ValueError, match="typo"):
        Platform.load(path)


def test_costs_are_piecewise_linear_and_go_on_beyond_their_ends() -> None:
    points = ((1.0, 1.0), (3.0, 2.0), (5.0, 4.0))
    assert [interpolate(points, x) for x in (1, 2, 4, 6)] == [1.0, 1.5, 3.0, 5.0]
    assert fit_points([2, 1, 1, 1], [9, 1, 2, 30]) == ((1, 2.0), (2, 9.0))


def test_calibration_finds_the_costs_it_is_shown() -> None:
    true = Costs(
        decode=((1.0, 0.01), (8.0, 0.024)),
        prefill_s_per_token=1e-3,
        context_s_per_token=1e-5,
        vocoder=((0.0, 2e-3), (1000.0, 0.202)),
        vocoder_s_per_ahead_frame=3e-4,
        vocoder_s_per_row=5e-4,
    )
    clock = SimClock()
    executor = SimExecutor(Platform(name="true", costs=true, model=HAND.model), clock)
    samples = collect(executor, SETTINGS, (1, 2, 4, 8), 80, clock.read)
    found = fit_costs(samples)
    for num_seqs in (1, 3, 8):
        for num_tokens, context in ((num_seqs, 400), (num_seqs + 50, 100)):
            args = (num_seqs, num_tokens, context)
            assert found.step_s(*args) == pytest.approx(true.step_s(*args), rel=0.05)
    for work in (VocoderWork(1, 10, 4), VocoderWork(4, 100, 0), VocoderWork(8, 300, 16)):
        assert found.vocoder_s(work) == pytest.approx(true.vocoder_s(work), rel=0.05)


def test_texts_are_split_at_sentence_ends() -> None:
    assert (
        split("One. Two. Three.", 9) == ["One. Two.", " Three."]
        or len(split("One. Two. Three.", 10)) == 2
    )
    assert "".join(split("你好。再见。", 3)) == "你好。再见。"


def test_the_command_compares_policies(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    stem = tmp_path / "sim"
    argv = ["bench", "simulate", "--rates", "2,4", "--policies", "stretto,fifo"]
    argv += ["--duration", "3", "--output", str(stem)]
    assert cli.run(parser.parse_args(argv)) == 0
    points = json.loads((tmp_path / "sim.json").read_text())["points"]
    assert [(p["policy"], p["request_rate"]) for p in points] == [
        ("stretto", 2.0),
        ("stretto", 4.0),
        ("fifo", 2.0),
        ("fifo", 4.0),
    ]
    assert cli.run(parser.parse_args([*argv[:2], "--policies", "none"])) == 2
