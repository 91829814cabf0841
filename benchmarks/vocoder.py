"""`stretto bench vocoder`: seconds of audio per second of the vocoder, by rows and frames.

Decodes random windows of many requests in one launch, as the vocoder scheduler's batches are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..scheduler.interfaces import VocoderJob
from .ar_stage import device_wait
from .engine_setup import add_engine_arguments, describe_engine, engine_config, load_executor
from .report import environment, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench vocoder`."""
    add_engine_arguments(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument("--rows", type=_ints, default=(1, 4, 16), help="jobs in a batch, a,b,c")
    group.add_argument("--frames", type=_ints, default=(24, 64, 160), help="window frames, a,b,c")
    group.add_argument("--repeats", type=int, default=5)
    group.add_argument("--output", type=Path, help="write the table as JSON")


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def decode_s(executor: Any, rows: int, frames: int, repeats: int) -> float:
    """Median seconds of a batch of `rows` windows of `frames` frames each."""
    import torch

    spec, speech = executor.vocoder_spec, executor.speech_spec
    runner, wait = executor._vocoder, device_wait(executor)
    device = executor._runner.store.codes.device
    generator = torch.Generator().manual_seed(rows * 1000 + frames)
    if spec.input_kind == "hidden":
        windows = [torch.randn(frames, speech.hidden_size, generator=generator)] * rows
    else:
        shape, top = (frames, speech.num_codebooks), speech.eos_id
        windows = [torch.randint(0, top, shape, generator=generator)] * rows
    windows = [window.to(device) for window in windows]
    jobs = [VocoderJob(f"row-{row}", 0, frames, 0, frames, True) for row in range(rows)]
    taken = []
    for _ in range(repeats + 1):
        began = perf_counter()
        runner.decode(windows, jobs)
        wait()
        taken.append(perf_counter() - began)
    return float(np.median(taken[1:]))


def run(args: argparse.Namespace) -> int:
    """Run `bench vocoder`."""
    config = engine_config(args)
    executor = load_executor(config)
    spec, rows = executor.vocoder_spec, []
    print(f"{'rows':>8}{'frames':>8}{'ms':>10}{'ms/row':>10}{'audio s/s':>12}")
    for count in args.rows:
        for frames in args.frames:
            seconds = decode_s(executor, count, frames, args.repeats)
            audio_s = count * frames * spec.samples_per_frame / spec.sample_rate
            row = {"rows": count, "frames": frames, "ms": 1000 * seconds}
            row["audio_s_per_s"] = audio_s / seconds
            rows.append(row)
            print(
                f"{count:8d}{frames:8d}{row['ms']:10.2f}{row['ms'] / count:10.2f}"
                f"{row['audio_s_per_s']:12.1f}"
            )
    if args.output is not None:
        write_json(args.output, {**environment(), **describe_engine(config), "rows": rows})
    executor.close()
    return 0
