"""`stretto bench offline`: seconds of audio per second of bulk work, against the batch size.

Everything an offline user pays for is in it: frontend, speech model, vocoder, delivery. With
`--frames` all requests speak a fixed number of frames, for weights that do not know when to stop.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from ..engine.offline import SpeechEngine
from ..engine.request import SamplingParams, SpeechRequest
from .engine_setup import add_engine_arguments, describe_engine, engine_config
from .gpu_busy import GpuBusy
from .report import environment, write_json
from .workload import TEXT_SETS, load_texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench offline`."""
    add_engine_arguments(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument("--batch-sizes", type=_ints, default=(1, 4, 16), help="requests, a,b,c")
    group.add_argument("--frames", type=int, help="exactly so many per segment; default: free")
    group.add_argument("--texts", default="en-short", help=f"a file, or {', '.join(TEXT_SETS)}")
    group.add_argument("--priority", choices=("interactive", "bulk"), default="bulk")
    group.add_argument("--rounds", type=int, default=2, help="per batch size; the best counts")
    group.add_argument("--output", type=Path, help="write the table as JSON")


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def make_requests(
    texts: str, count: int, frames: int | None, priority: Any = "bulk"
) -> list[SpeechRequest]:
    """`count` requests of a text set, each with its own seed."""
    sampling = SamplingParams()
    if frames is not None:
        sampling = SamplingParams(min_new_tokens=frames, max_new_tokens=frames)
    return [
        SpeechRequest(text=text, seed=index, sampling=sampling, priority=priority)
        for index, text in enumerate(load_texts(texts, count, 0))
    ]


def time_batch(engine: SpeechEngine, requests: list[SpeechRequest]) -> dict[str, Any]:
    """Generate all of them at once: wall and CPU seconds, and what came out.

    Raises:
        RuntimeError: a request failed.
    """
    wall, cpu = time.perf_counter(), os.times()
    results = engine.generate(requests)
    seconds = time.perf_counter() - wall
    after = os.times()
    failed = [result.error for result in results if result.finish_reason == "error"]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed, the first with: {failed[0]}")
    audio_s = sum(result.metrics.audio_s for result in results)
    return {
        "batch_size": len(requests),
        "seconds": seconds,
        "cpu_s": after.user + after.system - cpu.user - cpu.system,
        "audio_s": audio_s,
        "frames": sum(result.metrics.frames for result in results),
        "audio_throughput": audio_s / seconds,
        "mean_latency_s": sum(r.metrics.total_s for r in results) / len(results),
    }


def run(args: argparse.Namespace) -> int:
    """Run `bench offline`."""
    config = engine_config(args)
    rows = []
    print(f"{'batch':>8}{'audio s':>10}{'wall s':>10}{'CPU s':>10}{'audio s/s':>12}{'RTF':>8}")
    with SpeechEngine(config=config) as engine:
        for size in args.batch_sizes:
            requests = make_requests(args.texts, size, args.frames, args.priority)
            with GpuBusy() as busy:
                rounds = [time_batch(engine, requests) for _ in range(args.rounds)]
            row = max(rounds, key=lambda item: float(item["audio_throughput"]))
            row["gpu_busy_percent"] = busy.percent
            rows.append(row)
            print(
                f"{size:8d}{row['audio_s']:10.2f}{row['seconds']:10.2f}{row['cpu_s']:10.2f}"
                f"{row['audio_throughput']:12.2f}{1 / row['audio_throughput']:8.3f}"
                + ("" if busy.percent is None else f"   GPU busy {busy.percent:.0f} %")
            )
            if args.output is not None:  # as they come: a later size may take too long
                write_json(args.output, {**environment(), **describe_engine(config), "rows": rows})
    return 0
