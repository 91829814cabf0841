"""`python -m stretto.benchmarks.compare chattts|vllm|transformers`: a table of ratios.

`chattts` compares whole requests with upstream ChatTTS on the same random weights: one request,
N concurrent calls, and upstream's own batch of N. `vllm` and `transformers` compare the AR stage
with engines of language models on a Llama of the same shape.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine_setup import resolve_model
from ..report import environment, write_json
from ..workload import sentences
from .environments import CHATTTS, TRANSFORMERS, VLLM, Environment, default_root, ensure
from .rounds import (
    Comparison,
    Side,
    compare,
    format_table,
    our_environment,
    their_environment,
)

TARGETS: dict[str, Environment] = {"chattts": CHATTTS, "vllm": VLLM, "transformers": TRANSFORMERS}


def build_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m stretto.benchmarks.compare",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("target", choices=tuple(TARGETS))
    parser.add_argument("--sizes", type=_ints, help="requests or sequences; default by target")
    parser.add_argument("--frames", type=int, help="per request; default by target")
    parser.add_argument("--prompt", type=int, default=36, help="positions (AR stage)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", default="bfloat16", help="ours; upstream ChatTTS has float32")
    parser.add_argument("--model", default="random", help="ours; a folder, random or random-tiny")
    parser.add_argument("--eager", action="store_true", help="vLLM without its compiled model")
    parser.add_argument("--root", type=Path, default=default_root(), help="of environments")
    parser.add_argument("--python", type=Path, help="their interpreter, instead of installing one")
    parser.add_argument(
        "--their-env", action="append", default=[], metavar="NAME=VALUE", type=_variable,
        help="a variable of their process; its OpenMP settings are otherwise its own defaults",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="write the table as JSON")
    return parser


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def speech_comparisons(sizes: Sequence[int], frames: int) -> list[Comparison]:
    """One request, and for every larger size N concurrent calls and upstream's batch of N."""
    pool = [line for line in sentences("en") if 20 <= len(line) <= 60]
    comparisons = []
    for size in sizes:
        case = {"texts": [pool[i % len(pool)] for i in range(size)], "frames": frames}
        modes = ("concurrent", "batch") if size > 1 else ("concurrent",)
        for mode in modes:
            title = f"{size} in one batch" if mode == "batch" else f"{size} at once"
            ours = {**case, "priority": "bulk" if mode == "batch" else "interactive"}
            comparisons.append(Comparison(title, ours, {**case, "mode": mode}, "audio_s"))
    return comparisons


def ar_comparisons(sizes: Sequence[int], frames: int, prompt: int) -> list[Comparison]:
    """The AR stage at each number of sequences."""
    cases = [{"n": size, "frames": frames, "prompt": prompt} for size in sizes]
    return [Comparison(f"{case['n']} sequences", case, case, "tokens") for case in cases]


def _options(args: argparse.Namespace, sizes: Sequence[int], kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "model": resolve_model(args.model),
        "dtype": args.dtype,
        "threads": args.threads,
        "max_num_seqs": max(*sizes, 2),
        "scratch": str(args.root),
        "eager": args.eager,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Install what is missing, run, print the table."""
    args = build_parser().parse_args(argv)
    is_speech = args.target == "chattts"
    sizes = args.sizes or ((1, 4, 16) if is_speech else (1, 16, 64))
    frames = args.frames or (48 if is_speech else 64)
    args.root.mkdir(parents=True, exist_ok=True)
    python = args.python or ensure(TARGETS[args.target], args.root)
    options = _options(args, sizes, "speech" if is_speech else "ar")
    comparisons = (
        speech_comparisons(sizes, frames)
        if is_speech
        else ar_comparisons(sizes, frames, args.prompt)
    )
    environ = our_environment(args.threads), their_environment(args.threads, dict(args.their_env))
    with (
        Side("stretto", "ours", Path(sys.executable), options, environ[0]) as ours,
        Side(args.target, args.target, python, options, environ[1]) as theirs,
    ):
        about = {"ours": ours.load(), "theirs": theirs.load()}
        rows = compare(ours, theirs, comparisons, args.rounds)
    print(f"stretto {about['ours']} against {args.target} {about['theirs']}")
    print(f"{args.threads} threads, {frames} frames each, medians of {args.rounds} rounds")
    print(format_table(rows))
    if args.output is not None:
        write_json(args.output, {**environment(), **about, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
