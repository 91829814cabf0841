"""Batches of paged attention from a few numbers, for every backend alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stretto.model_executor.attention.interface import AttentionBackend, AttentionMetadata
from stretto.model_executor.attention.reference import ReferenceAttention
from stretto.model_executor.attention.selector import KVCacheShape
from stretto.model_executor.attention.triton_paged import TritonAttention


@dataclass(frozen=True)
class Case:
    """Sequences as (positions cached before, new positions)."""

    sequences: Sequence[tuple[int, int]]
    num_heads: int = 2
    num_kv_heads: int = 2
    head_dim: int = 64
    block_size: int = 16

    @property
    def num_new(self) -> int:
        return sum(new for _, new in self.sequences)

    @property
    def max_blocks(self) -> int:
        return max(-(-(old + new) // self.block_size) for old, new in self.sequences)

    def shape(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", num_layers: int = 2
    ) -> KVCacheShape:
        return KVCacheShape(
            num_layers=num_layers,
            num_blocks=self.max_blocks * len(self.sequences) + 1,
            block_size=self.block_size,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            dtype=dtype,
            device=torch.device(device),
        )

    def block_tables(self, seed: int = 0) -> torch.Tensor:
        """Blocks in a random order: int32 [B, max_blocks]."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.max_blocks * len(self.sequences), generator=generator)
        return order.int().reshape(len(self.sequences), -1)

    def metadata(
        self, part: Sequence[tuple[int, int]] | None = None, device: str = "cpu"
    ) -> AttentionMetadata:
        """Of a step that computes `part` = (first position, count) of each sequence."""
        part = self.sequences if part is None else part
        tables = self.block_tables()
        slots: list[int] = []
        for row, (old, new) in enumerate(part):
            for position in range(old, old + new):
                block = int(tables[row, position // self.block_size])
                slots.append(block * self.block_size + position % self.block_size)
        counts = torch.tensor([new for _, new in part])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return AttentionMetadata(
            query_start_loc=starts.int().to(device),
            seq_lens=torch.tensor([old + new for old, new in part]).int().to(device),
            block_tables=tables.to(device),
            slot_mapping=torch.tensor(slots, dtype=torch.int64, device=device),
            max_query_len=int(counts.max()),
            max_seq_len=max(old + new for old, new in part),
        )

    def inputs(
        self, count: int, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query [N, H, D], key and value [N, KV, D], cut from one tensor as the model does."""
        generator = torch.Generator().manual_seed(seed)
        heads = self.num_heads + 2 * self.num_kv_heads
        packed = torch.randn(count, heads, self.head_dim, generator=generator)
        packed = packed.to(device, dtype)
        query, rest = packed[:, : self.num_heads], packed[:, self.num_heads :]
        return query, rest[:, : self.num_kv_heads], rest[:, self.num_kv_heads :]

    def run(
        self, backend: AttentionBackend, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> torch.Tensor:
        """Fill the cache with what came before, then run the step on layer 1: [N, H, D]."""
        self._fill(backend, dtype, device)
        query, key, value = self.inputs(self.num_new, 2, dtype, device)
        return backend.forward(1, query, key, value, self.metadata(device=device))

    def _fill(self, backend: AttentionBackend, dtype: torch.dtype, device: str) -> None:
        """Positions before the step; written directly where the cache is plain to see."""
        before = [(0, max(old, 1)) for old, _ in self.sequences]
        query, key, value = self.inputs(sum(new for _, new in before), 1, dtype, device)
        metadata = self.metadata(before, device)
        if isinstance(backend, (ReferenceAttention, TritonAttention)):
            backend.keys[1, metadata.slot_mapping] = key
            backend.values[1, metadata.slot_mapping] = value
        else:
            backend.forward(1, query, key, value, metadata)


CASES = {
    "decode": Case([(9, 1), (37, 1), (16, 1), (0, 1)]),
    "decode, many splits": Case([(70, 1), (31, 1), (32, 1), (64, 1)]),
    "prefill": Case([(0, 20), (0, 7), (0, 16)]),
    "chunk after prefix": Case([(33, 10), (64, 3)]),
    "mixed": Case([(40, 1), (0, 18), (12, 1), (5, 4)]),
    "one sequence": Case([(20, 5)]),
    "head size 32": Case([(30, 1), (0, 20)], num_heads=3, num_kv_heads=3, head_dim=32),
    "head size 16": Case([(70, 1), (4, 1)], head_dim=16),
    "grouped queries": Case([(30, 1), (0, 12), (7, 4)], num_heads=6, num_kv_heads=2),
    "grouped decode": Case([(70, 1), (40, 1)], num_heads=8, num_kv_heads=1, head_dim=32),
    "odd blocks": Case([(11, 4), (23, 1)], block_size=5, head_dim=16),
}
