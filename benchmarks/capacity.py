"""`stretto bench capacity`: the highest Poisson rate at which a server keeps an SLO.

The search doubles the rate until the SLO breaks, then halves the bracket. Each probe is a run of
its own with a pause after it, so that no backlog spoils the next one. The objective may
contain underruns, which is what listeners notice.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from .arrivals import ArrivalConfig
from .load import LoadConfig
from .plots import plot_sweep
from .report import environment, summary, write_json
from .serve import (
    add_output_arguments,
    add_target_arguments,
    describe,
    plausibility_of,
    report_of,
    run_seeds,
    target_of,
    wait_until_ready,
)
from .slo import Slo

Probe = Callable[[float], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Outcome of a search.

    Attributes:
        rate: highest rate probed that kept the SLO; 0 when none did.
        broken_at: lowest rate probed that broke it; None when none did.
        probes: every report, in order of probing.
    """

    rate: float
    broken_at: float | None
    probes: tuple[dict[str, Any], ...]


async def search(probe: Probe, *, start: float, limit: float, tolerance: float) -> Capacity:
    """Find the highest rate that keeps the SLO.

    Args:
        probe: runs a rate; its report has `slo_met`.
        start: first rate, requests/s.
        limit: no rate above is probed.
        tolerance: stop when the bracket is within this fraction of its upper end.
    """
    probes: list[dict[str, Any]] = []
    good, bad, rate = 0.0, None, min(start, limit)
    while True:
        report = await probe(rate)
        probes.append(report)
        if report["slo_met"]:
            good = rate
        else:
            bad = rate
        if bad is None and good >= limit:
            break
        if bad is not None and bad - good <= tolerance * bad:
            break
        if bad is not None and good == 0.0 and bad <= start / 64:
            break
        rate = min(good * 2, limit) if bad is None else (good + bad) / 2
    return Capacity(good, bad, tuple(probes))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench capacity`."""
    add_target_arguments(parser)
    group = parser.add_argument_group("search")
    group.add_argument("--slo", type=Slo.parse, required=True)
    group.add_argument("--start-rate", type=float, default=1.0, help="requests/s")
    group.add_argument("--max-rate", type=float, default=1024.0, help="requests/s")
    group.add_argument("--tolerance", type=float, default=0.05, help="of the answer")
    group.add_argument("--duration", type=float, default=30.0, help="of one probe, s")
    group.add_argument("--pause", type=float, default=2.0, help="between probes, s")
    group.add_argument("--seeds", type=lambda text: tuple(map(int, text.split(","))), default=(0,))
    add_output_arguments(parser)


def _probe_of(args: argparse.Namespace, config: LoadConfig) -> Probe:
    async def probe(rate: float) -> dict[str, Any]:
        point = replace(config, arrivals=ArrivalConfig(rate=rate))
        result = await run_seeds(point, args.seeds, show_progress=not args.no_progress)
        report = report_of(point, result, args.slo, plausibility_of(args))
        print(f"\nrate {rate:g} requests/s\n{summary(report)}")
        await asyncio.sleep(args.pause)
        return report

    return probe


async def _run(args: argparse.Namespace) -> int:
    config = LoadConfig(
        target=target_of(args), texts=args.texts, duration_s=args.duration, warmup=args.warmup
    )
    await wait_until_ready(args.base_url, args.ready_timeout)
    found = await search(
        _probe_of(args, config),
        start=args.start_rate,
        limit=args.max_rate,
        tolerance=args.tolerance,
    )
    breaker = "no rate probed" if found.broken_at is None else f"{found.broken_at:g}"
    print(f"\ncapacity: {found.rate:g} requests/s kept the SLO, {breaker} broke it")
    if args.output is not None:
        result = {
            **environment(),
            **describe(config),
            "capacity_rps": found.rate,
            "broken_at_rps": found.broken_at,
            "probes": list(found.probes),
        }
        write_json(args.output.with_name(args.output.name + ".json"), result)
        if args.plot:
            ordered = sorted(found.probes, key=lambda report: float(report["request_rate"]))
            plot_sweep(ordered, args.output)
    return 0 if found.rate > 0 else 1


def run(args: argparse.Namespace) -> int:
    """Run `bench capacity`; 0 when some rate kept the SLO."""
    return asyncio.run(_run(args))
