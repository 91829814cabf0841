"""`stretto bench engine`: the engine under load in this process, without a server and its network.

Three questions: is the first request after start-up as fast as later ones; how much longer do N
equal requests take at once than one alone; and what do listeners hear under Poisson arrivals. The
same driver feeds the simulator, so that a figure here can be compared with a simulated one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from ..engine.build import assemble_core
from ..engine.core import EngineCore
from .arrivals import ArrivalConfig, arrival_times
from .drive import Arrival, Replica, WallClock, drive
from .engine_setup import add_engine_arguments, describe_engine, engine_config, load_executor
from .gpu_busy import GpuBusy
from .metrics import summarize
from .record import RequestRecord
from .report import environment, summary, write_json, write_jsonl
from .slo import Slo
from .workload import TEXT_SETS, load_texts

_LATER = 10  # requests whose median the first is compared with
_ROUNDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench engine`."""
    add_engine_arguments(parser)
    group = parser.add_argument_group("load")
    group.add_argument("--one-by-one", type=int, default=20, help="requests; 0 leaves this out")
    group.add_argument("--at-once", type=int, default=10, help="equal requests; 0 leaves this out")
    group.add_argument("--request-rate", type=float, default=0.0, help="Poisson; 0 leaves this out")
    group.add_argument("--num-requests", type=int, default=100, help="of the Poisson load")
    group.add_argument("--texts", default="en-short", help=f"a file, or {', '.join(TEXT_SETS)}")
    group.add_argument("--frames", type=int, help="exactly so many per segment; default: free")
    group.add_argument("--load-seed", type=int, default=0)
    group.add_argument("--slo", type=Slo.parse)
    group.add_argument("--output", type=Path, help="stem of the .json and .jsonl files")


class EngineUnderLoad:
    """A loaded core that takes one load after another.

    Args:
        core: ready.
        text: of the requests that are all equal.
        frames: of every request; None leaves it to the model.
    """

    def __init__(self, core: EngineCore, text: str, frames: int | None) -> None:
        self._core, self._clock = core, WallClock()
        core.clock = self._clock.read
        self._text, self._frames = text, frames

    def poisson(
        self, rate: float, texts: list[str], seed: int
    ) -> tuple[list[RequestRecord], float]:
        """Records, and seconds to the end of the last request."""
        times = arrival_times(ArrivalConfig(rate=rate), seed=seed, num_requests=len(texts))
        pairs = zip(times, texts, strict=True)
        return self._drive(
            [Arrival(i, at, text, frames=self._frames) for i, (at, text) in enumerate(pairs)]
        )

    def one_by_one(self, count: int) -> dict[str, Any]:
        """The first request against the median of the last ones."""
        records = [self._equal(1)[0] for _ in range(count)]
        later = records[-min(_LATER, max(count - 1, 1)) :]
        first_s, later_s = records[0].e2e_s, median(record.e2e_s for record in later)
        return {
            "requests": count,
            "first_e2e_ms": 1000 * first_s,
            "later_e2e_ms": 1000 * later_s,
            "first_over_later": first_s / later_s,
            "first_ttfa_ms": 1000 * (records[0].ttfa_s or 0.0),
            "later_ttfa_ms": 1000 * median(record.ttfa_s or 0.0 for record in later),
        }

    def at_once(self, count: int) -> dict[str, Any]:
        """Mean latency of `count` equal requests at once against one alone, medians of rounds."""
        alone, together = [], []
        for _ in range(_ROUNDS):
            alone.append(self._equal(1)[0].e2e_s)
            together.append(mean(record.e2e_s for record in self._equal(count)))
        ratio = median(together) / median(alone)
        return {
            "requests": count,
            "alone_e2e_ms": 1000 * median(alone),
            "mean_e2e_ms": 1000 * median(together),
            "mean_over_alone": ratio,
        }

    def _equal(self, count: int) -> list[RequestRecord]:
        return self._drive(
            [Arrival(i, 0.0, self._text, frames=self._frames) for i in range(count)]
        )[0]

    def _drive(self, arrivals: list[Arrival]) -> tuple[list[RequestRecord], float]:
        records, duration_s = drive([Replica(self._core, self._clock)], arrivals)
        failed = [record.error for record in records if not record.ok]
        if failed:
            raise RuntimeError(f"{len(failed)} requests failed, the first with: {failed[0]}")
        return records, duration_s


def _load(args: argparse.Namespace, engine: EngineUnderLoad) -> dict[str, Any]:
    """The Poisson part: the keys of `bench serve`."""
    texts = load_texts(args.texts, args.num_requests, args.load_seed)
    with GpuBusy() as busy:
        records, duration_s = engine.poisson(args.request_rate, texts, args.load_seed)
    report = {
        "request_rate": args.request_rate,
        **summarize(records, duration_s, slo=args.slo),
        "gpu_busy_percent": busy.percent,
    }
    print(f"\nPoisson, {args.request_rate:g} requests/s; GPU busy {busy.percent} %")
    print(summary(report))
    if args.output is not None:
        write_jsonl(args.output.with_name(args.output.name + ".jsonl"), records)
    return report


def run(args: argparse.Namespace) -> int:
    """Run `bench engine`."""
    config = engine_config(args)
    executor = load_executor(config)
    core = assemble_core(executor, replace(config, warmup=False))
    (text,) = load_texts(args.texts, 1, args.load_seed)
    engine = EngineUnderLoad(core, text, args.frames)
    report = {**environment(), **describe_engine(config)}

    def save() -> None:
        if args.output is not None:
            write_json(args.output.with_name(args.output.name + ".json"), report)

    if args.one_by_one:
        first = report["one_by_one"] = engine.one_by_one(args.one_by_one)
        print("first request {first_e2e_ms:.1f} ms, later {later_e2e_ms:.1f} ms".format(**first))
        save()
    if args.at_once:
        crowd = report["at_once"] = engine.at_once(args.at_once)
        print("{requests} at once: {mean_over_alone:.2f} times one alone".format(**crowd))
        save()
    if args.request_rate:
        report["load"] = _load(args, engine)
        save()
    core.check_integrity()
    executor.close()
    return 0
