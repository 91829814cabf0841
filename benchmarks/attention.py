"""`stretto bench attention`: the attention backends side by side, and their distance to the floor.

Times one layer's write and attention for decode batches and for a prefill, through the interface
that the models use. The floor is the time to read the keys and values once at the memory bandwidth
measured here; it binds only where they do not fit a cache of the device. Backends that do not run
on this machine are listed with their reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ..model_executor.attention.interface import AttentionBackend, AttentionMetadata
from ..model_executor.attention.selector import BACKENDS, KVCacheShape, create_attention
from .report import environment, write_json

HEADS, HEAD_DIM, BLOCK = 12, 64, 16
_QUEUED = 20  # calls, the layers of ChatTTS
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Shape:
    """A batch: sequences, new positions of each, and positions of each after the step."""

    num_seqs: int
    new_tokens: int
    context: int

    @property
    def num_blocks(self) -> int:
        """KV blocks that the batch needs."""
        return self.num_seqs * -(-self.context // BLOCK)


def make_metadata(shape: Shape, device: torch.device) -> AttentionMetadata:
    """Scattered block tables, as after some time of service."""
    per_seq = -(-shape.context // BLOCK)
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randperm(shape.num_blocks, generator=generator).view(shape.num_seqs, per_seq)
    positions = torch.arange(shape.context - shape.new_tokens, shape.context)
    slots = blocks[:, positions // BLOCK] * BLOCK + positions % BLOCK
    starts = torch.arange(shape.num_seqs + 1) * shape.new_tokens
    return AttentionMetadata(
        query_start_loc=starts.int().to(device),
        seq_lens=torch.full((shape.num_seqs,), shape.context, dtype=torch.int32, device=device),
        block_tables=blocks.int().to(device),
        slot_mapping=slots.reshape(-1).to(device),
        max_query_len=shape.new_tokens,
        max_seq_len=shape.context,
    )


def time_backend(
    backend: AttentionBackend, shape: Shape, dtype: torch.dtype, device: torch.device, repeats: int
) -> float:
    """Median seconds of one layer, written keys and values included."""
    metadata = make_metadata(shape, device)
    generator = torch.Generator().manual_seed(1)
    size = (shape.num_seqs * shape.new_tokens, HEADS, HEAD_DIM)
    query, key, value = (torch.randn(size, generator=generator).to(device, dtype) for _ in range(3))
    call = lambda: backend.forward(0, query, key, value, metadata)  # noqa: E731
    return _median_s(call, device, repeats)


def _median_s(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Of one call. On CUDA several are queued between two waits, as the layers of a step are."""
    calls = _QUEUED if device.type == "cuda" else 1
    taken = []
    with torch.inference_mode():
        for _ in range(repeats + 2):
            _wait(device)
            began = perf_counter()
            for _ in range(calls):
                call()
            _wait(device)
            taken.append((perf_counter() - began) / calls)
    return float(np.median(taken[2:]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a large copy reads and writes on this device."""
    size = 2**28 if device.type == "cuda" else 2**26
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _median_s(lambda: target.copy_(source), device, 5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every option of `bench attention`."""
    parser.add_argument("--backends", type=lambda text: text.split(","), default=list(BACKENDS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=tuple(_DTYPES), default="bfloat16")
    parser.add_argument("--sizes", type=_ints, default=(1, 16, 64), help="sequences, a,b,c")
    parser.add_argument("--contexts", type=_ints, default=(128, 512), help="positions, a,b,c")
    parser.add_argument("--prefill", type=int, default=128, help="positions of a prefill; 0 none")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path, help="write the table as JSON")


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def _shapes(args: argparse.Namespace) -> list[Shape]:
    shapes = [Shape(size, 1, context) for context in args.contexts for size in args.sizes]
    if args.prefill:
        shapes.append(Shape(4, args.prefill, args.prefill))
    return shapes


def measure(
    name: str, shape: Shape, dtype: torch.dtype, device: torch.device, repeats: int
) -> dict[str, Any]:
    """One cell of the table: `us`, or the `reason` why the backend does not run here."""
    cache = KVCacheShape(
        num_layers=1,
        num_blocks=shape.num_blocks,
        block_size=BLOCK,
        num_heads=HEADS,
        num_kv_heads=HEADS,
        head_dim=HEAD_DIM,
        dtype=dtype,
        device=device,
    )
    cell: dict[str, Any] = {"backend": name, "us": None, "reason": None}
    try:
        backend = create_attention(name, cache)
        cell["us"] = 1e6 * time_backend(backend, shape, dtype, device, repeats)
    except (ImportError, ValueError, RuntimeError, NotImplementedError) as error:
        cell["reason"] = str(error).splitlines()[0][:200] if str(error) else repr(error)
    return cell


def format_table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Microseconds per layer, one line a shape; reasons below."""
    head = "".join(f"{name:>12}" for name in (*names, "floor"))
    lines = [f"{'microseconds per layer':<30}{head}"]
    reasons: dict[str, str] = {}
    for row in rows:
        cells = {cell["backend"]: cell for cell in row["cells"]}
        shown = ["-" if cells[n]["us"] is None else f"{cells[n]['us']:.1f}" for n in names]
        shown.append(f"{row['floor_us']:.1f}")
        lines.append(f"{row['shape']:<30}" + "".join(f"{cell:>12}" for cell in shown))
        reasons |= {n: cells[n]["reason"] for n in names if cells[n]["reason"]}
    return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in reasons.items())])


def run(args: argparse.Namespace) -> int:
    """Run `bench attention`."""
    device, dtype = torch.device(args.device), _DTYPES[args.dtype]
    bandwidth = copy_bandwidth(device)
    rows = []
    for shape in _shapes(args):
        read = 2 * shape.num_seqs * shape.context * HEADS * HEAD_DIM * dtype.itemsize
        cells = [measure(name, shape, dtype, device, args.repeats) for name in args.backends]
        title = f"{shape.num_seqs} x {shape.new_tokens} new, context {shape.context}"
        rows.append({"shape": title, "floor_us": 1e6 * read / bandwidth, "cells": cells})
    print(format_table(rows, args.backends))
    if args.output is not None:
        facts = {"device": str(device), "dtype": args.dtype, "bytes_per_s": bandwidth}
        write_json(args.output, {**environment(), **facts, "rows": rows})
    return 0
