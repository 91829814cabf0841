"""`stretto bench serve`: put a load on a speech server and report how listeners fared.

Works against any server with OpenAI's `POST /v1/audio/speech`. It reads the command line, runs the
loads (one per seed and point of a sweep) and writes results; `load` sends, `metrics` judges.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from .arrivals import ARRIVALS, RAMPS, ArrivalConfig, Ramp
from .client import RESPONSE_FORMATS, STREAM_FORMATS, Target
from .load import LoadConfig, LoadResult, merge, open_session, run_load
from .metrics import Plausibility, summarize
from .plots import plot_run, plot_sweep
from .record import RequestRecord
from .report import environment, summary, write_json, write_jsonl
from .slo import Slo
from .workload import TEXT_SETS


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """The server, the form of requests and the texts: shared with `capacity`."""
    group = parser.add_argument_group("server and requests")
    group.add_argument("--base-url", default="http://127.0.0.1:8000", help="without /v1")
    group.add_argument("--endpoint", default="/v1/audio/speech")
    group.add_argument("--model", default="default")
    group.add_argument("--voice", help="none sends no voice")
    group.add_argument("--api-key", help="sent as a bearer token")
    group.add_argument("--response-format", choices=RESPONSE_FORMATS, default="pcm")
    group.add_argument("--stream-format", choices=STREAM_FORMATS, default="audio")
    group.add_argument("--extra-body", type=json.loads, default={}, metavar="JSON")
    group.add_argument("--timeout", type=float, default=300.0, help="of one request, s")
    group.add_argument(
        "--texts", default="en-medium", help=f"a file, or one of {', '.join(TEXT_SETS)}"
    )
    group.add_argument("--warmup", type=int, default=2, help="requests before measuring")
    group.add_argument("--ready-timeout", type=float, default=60.0, help="wait for the server, s")
    group.add_argument("--min-seconds-per-char", type=float, default=0.02)
    group.add_argument("--max-seconds-per-char", type=float, default=0.5)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results go: shared with `capacity` and `simulate`."""
    group = parser.add_argument_group("results")
    group.add_argument("--output", type=Path, help="stem of the .json, .jsonl and .png files")
    group.add_argument("--plot", action="store_true", help="also write PNG plots (matplotlib)")
    group.add_argument("--no-progress", action="store_true")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench serve`."""
    add_target_arguments(parser)
    group = parser.add_argument_group("load")
    group.add_argument("--request-rate", type=float, default=math.inf, help="requests/s, or inf")
    group.add_argument("--arrival", choices=ARRIVALS, default="poisson")
    group.add_argument("--burstiness", type=float, default=1.0, help="shape of gamma arrivals")
    group.add_argument("--burst-size", type=int, default=8, help="requests in a burst")
    group.add_argument("--max-concurrency", type=int, help="with rate inf: users in closed loop")
    group.add_argument("--duration", type=float, help="seconds in which requests are sent")
    group.add_argument("--num-requests", type=int)
    group.add_argument("--seeds", type=_ints, default=(0,), help="one run each, such as 0,1,2")
    group.add_argument("--ramp-up-strategy", choices=RAMPS)
    group.add_argument("--ramp-up-start-rps", type=float)
    group.add_argument("--ramp-up-end-rps", type=float)
    group.add_argument("--sweep-rates", type=_floats, help="one run per rate, such as 1,2,4,8")
    group.add_argument("--sweep-concurrency", type=_ints, help="one closed loop per number")
    group.add_argument("--slo", type=Slo.parse, help="such as ttfa_p95_ms=300,underrun_rate=0.01")
    add_output_arguments(parser)


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(item) for item in text.split(","))


def target_of(args: argparse.Namespace) -> Target:
    """The `Target` that the options describe."""
    headers = {"Authorization": f"Bearer {args.api_key}"} if args.api_key else {}
    return Target(
        url=args.base_url.rstrip("/") + args.endpoint,
        model=args.model,
        voice=args.voice,
        response_format=args.response_format,
        stream_format=args.stream_format,
        extra_body=args.extra_body,
        headers=headers,
        timeout_s=args.timeout,
    )


def plausibility_of(args: argparse.Namespace) -> Plausibility:
    """The bounds on audio length that the options describe."""
    return Plausibility(
        min_s_per_char=args.min_seconds_per_char, max_s_per_char=args.max_seconds_per_char
    )


def _arrivals_of(args: argparse.Namespace) -> ArrivalConfig:
    ramp = None
    if args.ramp_up_strategy is not None:
        if args.ramp_up_start_rps is None or args.ramp_up_end_rps is None:
            raise ValueError("a ramp needs --ramp-up-start-rps and --ramp-up-end-rps")
        ramp = Ramp(
            strategy=args.ramp_up_strategy,
            start=args.ramp_up_start_rps,
            end=args.ramp_up_end_rps,
        )
    return ArrivalConfig(
        rate=args.request_rate,
        pattern=args.arrival,
        burstiness=args.burstiness,
        burst_size=args.burst_size,
        ramp=ramp,
    )


def config_of(args: argparse.Namespace) -> LoadConfig:
    """The load that the options describe; without any limit it is 100 requests."""
    num_requests = args.num_requests
    if num_requests is None and args.duration is None:
        num_requests = 100
    return LoadConfig(
        target=target_of(args),
        arrivals=_arrivals_of(args),
        texts=args.texts,
        num_requests=num_requests,
        duration_s=args.duration,
        max_concurrency=args.max_concurrency,
        warmup=args.warmup,
    )


def points_of(config: LoadConfig, args: argparse.Namespace) -> list[LoadConfig]:
    """The load at every point of the sweep; one point without a sweep."""
    if args.sweep_rates and args.sweep_concurrency:
        raise ValueError("sweep either rates or concurrency")
    if args.sweep_rates:
        return [config.with_rate(rate) for rate in args.sweep_rates]
    if args.sweep_concurrency:
        closed = config.with_rate(math.inf)
        return [replace(closed, max_concurrency=users) for users in args.sweep_concurrency]
    return [config]


async def wait_until_ready(base_url: str, timeout_s: float) -> None:
    """Wait until the server answers `/ready` (or, without that route, anything at all).

    Raises:
        TimeoutError: it does not within `timeout_s`.
    """
    deadline = monotonic() + timeout_s
    async with open_session() as session:
        while True:
            try:
                async with session.get(base_url.rstrip("/") + "/ready") as response:
                    if response.status != 503:
                        return
            except aiohttp.ClientError:
                pass
            if monotonic() > deadline:
                raise TimeoutError(f"no server ready at {base_url} within {timeout_s:g} s")
            await asyncio.sleep(0.2)


class ProgressBar:
    """A tqdm bar of finished requests; errors are counted beside it."""

    def __init__(self, total: int | None, *, disable: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="req", disable=disable, file=sys.stderr)
        self._failed = 0

    def __call__(self, record: RequestRecord) -> None:
        if not record.ok:
            self._failed += 1
            self._bar.set_postfix(failed=self._failed)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


async def run_seeds(
    config: LoadConfig, seeds: Sequence[int], *, show_progress: bool = False
) -> LoadResult:
    """The load once per seed (warm-up only before the first), pooled."""
    bar = ProgressBar(config.num_requests, disable=not show_progress)
    results = []
    for number, seed in enumerate(seeds):
        warmup = config.warmup if number == 0 else 0
        results.append(await run_load(replace(config, seed=seed, warmup=warmup), bar))
    bar.close()
    return merge(results)


def describe(config: LoadConfig) -> dict[str, Any]:
    """The load, with the key names of `vllm bench serve`; infinity is the string `inf`."""
    rate = config.arrivals.rate
    return {
        "endpoint_type": "openai-audio-speech",
        "base_url": config.target.url,
        "model_id": config.target.model,
        "num_prompts": config.num_requests,
        "request_rate": "inf" if math.isinf(rate) else rate,
        "arrival": config.arrivals.pattern,
        "burstiness": config.arrivals.burstiness,
        "max_concurrency": config.max_concurrency,
        "response_format": config.target.response_format,
        "stream_format": config.target.stream_format,
        "texts": config.texts,
    }


def report_of(
    config: LoadConfig, result: LoadResult, slo: Slo | None, plausibility: Plausibility
) -> dict[str, Any]:
    """Everything the result file says about one point."""
    numbers = summarize(result.records, result.duration_s, slo=slo, plausibility=plausibility)
    return {**environment(), **describe(config), **numbers, **result.guard}


def _write_point(args: argparse.Namespace, report: dict[str, Any], result: LoadResult) -> None:
    stem = args.output
    if args.sweep_rates or args.sweep_concurrency:
        load = report["max_concurrency"] if args.sweep_concurrency else report["request_rate"]
        stem = stem.with_name(f"{stem.name}_{load}")
    write_json(stem.with_name(stem.name + ".json"), report)
    write_jsonl(stem.with_name(stem.name + ".jsonl"), result.records)
    if args.plot:
        plot_run(result.records, stem)


def _write_sweep(args: argparse.Namespace, reports: list[dict[str, Any]]) -> None:
    over = "max_concurrency" if args.sweep_concurrency else "request_rate"
    write_json(args.output.with_name(args.output.name + "_sweep.json"), {"points": reports})
    if args.plot:
        plot_sweep(reports, args.output, over=over)


async def _run(args: argparse.Namespace) -> int:
    config = config_of(args)
    points = points_of(config, args)
    await wait_until_ready(args.base_url, args.ready_timeout)
    reports = []
    for point in points:
        result = await run_seeds(point, args.seeds, show_progress=not args.no_progress)
        report = report_of(point, result, args.slo, plausibility_of(args))
        report["seeds"] = list(args.seeds)
        rate, users = report["request_rate"], report["max_concurrency"]
        print(f"\nrate {rate} requests/s, at most {users or 'any number'} at once")
        print(summary(report))
        reports.append(report)
        if args.output is not None:
            _write_point(args, report, result)
    if args.output is not None and len(points) > 1:
        _write_sweep(args, reports)
    return 0 if all(report["completed"] for report in reports) else 1


def run(args: argparse.Namespace) -> int:
    """Run `bench serve`; 0 when every point completed at least one request."""
    return asyncio.run(_run(args))
