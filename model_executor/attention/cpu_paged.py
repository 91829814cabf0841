"""Paged attention on the CPU by a compiled kernel, bitwise batch invariant.

It owns the KV cache; the arithmetic is in `cpu_kernel`. `layers.cpu_stack` runs whole layers on the
cache with many threads; `forward` is one layer on one thread, for models whose sizes it does not
take and for comparison. No compiler is needed where it runs: numba brings its own.
"""

from __future__ import annotations

import numpy as np
import torch

from ..layers.cpu_math import marker
from ..layers.cpu_vectors import LANES
from ..memory import large_pages
from .cpu_kernel import paged_attention
from .interface import AttentionMetadata, CpuCaches


class CpuPagedAttention:
    """See `AttentionBackend`.

    Args:
        num_layers, num_blocks, block_size, num_kv_heads, head_dim: shape of the KV cache.
        dtype: float32 or bfloat16.

    Raises:
        ValueError: head_dim is no multiple of 16.
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
        if head_dim % LANES:
            raise ValueError(f"attention backend cpu_paged needs heads of {LANES}s, got {head_dim}")
        lanes = -(-block_size // LANES) * LANES
        self._cache = large_pages((num_layers, num_blocks, num_kv_heads, 2, lanes, head_dim), dtype)
        addresses = np.array([layer.data_ptr() for layer in self._cache], np.int64)
        self.cpu_caches = CpuCaches(addresses, block_size, lanes)
        self._shape = (block_size, lanes, num_kv_heads, head_dim)
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
        out = query.new_empty(query.shape)
        paged_attention(
            (
                *(query.data_ptr(), key.data_ptr(), value.data_ptr(), out.data_ptr()),
                int(self.cpu_caches.addresses[layer]),
            ),
            (
                metadata.query_start_loc.data_ptr(),
                metadata.seq_lens.data_ptr(),
                metadata.block_tables.data_ptr(),
            ),
            len(metadata.seq_lens),
            (query.stride(0), key.stride(0)),
            self._shape,
            (query.shape[1] // key.shape[1], metadata.block_tables.stride(0)),
            self._kind,
        )
        return out
