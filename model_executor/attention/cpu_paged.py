"""`CpuPagedAttention`: paged attention on the CPU by a compiled kernel, bitwise batch invariant.

It owns the KV cache and the choice of threads; the arithmetic is in `cpu_kernel`. No compiler is
needed where it runs: numba brings its own.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading

import numba
import torch

from ..layers.cpu_kernels import marker
from .cpu_kernel import paged_attention
from .interface import AttentionMetadata

_PARALLEL_FROM = 2**16  # cached elements read in a layer; below that waking a thread costs more

# Private memory, because shared memory gets no large pages; other systems have no such flags.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

# The pool that needs no OpenMP runtime of its own beside torch's, and whose threads sleep.
if "NUMBA_THREADING_LAYER" not in os.environ:
    numba.config.THREADING_LAYER = "workqueue"

# That pool takes one caller at a time, and a process may hold several engines.
_THREADS_IN_USE = threading.Lock()


class CpuPagedAttention:
    """See `AttentionBackend`.

    Args:
        num_layers, num_blocks, block_size, num_kv_heads, head_dim: shape of the KV cache.
        dtype: float32 or bfloat16.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
    ) -> None:
        shape = (num_layers, num_blocks, num_kv_heads, 2, block_size, head_dim)
        self.cache = _large_pages(shape, dtype)
        self._shape = (block_size, num_kv_heads, head_dim)
        self._addresses = [layer.data_ptr() for layer in self.cache]
        self._kind = marker(dtype)

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        """See `AttentionBackend.forward`. The tensors may be slices of one wider row."""
        _, num_kv_heads, head_dim = self._shape
        out = query.new_empty(query.shape)
        read = len(query) * metadata.max_seq_len * num_kv_heads * head_dim
        workers = min(torch.get_num_threads(), numba.get_num_threads())
        if read < _PARALLEL_FROM:
            workers = 1
        with _THREADS_IN_USE if workers > 1 else contextlib.nullcontext():
            paged_attention(
                tensors=(
                    *(query.data_ptr(), key.data_ptr(), value.data_ptr(), out.data_ptr()),
                    self._addresses[layer],
                ),
                indices=(
                    metadata.query_start_loc.data_ptr(),
                    metadata.seq_lens.data_ptr(),
                    metadata.block_tables.data_ptr(),
                ),
                num_sequences=len(metadata.seq_lens),
                workers=workers,
                strides=(query.stride(0), key.stride(0)),
                shape=self._shape,
                sizes=(query.shape[1] // num_kv_heads, metadata.block_tables.stride(0)),
                kind=self._kind,
            )
        return out


def _large_pages(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor for which the system is asked for large pages, where it knows the word:
    blocks are read in random order, and with small pages each one costs a walk of page tables."""
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1), **_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape)).view(shape)
