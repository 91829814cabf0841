"""`stretto bench vocoder`: seconds of audio per second of the vocoder, by rows and frames.

Decodes random frames of many requests in one launch, as the vocoder scheduler's batches are: whole
sequences, or the successive chunks of streams.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ..model_executor.interfaces import Prompt, ResolvedSampling, SpeechModelSpec
from ..scheduler.interfaces import VocoderBatch, VocoderJob
from .engine_setup import add_engine_arguments, describe_engine, engine_config, load_executor
from .report import environment, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench vocoder`."""
    add_engine_arguments(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument("--rows", type=_ints, default=(1, 4, 16), help="jobs in a batch, a,b,c")
    group.add_argument("--frames", type=_ints, default=(24, 64, 160), help="frames of a job, a,b,c")
    group.add_argument("--streamed", action="store_true", help="chunks of streams, not whole ones")
    group.add_argument("--repeats", type=int, default=5)
    group.add_argument("--output", type=Path, help="write the table as JSON")


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


@contextmanager
def spoken(executor: Any, rows: int, frames: int) -> Iterator[list[str]]:
    """`rows` sequences with random frames, as if the speech model had drawn them."""
    spec, store = executor.speech_spec, executor._runner.store
    generator = torch.Generator().manual_seed(rows * 1000 + frames)
    hidden = torch.randn(frames, store.hidden.shape[1], generator=generator)
    codes = torch.randint(0, spec.eos_id, (frames, spec.num_codebooks), generator=generator)
    names = [f"row-{row}" for row in range(rows)]
    for name in names:
        executor.add_sequence(name, Prompt(token_ids=np.zeros(1, np.int32)), _sampling(spec))
        store.reserve(name, frames)
        where = torch.from_numpy(store.rows(name, 0, frames)).to(store.codes.device)
        with torch.inference_mode():
            store.write(where, codes.to(where.device), hidden.to(where.device))
    try:
        yield names
    finally:
        for name in names:
            executor.remove_sequence(name)


def _sampling(spec: SpeechModelSpec) -> ResolvedSampling:
    return ResolvedSampling(
        temperature=(spec.sampling.temperature,) * spec.num_codebooks,
        top_p=spec.sampling.top_p,
        top_k=spec.sampling.top_k,
        repetition_penalty=spec.sampling.repetition_penalty,
        min_new_tokens=0,
        max_new_tokens=1,
        seed=0,
    )


def whole_s(executor: Any, rows: int, frames: int, repeats: int) -> float:
    """Median seconds of a batch of `rows` whole sequences of `frames` frames."""
    with spoken(executor, rows, frames) as names:
        jobs = tuple(VocoderJob(name, 0, frames, 0, frames, is_last=True) for name in names)
        batches = [VocoderBatch(jobs)] * (repeats + 1)
        return _median_s(executor, batches)


def streamed_s(executor: Any, rows: int, frames: int, repeats: int) -> float:
    """Median seconds of a batch of the next `frames` frames of `rows` streams."""
    spec = executor.vocoder_spec
    left, right = spec.left_context, spec.right_context
    starts = [index * frames for index in range(repeats + 1)]
    with spoken(executor, rows, starts[-1] + frames + right) as names:
        batches = []
        for start in starts:
            end, first = start + frames, max(0, start - left)
            jobs = [VocoderJob(n, start, end, first, end + right, is_last=False) for n in names]
            batches.append(VocoderBatch(tuple(jobs)))
        return _median_s(executor, batches)


def _median_s(executor: Any, batches: Sequence[VocoderBatch]) -> float:
    """Of all batches but the first."""
    taken = []
    for batch in batches:
        began = perf_counter()
        executor.execute_vocoder(batch)
        taken.append(perf_counter() - began)
    return float(np.median(taken[1:]))


def run(args: argparse.Namespace) -> int:
    """Run `bench vocoder`."""
    config = engine_config(args)
    executor = load_executor(config, reads_text=False)
    spec, rows = executor.vocoder_spec, []
    print(f"{'rows':>8}{'frames':>8}{'ms':>10}{'ms/row':>10}{'audio s/s':>12}")
    for count in args.rows:
        for frames in args.frames:
            time_batch = streamed_s if args.streamed else whole_s
            seconds = time_batch(executor, count, frames, args.repeats)
            audio_s = count * frames * spec.samples_per_frame / spec.sample_rate
            row = {"rows": count, "frames": frames, "ms": 1000 * seconds}
            row["audio_s_per_s"] = audio_s / seconds
            rows.append(row)
            print(
                f"{count:8d}{frames:8d}{row['ms']:10.2f}{row['ms'] / count:10.2f}"
                f"{row['audio_s_per_s']:12.1f}"
            )
    if args.output is not None:
        facts = {**environment(), **describe_engine(config), "streamed": args.streamed}
        write_json(args.output, {**facts, "rows": rows})
    executor.close()
    return 0
