"""`stretto bench simulate`: the whole engine on a simulated clock.

Arrivals, the real engine core with both schedulers, several replicas behind a router, and the
listeners' players; only the device is replaced by a table of costs. It answers what a machine with
those costs would do under a load, and compares scheduling policies on it, without that machine.
It is as true as its costs: `bench agreement` checks it against a run of the real engine.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from ..engine.build import assemble_core
from ..engine.config import EngineConfig
from ..scheduler.vocoder_scheduler import VocoderScheduler
from .arrivals import ARRIVALS, ArrivalConfig, arrival_times
from .drive import ROUTERS, Arrival, Replica, Router, drive
from .metrics import summarize
from .platform import Platform, builtin_platforms, find_platform
from .plots import plot_sweep
from .record import RequestRecord
from .report import environment, summary, write_json, write_jsonl
from .sim_executor import FrameCount, SimClock, SimExecutor
from .slo import Slo
from .workload import TEXT_SETS, load_texts

Records = list[RequestRecord]


class FifoVocoderScheduler(VocoderScheduler):
    """The policy to compare with: whoever's frames were ready first, whether starving or not."""

    def _urgency(self, segment: Any) -> tuple[int, float]:
        return 1, segment.ready_at


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to schedule.

    Attributes:
        text: what it stands for.
        vocoder: its vocoder scheduler.
        static: whether requests are batched once instead of continuously.
        changes: of the engine's settings.
    """

    text: str
    vocoder: type[VocoderScheduler] = VocoderScheduler
    static: bool = False
    changes: dict[str, Any] = field(default_factory=dict)


POLICIES: dict[str, Policy] = {
    "stretto": Policy("continuous batching, vocoder jobs by playback deadline, growing chunks"),
    "fifo": Policy("the same, vocoder jobs first come, first served", FifoVocoderScheduler),
    "static": Policy("a batch runs to its end before the next one starts", static=True),
    "serial": Policy("one request at a time", static=True, changes={"max_num_seqs": 1}),
    "even-chunks": Policy(
        "all chunks of 24 frames", changes={"first_chunk_frames": 24, "max_chunk_frames": 24}
    ),
    "small-chunks": Policy(
        "all chunks of 4 frames", changes={"first_chunk_frames": 4, "max_chunk_frames": 4}
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """One simulation.

    Attributes:
        platform: shape and costs.
        arrivals: the arrival process; an infinite rate sends all requests at zero.
        texts: set or file.
        num_requests: to send, unless `duration_s` ends first.
        duration_s: of the arrivals.
        seed: of arrivals and texts.
        replicas: engines behind the router.
        router: how it chooses.
        policy: name of one of `POLICIES`.
        engine: settings of each engine.
        bulk_share: fraction of requests that are bulk.
    """

    platform: Platform
    arrivals: ArrivalConfig = field(default_factory=ArrivalConfig)
    texts: str = "en-medium"
    num_requests: int | None = None
    duration_s: float | None = None
    seed: int = 0
    replicas: int = 1
    router: Router = "least-loaded"
    policy: str = "stretto"
    engine: EngineConfig = field(default_factory=EngineConfig)
    bulk_share: float = 0.0


def make_replica(config: SimConfig, frames_of: FrameCount | None = None) -> Replica:
    """An engine core on a simulated executor and clock."""
    policy = POLICIES[config.policy]
    clock = SimClock()
    settings = replace(config.engine, warmup=False, **policy.changes)
    core = assemble_core(SimExecutor(config.platform, clock, frames_of), settings)
    core.clock = clock.read
    if policy.vocoder is not VocoderScheduler:
        core.vocoder_scheduler = policy.vocoder(core.vocoder_scheduler.config)
    return Replica(core, clock, settings.max_num_seqs if policy.static else None)


def make_arrivals(config: SimConfig) -> list[Arrival]:
    """The load; every `1 / bulk_share`-th request is bulk."""
    times = arrival_times(
        config.arrivals,
        seed=config.seed,
        num_requests=config.num_requests,
        duration_s=config.duration_s,
    )
    texts = load_texts(config.texts, len(times), config.seed)
    share = config.bulk_share
    return [
        Arrival(i, at, text, "bulk" if int((i + 1) * share) > int(i * share) else "interactive")
        for i, (at, text) in enumerate(zip(times, texts, strict=True))
    ]


def simulate(config: SimConfig, frames_of: FrameCount | None = None) -> tuple[Records, float]:
    """Run one simulation: records of all requests, and simulated seconds to the last end."""
    replicas = [make_replica(config, frames_of) for _ in range(config.replicas)]
    records, duration_s = drive(replicas, make_arrivals(config), config.router)
    for replica in replicas:
        replica.core.check_integrity()
    return records, duration_s


def report_of(config: SimConfig, slo: Slo | None) -> tuple[dict[str, Any], Records]:
    """Simulate and summarise; nobody listens to bulk requests, so they count only in totals."""
    started = perf_counter()
    records, duration_s = simulate(config)
    arrivals = make_arrivals(config)
    heard = [r for r in records if arrivals[r.index].priority == "interactive"]
    report = summarize(heard, duration_s, slo=slo)
    report["audio_throughput_with_bulk"] = sum(r.audio_s for r in records) / max(duration_s, 1e-9)
    facts = {
        "platform": config.platform.name,
        "platform_source": config.platform.source,
        "policy": config.policy,
        "router": config.router,
        "replicas": config.replicas,
        "request_rate": config.arrivals.rate,
        "seed": config.seed,
        "texts": config.texts,
        "wall_s": perf_counter() - started,
    }
    return {**environment(), **facts, **report}, records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench simulate`."""
    names = ", ".join(builtin_platforms())
    parser.add_argument("--platform", default="h200-assumed", help=f"a file, or one of {names}")
    parser.add_argument("--rates", type=_list_of(float), default=(20.0,), help="requests/s, a,b,c")
    parser.add_argument("--policies", type=_list_of(str), default=("stretto",), help=_policies())
    parser.add_argument("--replicas", type=_list_of(int), default=(1,), help="numbers, a,b,c")
    parser.add_argument("--routers", type=_list_of(str), default=("least-loaded",), help=_routers())
    parser.add_argument("--arrival", choices=ARRIVALS, default="poisson")
    parser.add_argument("--burstiness", type=float, default=1.0)
    parser.add_argument("--duration", type=float, default=60.0, help="of the arrivals, s")
    parser.add_argument("--num-requests", type=int)
    parser.add_argument("--texts", default="en-medium", help=f"a file, or {', '.join(TEXT_SETS)}")
    parser.add_argument("--bulk-share", type=float, default=0.0, help="fraction of bulk requests")
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--max-num-batched-tokens", type=int, default=2048)
    parser.add_argument("--max-vocoder-frames", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slo", type=Slo.parse)
    parser.add_argument("--output", type=Path, help="stem of the .json, .jsonl and .png files")
    parser.add_argument("--plot", action="store_true", help="plots (matplotlib)")


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(item) for item in text.split(","))


