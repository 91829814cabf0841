"""The cache of the backends that only read: storing, and where padding goes."""

from __future__ import annotations

import torch

from stretto.model_executor.attention.paged_cache import PagedCache, one_position
from tests.model_executor.attention.cases import Case


def test_padding_goes_to_the_spare_block() -> None:
    shape = Case([(4, 1)], head_dim=16, block_size=4).shape()
    cache = PagedCache(shape)
    key = torch.arange(1.0, 4.0)[:, None, None].expand(3, shape.num_kv_heads, 16)
    cache.store(1, key, -key, torch.tensor([5, -1, 2]))
    flat = cache.keys[1].flatten(0, 1)[:, 0, 0]
    assert flat[:-4].nonzero().flatten().tolist() == [2, 5]
    assert flat[5] == 1.0
    assert flat[2] == 3.0
    assert cache.values[1].flatten(0, 1)[5, 0, 0] == -1.0
    assert not cache.keys[0].any()


def test_the_smallest_call_is_one_position_of_one_sequence() -> None:
    shape = Case([(0, 1)], num_heads=6, num_kv_heads=2, head_dim=32).shape(torch.bfloat16)
    query, starts, lengths, tables = one_position(shape)
    assert query.shape == (1, 6, 32)
    assert query.dtype == torch.bfloat16
    assert (starts.tolist(), lengths.tolist(), tables.tolist()) == ([0, 1], [1], [[0]])
