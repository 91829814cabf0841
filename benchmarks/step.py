"""`stretto bench step`: what one step of the speech model costs, and where the time goes.

Splits a step into schedule, prepare, model, sample and update, over numbers of sequences and
lengths of context, beside the least that reading memory takes. `--platform-out` keeps the costs,
vocoder included, for the simulator.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine.build import resolve_config
from ..model_executor.models.checkpoint import load_checkpoint
from ..model_executor.vocoder_thread import ThreadQueue
from .ar_stage import PHASES, ArStage, PhaseTimer, StepTiming, decode_steps, device_wait
from .calibration import Calibrator, Samples, fit_costs, fit_silence
from .drive import WallClock
from .engine_setup import add_engine_arguments, describe_engine, engine_config, load_executor
from .floor import add_floor
from .platform import Platform, SimModel
from .report import environment, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench step`."""
    add_engine_arguments(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument("--sizes", type=_ints, default=(1, 4, 16, 64), help="sequences, a,b,c")
    group.add_argument("--contexts", type=_ints, default=(40,), help="positions, a,b,c")
    group.add_argument("--steps", type=int, default=24, help="steps per point")
    group.add_argument("--no-split", action="store_true", help="total time only, no waiting inside")
    group.add_argument("--platform-out", type=Path, help="write the costs for `bench simulate`")
    group.add_argument("--output", type=Path, help="write the table as JSON")


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def median_row(timings: Sequence[StepTiming], context: int) -> dict[str, Any]:
    """Medians of one point, milliseconds."""
    row: dict[str, Any] = {"num_seqs": timings[0].num_seqs, "context": context}
    for phase in PHASES:
        row[f"{phase}_ms"] = 1000 * float(np.median([t.seconds[phase] for t in timings]))
    row["step_ms"] = 1000 * float(np.median([t.total_s for t in timings]))
    row["frames_per_s"] = 1000 * timings[0].num_seqs / row["step_ms"]
    return row


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """The table as plain text."""
    names = ["num_seqs", "context", *(f"{p}_ms" for p in PHASES), "step_ms", "frames_per_s"]
    names += ["floor_ms", "times_floor"]
    lines = ["".join(f"{name:>14}" for name in names)]
    for row in rows:
        cells = [row[name] for name in names]
        shown = [f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells]
        lines.append("".join(f"{cell:>14}" for cell in shown))
    return "\n".join(lines)


def measured_platform(name: str, executor: Any, samples: Samples) -> Platform:
    """The platform of measured costs and the executor's own declarations.

    Raises:
        ValueError: the samples are too few.
    """
    speech, vocoder, queue = executor.speech_spec, executor.vocoder_spec, executor.work_queue
    facts = environment()
    model = SimModel(
        frame_rate=speech.frame_rate,
        samples_per_frame=vocoder.samples_per_frame,
        left_context=vocoder.left_context,
        right_context=vocoder.right_context,
        max_model_len=speech.max_model_len,
        num_kv_blocks=executor.num_kv_blocks,
    )
    return Platform(
        name=name,
        costs=fit_costs(samples),
        model=fit_silence(samples, model),
        source=f"measured {facts['date']} on {facts['machine']}, commit {facts['commit']}",
        vocoder_beside=queue is not None,
        waits_for_beginnings=isinstance(queue, ThreadQueue),
    )


def run(args: argparse.Namespace) -> int:
    """Run `bench step`."""
    config = engine_config(args)
    executor = load_executor(config, reads_text=args.platform_out is not None)
    if args.platform_out is not None:
        samples = Calibrator(executor, config, WallClock()).run(args.sizes, 4 * args.steps)
        platform = measured_platform(args.platform_out.stem, executor, samples)
        platform.save(args.platform_out)
    timer = None if args.no_split else PhaseTimer(executor, device_wait(executor))
    stage = ArStage(
        executor, max_num_seqs=max(args.sizes), block_size=config.block_size, timer=timer
    )
    rows = []
    for context in args.contexts:
        for size in args.sizes:
            decode_steps(stage, size, context, 3)
            rows.append(median_row(decode_steps(stage, size, context, args.steps), context))
    plain = resolve_config(config)
    bandwidth = add_floor(
        rows, load_checkpoint(config.model).gpt, plain.dtype, torch.device(plain.device)
    )
    print(format_rows(rows))
    print(f"floor: weights, keys and values read once at {bandwidth / 1e9:.0f} GB/s")
    if args.output is not None:
        facts = {**environment(), **describe_engine(config), "bytes_per_s": bandwidth}
        write_json(args.output, {**facts, "rows": rows})
    executor.close()
    return 0
