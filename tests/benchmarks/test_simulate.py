"""The simulator: right on cases worked out by hand, and telling policies apart under load."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stretto.benchmarks import cli
from stretto.benchmarks.arrivals import ArrivalConfig
from stretto.benchmarks.calibration import Calibrator, Samples, fit_costs, fit_silence
from stretto.benchmarks.drive import Arrival, Replica, drive
from stretto.benchmarks.metrics import summarize
from stretto.benchmarks.platform import (
    Costs,
    Platform,
    SimModel,
    VocoderWork,
    builtin_platforms,
    fit_points,
    interpolate,
    within,
)
from stretto.benchmarks.sim_executor import SimClock, SimExecutor, SimFrontend, split
from stretto.benchmarks.simulate import POLICIES, SimConfig, simulate
from stretto.benchmarks.workload import load_texts, spread_frames
from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.request import SpeechRequest
from stretto.model_executor.interfaces import Prompt, SpeechEdges
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


def test_steps_and_vocoder_side_by_side_slow_each_other() -> None:
    """A batch of two steps' length, beside it, takes half as long again, and they twice as long."""
    costs = replace(
        HAND.costs,
        vocoder=((1.0, 2 * STEP_S),),
        step_slowdown=((1.0, 2.0),),
        vocoder_slowdown=((1.0, 1.5),),
    )
    platform = replace(HAND, costs=costs, vocoder_beside=True)
    (record,), _ = simulate(config(platform), lambda text, seed: 100)
    # Of its three steps' time one step takes two; the next is half done when the batch is, and
    # does its other half at its own pace.
    assert record.ttfa_s == pytest.approx((6 + 2 + 1.5) * STEP_S)


def test_few_wait_for_a_beginning_where_the_platform_does() -> None:
    slow = replace(
        HAND.costs,
        vocoder=((1.0, 2.5 * STEP_S),),
        vocoder_slowdown=((1.0, 9.0),),
        step_after_batch=((1.0, STEP_S),),
    )
    waits = replace(HAND, costs=slow, vocoder_beside=True, waits_for_beginnings=True)
    records, _ = simulate(config(waits), lambda text, seed: 100)
    assert records[0].ttfa_s == pytest.approx(8.5 * STEP_S)
    hasty = replace(waits, waits_for_beginnings=False)
    records, _ = simulate(config(hasty), lambda text, seed: 100)
    assert records[0].ttfa_s == pytest.approx((6 + 23) * STEP_S)


def test_what_was_before_a_step_makes_it_longer() -> None:
    """Five seconds of silence before the second request; its first step is cold, and its batch."""
    costs = replace(
        HAND.costs,
        cold_after_s=4.0,
        cold_step=((0.0, 3 * STEP_S),),
        cold_vocoder=((0.0, 5 * VOCODER_S),),
        step_after_batch=((1.0, 2 * STEP_S),),
        request_s=STEP_S / 2,
    )
    arrivals = ArrivalConfig(rate=0.2, pattern="constant")
    case = config(replace(HAND, costs=costs), num_requests=2, arrivals=arrivals)
    records, _ = simulate(case, lambda text, seed: 7)
    second = records[1]
    assert second.ttfa_s == pytest.approx((6 + 3 + 0.5) * STEP_S + 6 * VOCODER_S)
    # Two more steps and the draw that ends it, the first of them after a batch; then a batch.
    rest_s = (2 + 2) * STEP_S + VOCODER_S
    assert second.e2e_s - (second.ttfa_s or 0.0) == pytest.approx(rest_s)


def test_cold_starts_spread_as_those_that_were_measured() -> None:
    """A fast half, a slow half; and a tenth of the pause that it takes is a tenth as bad."""
    spread = ((0.0, 0.0), (0.499, 0.0), (0.501, 5 * STEP_S), (1.0, 5 * STEP_S))
    costs = replace(HAND.costs, cold_after_s=1.0, cold_step=spread)
    arrivals = ArrivalConfig(rate=0.2, pattern="constant")
    case = config(replace(HAND, costs=costs), num_requests=60, arrivals=arrivals)
    records, _ = simulate(case, lambda text, seed: 7)
    base_s = 6 * STEP_S + VOCODER_S
    extra = [round(((record.ttfa_s or 0.0) - base_s) / STEP_S, 3) for record in records]
    assert set(extra) == {0.0, 5.0}
    assert 15 < extra.count(5.0) < 45
    slow = replace(costs, cold_after_s=50.0, cold_step=((0.0, 5 * STEP_S),))
    records, _ = simulate(replace(case, platform=replace(HAND, costs=slow)), lambda text, seed: 7)
    assert records[1].ttfa_s == pytest.approx(base_s + 0.5 * STEP_S, rel=0.02)


