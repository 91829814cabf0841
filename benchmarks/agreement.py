"""`stretto bench agreement`: does the simulator tell the truth about this machine?

Measures the costs of the loaded model before and after a load on the real engine, runs the same
load with the same numbers of frames in the simulator on those costs, and compares. Both go through
the same driver and the same engine core; the executor and the clock differ.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine.build import assemble_core
from ..engine.config import EngineConfig
from .arrivals import ArrivalConfig, arrival_times
from .calibration import Calibrator
from .drive import Arrival, CpuClock, Replica, WallClock, drive
from .engine_setup import add_engine_arguments, describe_engine, engine_config, load_executor
from .metrics import summarize
from .platform import Platform
from .recording import RecordingExecutor
from .report import environment, write_json
from .sim_executor import SimClock, SimExecutor
from .step import measured_platform
from .workload import load_texts, spread_frames

COMPARED = {
    "TTFA p50 ms": "p50_audio_ttfp_ms",
    "TTFA p95 ms": "p95_audio_ttfp_ms",
    "end to end p50 ms": "p50_e2el_ms",
    "audio s/s": "audio_throughput",
    "requests/s": "request_throughput",
}
DECIDING = ("TTFA p50 ms", "audio s/s")
CALIBRATION_SEEDS = (1000, 2000)
"""Of the loads before and after the real run, whose texts they do not use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench agreement`."""
    add_engine_arguments(parser)
    group = parser.add_argument_group("load")
    group.add_argument("--request-rate", type=float, default=2.0)
    group.add_argument("--num-requests", type=int, default=24)
    group.add_argument("--frames", type=int, default=64, help="longest; the shortest has a quarter")
    group.add_argument("--texts", default="en-short")
    group.add_argument("--load-seed", type=int, default=0)
    group.add_argument("--tolerance", type=float, default=0.15, help="fails above it")
    group.add_argument("--calibration-sizes", default="1,2,4,8,16", help="sequences, a,b,c")
    group.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: CPU seconds of one thread, for machines that others use too",
    )
    group.add_argument("--output", type=Path, help="write the comparison as JSON")
    group.add_argument("--platform-out", type=Path, help="write the costs for `bench simulate`")


def make_arrivals(args: argparse.Namespace) -> list[Arrival]:
    """The load: numbers of frames are fixed, so that both sides have the same work."""
    config = ArrivalConfig(rate=args.request_rate)
    times = arrival_times(config, seed=args.load_seed, num_requests=args.num_requests)
    texts = load_texts(args.texts, len(times), args.load_seed)
    return [
        Arrival(i, at, text, frames=spread_frames(args.frames, i))
        for i, (at, text) in enumerate(zip(times, texts, strict=True))
    ]


def run_real(
    executor: Any, config: EngineConfig, arrivals: list[Arrival], clock: WallClock | CpuClock
) -> dict[str, Any]:
    """The load on the loaded model. CPU seconds are those of all threads, so that on their clock
    nothing may run beside anything else."""
    if isinstance(clock, CpuClock):
        executor = RecordingExecutor(executor, clock.read)
    core = assemble_core(executor, replace(config, warmup=False))
    core.clock = clock.read
    records, duration_s = drive([Replica(core, clock)], arrivals)
    return summarize(records, duration_s)


def run_simulated(
    platform: Platform, executor: Any, config: EngineConfig, arrivals: list[Arrival]
) -> dict[str, Any]:
    """The same load on simulated costs; texts are cut by the real frontend."""
    clock = SimClock()
    simulated = SimExecutor(platform, clock, lambda text, seed: 1_000_000)
    simulated.frontend, simulated.model_info = executor.frontend, executor.model_info
    core = assemble_core(simulated, replace(config, warmup=False))
    core.clock = clock.read
    records, duration_s = drive([Replica(core, clock)], arrivals)
    return summarize(records, duration_s)


def compare(real: dict[str, Any], simulated: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per compared number; `error` is the simulation's relative deviation."""
    return [
        {
            "metric": title,
            "real": real[key],
            "simulated": simulated[key],
            "error": simulated[key] / real[key] - 1,
        }
        for title, key in COMPARED.items()
    ]


def run(args: argparse.Namespace) -> int:
    """Run `bench agreement`; 0 when TTFA p50 and throughput agree within the tolerance."""
    config = engine_config(args)
    executor = load_executor(config)
    sizes = [int(item) for item in args.calibration_sizes.split(",")]
    on_cpu_time = args.clock == "cpu"
    arrivals = make_arrivals(args)
    clock: WallClock | CpuClock = CpuClock() if on_cpu_time else WallClock()
    texts = [arrival.text for arrival in arrivals]
    before, after = (
        Calibrator(executor, config, clock, args.texts, texts, seed) for seed in CALIBRATION_SEEDS
    )
    measured = before.run(sizes, args.frames)
    real = run_real(executor, config, arrivals, clock)
    measured = measured + after.run(sizes, args.frames)
    platform = measured_platform("agreement", executor, measured)
    if on_cpu_time:
        platform = replace(platform, vocoder_beside=False)
    if args.platform_out is not None:
        platform.save(args.platform_out)
    rows = compare(real, run_simulated(platform, executor, config, arrivals))
    print(f"{'':<20}{'real':>12}{'simulated':>12}{'error':>9}")
    for row in rows:
        print(
            f"{row['metric']:<20}{row['real']:>12.2f}{row['simulated']:>12.2f}{row['error']:>+9.1%}"
        )
    worst = max(abs(row["error"]) for row in rows if row["metric"] in DECIDING)
    print(f"worst of {' and '.join(DECIDING)}: {worst:.1%}, tolerance {args.tolerance:.0%}")
    if args.output is not None:
        write_json(
            args.output,
            {**environment(), **describe_engine(config), "clock": args.clock, "rows": rows},
        )
    executor.close()
    return 0 if worst <= args.tolerance else 1
