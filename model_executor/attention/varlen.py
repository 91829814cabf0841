"""The torch backend: FlashAttention through `torch.nn.attention.varlen`, over a block table.

It needs torch 2.13 or newer, CUDA and half precision; whether the kernels take the page size and
head size on this device is tried once at construction. Splits along the keys are switched off,
which makes a sequence's sums independent of its neighbours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from .interface import AttentionMetadata
from .paged_cache import PagedCache, one_position
from .selector import KVCacheShape


class VarlenAttention:
    """Implements `AttentionBackend` with `varlen_attn`.

    Args:
        shape: size and place of the cache.

    Raises:
        ValueError: torch, the device or the shape is not served.
    """

    takes_padding = True

    def __init__(self, shape: KVCacheShape) -> None:
        if shape.dtype not in (torch.float16, torch.bfloat16) or shape.device.type != "cuda":
            raise ValueError(
                f"the varlen backend needs float16 or bfloat16 on cuda, not {shape.dtype} on "
                f"{shape.device.type}"
            )
        self._function = _load_function()
        self._cache = PagedCache(shape)
        self._grouped = shape.num_heads != shape.num_kv_heads
        self._probe(shape)

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        """See `AttentionBackend.forward`. Rows of sequences of length 0 are undefined."""
        self._cache.store(layer, key, value, metadata.slot_mapping)
        return self._attend(
            layer,
            query.contiguous(),
            metadata.query_start_loc,
            metadata.seq_lens,
            metadata.block_tables,
            metadata.max_query_len,
            metadata.max_seq_len,
        )

    def _attend(
        self,
        layer: int,
        query: torch.Tensor,
        query_start_loc: torch.Tensor,
        seq_lens: torch.Tensor,
        block_tables: torch.Tensor,
        max_query_len: int,
        max_seq_len: int,
    ) -> torch.Tensor:
        out: torch.Tensor = self._function(
            query,
            self._cache.keys[layer],
            self._cache.values[layer],
            query_start_loc,
            None,
            max_query_len,
            max_seq_len,
            window_size=(-1, 0),
            enable_gqa=self._grouped,
            seqused_k=seq_lens,
            block_table=block_tables.contiguous(),
            num_splits=1,
        )
        return out

    def _probe(self, shape: KVCacheShape) -> None:
        query, starts, lengths, tables = one_position(shape)
        try:
            self._attend(0, query, starts, lengths, tables, 1, 1)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"varlen_attn does not serve head_dim {shape.head_dim} with blocks of "
                f"{shape.block_size} positions on this device: {error}"
            ) from error


def _load_function() -> Callable[..., Any]:
    """`varlen_attn`, if this torch's takes a block table.

    Raises:
        ValueError: it does not, or there is none.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise ValueError(f"torch {torch.__version__} has no varlen_attn") from error
    if "block_table" not in inspect.signature(varlen_attn).parameters:
        raise ValueError(
            f"varlen_attn of torch {torch.__version__} takes no block_table; torch 2.13 does"
        )
    return varlen_attn