def test_quiet_ends_are_cut_as_real_ones_are() -> None:
    """The frontend asks for 0.1 s of silence before and 0.2 s after."""
    model = replace(HAND.model, quiet_lead_s=0.35, quiet_tail_s=0.5)
    clock = SimClock()
    executor = SimExecutor(replace(HAND, model=model), clock, lambda text, seed: 100)
    executor.frontend = TrimmingFrontend(model)
    core = assemble_core(executor, replace(SETTINGS, warmup=False))
    core.clock = clock.read
    (record,), _ = drive([Replica(core, clock)], [Arrival(0, 0.0, "Some text.")])
    assert record.audio_s == pytest.approx(100 / 46.875 - 0.25 - 0.3, abs=1e-3)


class TrimmingFrontend(SimFrontend):
    """A `SimFrontend` whose segments say how much silence they want around them."""

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        edges = SpeechEdges(threshold=0.01, lead_s=0.1, tail_s=0.2)
        return [replace(prompt, edges=edges) for prompt in super().encode(request)]


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


TRUE = Costs(
    decode=((1.0, 0.01), (8.0, 0.024)),
    prefill_s_per_token=1e-3,
    context_s_per_token=1e-5,
    vocoder=((0.0, 2e-3), (1000.0, 0.202)),
    vocoder_s_per_ahead_frame=3e-4,
    vocoder_s_per_row=5e-4,
)


def calibrated(true: Costs, *, beside: bool, model: SimModel = HAND.model) -> Samples:
    """What the calibration sees of a machine with these costs."""
    clock = SimClock()
    platform = Platform(
        name="true", costs=true, model=model, vocoder_beside=beside, waits_for_beginnings=beside
    )
    executor = SimExecutor(platform, clock)
    if model.quiet_lead_s:
        executor.frontend = TrimmingFrontend(model)
    return Calibrator(executor, SETTINGS, clock).run((1, 2, 4, 8), 80)


@pytest.mark.parametrize("beside", [False, True])
def test_calibration_finds_the_costs_it_is_shown(beside: bool) -> None:
    found = fit_costs(calibrated(TRUE, beside=beside))
    for num_seqs in (1, 3, 8):
        for num_tokens, context in ((num_seqs, 400), (num_seqs + 50, 100)):
            args = (num_seqs, num_tokens, context)
            assert found.step_s(*args) == pytest.approx(TRUE.step_s(*args), rel=0.05)
    for work in (VocoderWork(1, 10, 4), VocoderWork(4, 100, 0), VocoderWork(8, 300, 16)):
        assert found.vocoder_s(work) == pytest.approx(TRUE.vocoder_s(work), rel=0.05)
    for points in (found.step_slowdown, found.vocoder_slowdown):
        assert [factor for _, factor in points] == pytest.approx([1.0] * len(points), rel=0.1)
    assert within(found.cold_step, 0.5) == pytest.approx(0.0, abs=1e-3)


def test_calibration_finds_what_service_adds() -> None:
    true = replace(
        TRUE,
        vocoder=((0.0, 0.1), (1000.0, 0.3)),
        step_slowdown=((1.0, 1.5), (8.0, 1.2)),
        vocoder_slowdown=((1.0, 1.8), (8.0, 1.4)),
        step_after_batch=((1.0, 0.004),),
        cold_after_s=0.05,
        cold_step=((0.0, 0.03),),
    )
    found = fit_costs(calibrated(true, beside=True))
    for size in (1, 8):
        for points, wanted in (
            (found.step_slowdown, true.step_slowdown),
            (found.vocoder_slowdown, true.vocoder_slowdown),
        ):
            assert within(points, size) == pytest.approx(within(wanted, size), rel=0.1)
    assert within(found.step_after_batch, 1) == pytest.approx(0.004, rel=0.1)
    assert found.cold_after_s == 0.05
    assert within(found.cold_step, 0.5) == pytest.approx(0.03, rel=0.15)


def test_calibration_hears_the_silence_at_the_ends() -> None:
    model = replace(HAND.model, quiet_lead_s=0.05, quiet_tail_s=0.15)
    samples = calibrated(TRUE, beside=True, model=model)
    found = fit_silence(samples, HAND.model)
    assert found.quiet_lead_s == pytest.approx(0.05, abs=1e-3)
    assert found.quiet_tail_s == pytest.approx(0.15, abs=1e-3)
    assert fit_silence(Samples(), model) == model


def test_calibration_takes_other_texts_than_the_measurement() -> None:
    clock = SimClock()
    executor = SimExecutor(HAND, clock)
    spoken: list[str] = []

    class Noting(SimFrontend):
        def encode(self, request: SpeechRequest) -> list[Prompt]:
            spoken.append(request.text)
            return super().encode(request)

    executor.frontend = Noting(HAND.model)
    avoid = load_texts("en-short", 20, 0)
    Calibrator(executor, SETTINGS, clock, avoid=avoid).run((1, 4), 20)
    assert spoken
    assert not set(spoken) & set(avoid)


def test_fixed_lengths_fill_their_range_wherever_one_begins() -> None:
    for first in (0, 1000):
        lengths = sorted(spread_frames(120, first + index) for index in range(30))
        assert lengths[0] >= 30
        assert lengths[-1] <= 120
        gaps = [b - a for a, b in itertools.pairwise([30, *lengths, 120])]
        assert max(gaps) <= 9


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
