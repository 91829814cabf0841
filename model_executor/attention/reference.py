"""Paged attention in plain torch: slow, portable, and the truth for every other backend.

It gathers each sequence's keys and values and attends densely in float32. It is not meant to be
fast, and its sums may differ in the last bit with the number of new positions.
"""

from __future__ import annotations

import torch

from .interface import AttentionMetadata


class ReferenceAttention:
    """The portable backend; see `AttentionBackend`.

    Args:
        num_layers, num_blocks, block_size, num_kv_heads, head_dim: shape of the KV cache.
        dtype, device: of the KV cache.
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
        device: torch.device,
    ) -> None:
        shape = (num_layers, num_blocks * block_size, num_kv_heads, head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self._block_size = block_size

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        """See `AttentionBackend.forward`."""
        self.keys[layer].index_copy_(0, metadata.slot_mapping, key)
        self.values[layer].index_copy_(0, metadata.slot_mapping, value)
        starts = metadata.query_start_loc.tolist()
        lengths = metadata.seq_lens.tolist()
        out = torch.empty_like(query)
        for row, length in enumerate(lengths):
            first, last = starts[row], starts[row + 1]
            slots = self._slots(metadata.block_tables[row], length)
            out[first:last] = _attend(
                query[first:last], self.keys[layer, slots], self.values[layer, slots]
            )
        return out

    def _slots(self, block_table: torch.Tensor, length: int) -> torch.Tensor:
        """Slots [length] of a sequence's positions, in order."""
        positions = torch.arange(length, device=block_table.device)
        blocks = block_table[positions // self._block_size].long()
        return blocks * self._block_size + positions % self._block_size


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Causal attention of the last Q of K positions.

    Args:
        query: [Q, num_heads, head_dim].
        keys, values: [K, num_kv_heads, head_dim].

    Returns:
        [Q, num_heads, head_dim] in the dtype of `query`.
    """
    num_new, num_heads, head_dim = query.shape
    length, num_kv_heads = keys.shape[:2]
    group = num_heads // num_kv_heads
    wide_keys = keys.float().repeat_interleave(group, dim=1)
    wide_values = values.float().repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), wide_keys) * head_dim**-0.5
    seen = torch.ones(num_new, length, dtype=torch.bool, device=query.device)
    scores = scores.masked_fill(~seen.tril(length - num_new), float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), wide_values).to(query.dtype)
