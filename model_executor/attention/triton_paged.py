"""The Triton backend: paged attention that runs on every CUDA device and every supported torch.

It owns the cache and launches the kernels of `triton_kernels`; how many splits and how large tiles
are is decided here, from shapes alone, so that a launch can be captured in a CUDA graph. Without a
GPU the same kernels run in Triton's interpreter (`TRITON_INTERPRET=1`), which is how they are
tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from .interface import AttentionMetadata
from .selector import KVCacheShape

SPLIT = 256  # key positions folded at a time; fixed, so that sums do not depend on the batch
_HEAD_DIMS = (16, 32, 64, 128)
_MIN_ROWS = 16  # smallest side of a matrix product on tensor cores
_PREFILL_ROWS = 64
_PROGRAMS_PER_SM = 2  # below that, splits get programs of their own


@dataclass(frozen=True, slots=True)
class _Launch:
    """Tiling of one call.

    Attributes:
        one_query: every sequence has one new position.
        block_m: rows of a tile.
        block_q: positions of a tile.
        num_tiles: tiles that could be needed; the surplus exits at once.
        num_splits: programs along the keys; 1 means that one program folds all splits.
    """

    one_query: bool
    block_m: int
    block_q: int
    num_tiles: int
    num_splits: int


class TritonAttention:
    """Implements `AttentionBackend` with own kernels.

    Args:
        shape: size and place of the cache. `head_dim` is 16, 32, 64 or 128.

    Raises:
        ValueError: a head size that the kernels do not know.
        ImportError: Triton is not installed.
    """

    takes_padding = True

    def __init__(self, shape: KVCacheShape) -> None:
        if shape.head_dim not in _HEAD_DIMS:
            raise ValueError(f"the triton backend needs head_dim in {_HEAD_DIMS}: {shape.head_dim}")
        from . import triton_kernels

        self._kernels: Any = triton_kernels
        self._shape = shape
        self._group = shape.num_heads // shape.num_kv_heads
        slots = shape.num_blocks * shape.block_size
        size = (shape.num_layers, slots, shape.num_kv_heads, shape.head_dim)
        self.keys = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self._num_wanted = _PROGRAMS_PER_SM * _count_processors(shape.device)

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        """See `AttentionBackend.forward`. Rows of sequences of length 0 are zeros."""
        self._store(layer, key, value, metadata)
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        launch = self._plan(query.shape[0], metadata)
        query = _heads_together(query)
        if launch.num_splits == 1:
            self._kernels.attend[(launch.num_tiles, self._shape.num_kv_heads)](
                *(query, self.keys[layer], self.values[layer], out),
                *self._lengths(metadata),
                *self._strides(query, metadata),
                **self._tile(launch),
                **self._products(),
            )
        else:
            self._attend_splits(layer, query, out, launch, metadata)
        return out

    def _plan(self, num_positions: int, metadata: AttentionMetadata) -> _Launch:
        one_query = metadata.max_query_len == 1
        rows = max(_MIN_ROWS, 1 << (self._group - 1).bit_length())
        if not one_query and self._shape.dtype != torch.float32:
            # Larger tiles may sum in another order; in float32 a replayed position stays equal.
            rows = max(rows, _PREFILL_ROWS)
        block_q = rows // self._group
        num_seqs = metadata.seq_lens.shape[0]
        num_tiles = num_seqs if one_query else num_positions // block_q + num_seqs
        num_splits = -(-metadata.max_seq_len // SPLIT)
        if num_tiles * self._shape.num_kv_heads >= self._num_wanted or not one_query:
            num_splits = 1
        return _Launch(one_query, rows, block_q, num_tiles, max(num_splits, 1))

    def _store(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, metadata: AttentionMetadata
    ) -> None:
        key, value = _heads_together(key), _heads_together(value)
        width = self._shape.num_kv_heads * self._shape.head_dim
        self._kernels.store_kv[(key.shape[0],)](
            key,
            value,
            self.keys[layer],
            self.values[layer],
            metadata.slot_mapping,
            key.stride(0),
            value.stride(0),
            WIDTH=width,
            BLOCK=1 << (width - 1).bit_length(),
        )

    def _attend_splits(
        self,
        layer: int,
        query: torch.Tensor,
        out: torch.Tensor,
        launch: _Launch,
        metadata: AttentionMetadata,
    ) -> None:
        """One program for each split of the keys, then one that folds them."""
        num_splits, num_heads = launch.num_splits, self._shape.num_kv_heads
        sizes = (*query.shape[:2], num_splits)
        options: dict[str, Any] = {"dtype": torch.float32, "device": query.device}
        total = torch.empty(*sizes, query.shape[2], **options)
        top, mass = torch.empty(sizes, **options), torch.empty(sizes, **options)
        starts, lengths, tables, num_seqs = self._lengths(metadata)
        self._kernels.attend_splits[(launch.num_tiles, num_heads, num_splits)](
            *(query, self.keys[layer], self.values[layer], total, top, mass),
            *(starts, lengths, tables, num_seqs, num_splits),
            *self._strides(query, metadata),
            **self._tile(launch),
            **self._products(),
        )
        self._kernels.merge_splits[(launch.num_tiles, num_heads)](
            *(out, total, top, mass, starts, lengths, num_seqs, num_splits),
            **self._tile(launch),
        )

    def _lengths(
        self, metadata: AttentionMetadata
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        lengths = metadata.seq_lens
        return metadata.query_start_loc, lengths, metadata.block_tables, lengths.shape[0]

    def _strides(self, query: torch.Tensor, metadata: AttentionMetadata) -> tuple[float, int, int]:
        """Scale of the scores in powers of two, and strides of the query and the block tables."""
        scale = self._shape.head_dim**-0.5 * math.log2(math.e)
        return scale, query.stride(0), metadata.block_tables.stride(0)

    def _products(self) -> dict[str, Any]:
        """Settings of the kernels that multiply."""
        is_float32 = self._shape.dtype == torch.float32
        return {
            "BLOCK_SIZE": self._shape.block_size,
            "BLOCK_N": 32 if is_float32 else 64,
            "PRECISION": "ieee" if is_float32 else "tf32",  # the latter is moot for half precision
        }

    def _tile(self, launch: _Launch) -> dict[str, Any]:
        return {
            "enable_fp_fusion": False,  # the two ways of folding splits must round alike
            "NUM_KV_HEADS": self._shape.num_kv_heads,
            "GROUP": self._group,
            "HEAD_DIM": self._shape.head_dim,
            "BLOCK_M": launch.block_m,
            "BLOCK_Q": launch.block_q,
            "SPLIT": SPLIT,
            "ONE_QUERY": launch.one_query,
        }


def _heads_together(tensor: torch.Tensor) -> torch.Tensor:
    """[N, heads, head_dim] whose last two dimensions are contiguous; rows may be strided."""
    if tensor.stride(2) == 1 and tensor.stride(1) == tensor.shape[2]:
        return tensor
    return tensor.contiguous()


def _count_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
