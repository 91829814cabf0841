"""`CpuPagedAttention`: paged attention on the CPU by a compiled kernel, bitwise batch invariant.

It owns the KV cache and the choice of threads; the arithmetic is in `cpu_kernel`. No compiler is
needed where it runs: numba brings its own.
"""

from __future__ import annotations

import threading

import numba
import torch

from ..layers.cpu_kernels import marker
from .cpu_kernel import paged_attention
from .interface import AttentionMetadata

_PARALLEL_FROM = 2**16  # cached elements read in a layer; below that waking a thread costs more

# numba's thread pool takes one caller at a time, and a process may hold several engines.
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
        shape = (num_layers, num_blocks, num_kv_heads, block_size, head_dim)
        self.keys = torch.empty(shape, dtype=dtype)
        self.values = torch.empty(shape, dtype=dtype)
        self._shape = (block_size, num_kv_heads, head_dim)
        self._addresses = [
            (keys.data_ptr(), values.data_ptr())
            for keys, values in zip(self.keys, self.values, strict=True)
        ]
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
        num_sequences = len(metadata.seq_lens)
        arguments = (
            (query.data_ptr(), key.data_ptr(), value.data_ptr(), out.data_ptr()),
            self._addresses[layer],
            (
                metadata.query_start_loc.data_ptr(),
                metadata.seq_lens.data_ptr(),
                metadata.block_tables.data_ptr(),
            ),
            num_sequences * num_kv_heads,
        )
        read = len(query) * metadata.max_seq_len * num_kv_heads * head_dim
        workers = torch.get_num_threads() if read >= _PARALLEL_FROM else 1
        rest = (
            (query.stride(0), key.stride(0)),
            self._shape,
            (query.shape[1] // num_kv_heads, metadata.block_tables.stride(0)),
            self._kind,
        )
        if workers == 1:
            paged_attention(*arguments, 1, *rest)
        else:
            with _THREADS_IN_USE:
                paged_attention(*arguments, min(workers, numba.get_num_threads()), *rest)
        return out