def _policies() -> str:
    return "a,b,c of " + "; ".join(f"{name}: {p.text}" for name, p in POLICIES.items())


def _routers() -> str:
    return f"a,b of {', '.join(ROUTERS)}"


def _configs(args: argparse.Namespace) -> list[SimConfig]:
    """Every combination of policy, router, number of replicas and rate."""
    for kind, given, known in (
        ("policy", args.policies, POLICIES),
        ("router", args.routers, ROUTERS),
    ):
        if unknown := set(given) - set(known):
            raise ValueError(f"unknown {kind} {sorted(unknown)}; choose from {', '.join(known)}")
    base = SimConfig(
        platform=find_platform(args.platform),
        texts=args.texts,
        num_requests=args.num_requests,
        duration_s=args.duration,
        seed=args.seed,
        bulk_share=args.bulk_share,
        engine=EngineConfig(
            max_num_seqs=args.max_num_seqs,
            max_num_batched_tokens=args.max_num_batched_tokens,
            max_vocoder_frames=args.max_vocoder_frames,
        ),
    )
    combinations = itertools.product(args.policies, args.routers, args.replicas, args.rates)
    return [
        replace(
            base,
            policy=policy,
            router=router,
            replicas=replicas,
            arrivals=ArrivalConfig(rate=rate, pattern=args.arrival, burstiness=args.burstiness),
        )
        for policy, router, replicas, rate in combinations
    ]


def run(args: argparse.Namespace) -> int:
    """Run `bench simulate`."""
    reports = []
    for config in _configs(args):
        report, records = report_of(config, args.slo)
        reports.append(report)
        print(
            f"\n{config.policy}, {config.replicas} x {config.platform.name}, {config.router}, "
            f"{config.arrivals.rate:g} requests/s (simulated in {report['wall_s']:.1f} s)"
        )
        print(summary(report))
        if args.output is not None:
            name = f"{args.output.name}_{len(reports)}.jsonl"
            write_jsonl(args.output.with_name(name), records)
    if args.output is not None:
        write_json(args.output.with_name(args.output.name + ".json"), {"points": reports})
        if args.plot:
            _plot(reports, args.output)
    return 0


def _plot(reports: list[dict[str, Any]], stem: Path) -> None:
    """One figure over the rates for every policy, router and number of replicas."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        name = f"{report['policy']}_{report['router']}_{report['replicas']}"
        curves.setdefault(name, []).append(report)
    for name, curve in curves.items():
        plot_sweep(curve, stem.with_name(f"{stem.name}_{name}"))
