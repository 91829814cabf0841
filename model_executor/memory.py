"""Memory: sizes as users write them, what the KV cache may take, and tensors on large pages."""

from __future__ import annotations

import contextlib
import math
import mmap
import re
from collections.abc import Sequence

import psutil
import torch

from .interfaces import SpeechModelSpec

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_CPU_SHARE, _CUDA_SHARE = 0.25, 0.8  # of the free memory, for an automatic KV cache

# Private memory, because shared memory gets no large pages; other systems have no such flags.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def parse_size(text: str) -> int:
    """Bytes of a size such as `512MiB` or `2GB`.

    Raises:
        ValueError: not a positive number with a known unit.
    """
    match = _SIZE.fullmatch(text)
    unit = match.group(2).upper() if match else ""
    if match is None or unit not in _UNITS or float(match.group(1)) <= 0:
        raise ValueError(f"{text!r} is not a size such as 512MiB or 2GB")
    return int(float(match.group(1)) * _UNITS[unit])


def block_bytes(spec: SpeechModelSpec, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one KV block over all layers, keys and values."""
    per_position = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * dtype.itemsize
    return block_size * per_position


def count_blocks(
    spec: SpeechModelSpec,
    *,
    memory: str,
    block_size: int,
    max_num_seqs: int,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """KV blocks that fit `memory`; `auto` takes a share of what is free, and no more than
    `max_num_seqs` sequences of full length can use.

    Raises:
        ValueError: `memory` is no size, or is too small for a single block.
    """
    per_block = block_bytes(spec, block_size, dtype)
    if memory != "auto":
        blocks = parse_size(memory) // per_block
        if not blocks:
            raise ValueError(f"kv_cache_memory {memory} is less than a block ({per_block} bytes)")
        return blocks
    most = max_num_seqs * -(-spec.max_model_len // block_size)
    return max(min(most, _free_bytes(device) // per_block), 1)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE)
    return int(psutil.virtual_memory().available * _CPU_SHARE)


def large_pages(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor in main memory for which the system is asked for large pages, where it knows
    the word: with small ones every few lines that are read cost a walk of page tables."""
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(count * dtype.itemsize, 1), **_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(*shape)
