"""`PagedCache`: the KV cache tensors of the backends whose kernels only read.

One block more than asked for takes the keys and values of padding positions, so that storing needs
no mask and can be captured in a CUDA graph. It knows nothing of sequences.
"""

from __future__ import annotations

import torch

from .selector import KVCacheShape


class PagedCache:
    """Keys and values of all layers: [num_layers, num_blocks + 1, block_size, num_kv_heads, head].

    Args:
        shape: size and place.
    """

    def __init__(self, shape: KVCacheShape) -> None:
        blocks = shape.num_blocks + 1
        size = (shape.num_layers, blocks, shape.block_size, shape.num_kv_heads, shape.head_dim)
        self.keys = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self._spare_slot = shape.num_blocks * shape.block_size

    def store(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, slot_mapping: torch.Tensor
    ) -> None:
        """Write [N, num_kv_heads, head_dim] to slots int64 [N]; slots below 0 are padding."""
        slots = slot_mapping.where(slot_mapping >= 0, self._spare_slot)
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, key)
        self.values[layer].flatten(0, 1).index_copy_(0, slots, value)


def one_position(
    shape: KVCacheShape,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The smallest call there is, to find out at start whether a library serves this shape.

    Returns:
        Query zeros [1, num_heads, head_dim]; int32 query_start_loc [2], seq_lens [1] and
        block_tables [1, 1].
    """
    query = torch.zeros(1, shape.num_heads, shape.head_dim, dtype=shape.dtype, device=shape.device)
    starts = torch.arange(2, dtype=torch.int32, device=shape.device)
    return query, starts, torch.ones_like(starts[:1]), torch.zeros_like(starts[:1])[None]
