"""The xformers backend: `memory_efficient_attention` with a paged mask.

Its masks are built from lengths on the host, so every step waits once for the device and cannot be
captured in a CUDA graph. It is here to be measured against, and for devices that the others do not
serve. Whether it serves this shape is tried once at construction.
"""

from __future__ import annotations

from typing import Any

import torch

from .interface import AttentionMetadata
from .paged_cache import PagedCache, one_position
from .selector import KVCacheShape


class XformersAttention:
    """Implements `AttentionBackend` with xformers.

    Args:
        shape: size and place of the cache.

    Raises:
        ValueError: xformers is not installed, or does not serve the device or the shape.
    """

    def __init__(self, shape: KVCacheShape) -> None:
        if shape.device.type != "cuda":
            raise ValueError(f"the xformers backend needs cuda, not {shape.device.type}")
        try:
            from xformers.ops import fmha
        except ImportError as error:
            raise ValueError("the xformers backend needs the package xformers") from error
        self._fmha: Any = fmha
        self._shape = shape
        self._group = shape.num_heads // shape.num_kv_heads
        self._cache = PagedCache(shape)
        self._mask: tuple[AttentionMetadata, Any] | None = None
        self._probe()

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        """See `AttentionBackend.forward`. Waits for the device once a step."""
        self._cache.store(layer, key, value, metadata.slot_mapping)
        if self._mask is None or self._mask[0] is not metadata:
            counts = metadata.query_start_loc.diff().tolist()
            lengths = metadata.seq_lens.tolist()
            self._mask = (metadata, self._new_mask(counts, lengths, metadata.block_tables))
        return self._attend(layer, query, self._mask[1])

    def _new_mask(self, counts: list[int], lengths: list[int], tables: torch.Tensor) -> Any:
        masks = self._fmha.attn_bias
        return masks.PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            q_seqlen=counts,
            kv_seqlen=lengths,
            block_tables=tables.contiguous(),
            page_size=self._shape.block_size,
            device=tables.device,
        )

    def _attend(self, layer: int, query: torch.Tensor, mask: Any) -> torch.Tensor:
        """Attend with heads as [1, N, num_kv_heads, group, head_dim], or without the group."""
        keys = self._cache.keys[layer].flatten(0, 1)[None]
        values = self._cache.values[layer].flatten(0, 1)[None]
        rows = query[None]
        if self._group > 1:
            rows = rows.reshape(1, len(query), -1, self._group, self._shape.head_dim)
            keys = keys[:, :, :, None].expand(-1, -1, -1, self._group, -1)
            values = values[:, :, :, None].expand(-1, -1, -1, self._group, -1)
        out: torch.Tensor = self._fmha.memory_efficient_attention_forward(
            rows, keys, values, attn_bias=mask
        )
        return out.reshape(query.shape)

    def _probe(self) -> None:
        query, _, _, tables = one_position(self._shape)
        try:
            self._attend(0, query, self._new_mask([1], [1], tables))
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"xformers does not serve {self._shape.dtype} with head_dim "
                f"{self._shape.head_dim} and blocks of {self._shape.block_size} positions on "
                f"this device: {error}"
            ) from error
