"""The compiled CPU kernel of paged attention (numba).

One work item is one sequence and one KV head: its new keys and values are stored, then each new
position attends over all positions before it. What a position gets depends on its own query and the
cache only, in one fixed order of sums, so it is the same in any batch and for any chunking of a
prompt. Threads take items in turn; an item is never shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from ..layers.cpu_math import FAST, exp32, narrow, pointer, prefetch, widen

_F32 = np.float32(0)
_I32 = np.int32(0)
_CACHE_LINE = 32  # bfloat16 elements
_SCORES_AT_ONCE = 4  # positions whose values are added in one pass over the output


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _dot(query: Any, keys: Any, base: Any, head_dim: Any) -> Any:
    total = _F32
    for i in range(head_dim):
        total += query[i] * widen(keys[base + i])
    return total


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _fetch_next(cache: Any, first: Any, length: Any, table: Any, head: Any, shape: Any) -> Any:
    """Ask for the block after the one at `first`: blocks lie apart, and the hardware guesses
    within a page only."""
    block_size, num_heads, head_dim = shape
    if first + block_size < length:
        block = np.int64(table[first // block_size + 1])
        base = (block * num_heads + head) * block_size * head_dim
        for i in range(0, block_size * head_dim, _CACHE_LINE):
            prefetch(cache, base + i)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _softmax(scores: Any, length: Any) -> Any:
    """Scores to weights in place; returns their sum, which is left to divide by."""
    highest = scores[0]
    for i in range(1, length):
        highest = max(highest, scores[i])
    total = _F32
    for i in range(length):
        weight = exp32(scores[i] - highest)
        scores[i] = weight
        total += weight
    return total


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _add_four(out: Any, weights: Any, at: Any, values: Any, base: Any, head_dim: Any) -> Any:
    """out += weights[at : at + 4] @ values of four neighbouring positions."""
    w0, w1, w2, w3 = weights[at], weights[at + 1], weights[at + 2], weights[at + 3]
    b1, b2, b3 = base + head_dim, base + 2 * head_dim, base + 3 * head_dim
    for i in range(head_dim):
        out[i] += (w0 * widen(values[base + i]) + w1 * widen(values[b1 + i])) + (
            w2 * widen(values[b2 + i]) + w3 * widen(values[b3 + i])
        )


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _weigh(
    out: Any, scores: Any, length: Any, values: Any, table: Any, head: Any, shape: Any
) -> Any:
    """out [head_dim] = sum of weights times values over the first positions."""
    block_size, num_heads, head_dim = shape
    for i in range(head_dim):
        out[i] = _F32
    for first in range(0, length, block_size):
        base = (np.int64(table[first // block_size]) * num_heads + head) * block_size * head_dim
        _fetch_next(values, first, length, table, head, shape)
        count = min(block_size, length - first)
        whole = count - count % _SCORES_AT_ONCE
        for at in range(0, whole, _SCORES_AT_ONCE):
            _add_four(out, scores, first + at, values, base + at * head_dim, head_dim)
        for at in range(whole, count):
            weight = scores[first + at]
            for i in range(head_dim):
                out[i] += weight * widen(values[base + at * head_dim + i])


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _score(
    scores: Any, query: Any, length: Any, keys: Any, table: Any, head: Any, shape: Any
) -> Any:
    """scores [length] = query times the keys of the first positions."""
    block_size, num_heads, head_dim = shape
    for first in range(0, length, block_size):
        base = (np.int64(table[first // block_size]) * num_heads + head) * block_size * head_dim
        _fetch_next(keys, first, length, table, head, shape)
        for at in range(min(block_size, length - first)):
            scores[first + at] = _dot(query, keys, base + at * head_dim, head_dim)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _store(
    source: Any, start: Any, stride: Any, cache: Any, slot: Any, head: Any, shape: Any
) -> Any:
    """Copy one head of one position to the cache; `slot` is (block, offset)."""
    block_size, num_heads, head_dim = shape
    base = ((slot[0] * num_heads + head) * block_size + slot[1]) * head_dim
    for i in range(head_dim):
        cache[base + i] = source[start * stride + head * head_dim + i]


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _run_item(
    tensors: Any,
    caches: Any,
    indices: Any,
    item: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
) -> Any:
    """Store and attend for one sequence and KV head. See `paged_attention` for the arguments."""
    block_size, num_kv_heads, head_dim = shape
    group, max_blocks = sizes
    sequence, head = item // num_kv_heads, item % num_kv_heads
    queries, new_keys = pointer(tensors[0], kind), pointer(tensors[1], kind)
    new_values, outputs = pointer(tensors[2], kind), pointer(tensors[3], kind)
    keys, values = pointer(caches[0], kind), pointer(caches[1], kind)
    starts, lengths = pointer(indices[0], _I32), pointer(indices[1], _I32)
    table = pointer(indices[2] + np.int64(sequence * max_blocks * 4), _I32)
    first, last = np.int64(starts[sequence]), np.int64(starts[sequence + 1])
    length = np.int64(lengths[sequence])
    done = length - (last - first)
    for row in range(first, last):
        position = done + row - first
        slot = (np.int64(table[position // block_size]), position % block_size)
        _store(new_keys, row, strides[1], keys, slot, head, shape)
        _store(new_values, row, strides[1], values, slot, head, shape)
    scores, query, out = (
        np.empty(length, np.float32),
        np.empty(head_dim, np.float32),
        np.empty(head_dim, np.float32),
    )
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    for row in range(first, last):
        seen = done + row - first + 1
        for query_head in range(head * group, head * group + group):
            start = row * strides[0] + query_head * head_dim
            for i in range(head_dim):
                query[i] = widen(queries[start + i]) * scale
            _score(scores, query, seen, keys, table, head, shape)
            inverse = np.float32(1) / _softmax(scores, seen)
            _weigh(out, scores, seen, values, table, head, shape)
            start = (row * num_kv_heads * group + query_head) * head_dim
            for i in range(head_dim):
                outputs[start + i] = narrow(out[i] * inverse, kind)


@njit(parallel=True, fastmath=FAST, error_model="numpy", cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _in_parallel(
    tensors: Any,
    caches: Any,
    indices: Any,
    num_items: Any,
    workers: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
) -> Any:
    for worker in prange(workers):
        for item in range(worker, num_items, workers):
            _run_item(tensors, caches, indices, item, strides, shape, sizes, kind)


@njit(fastmath=FAST, error_model="numpy", cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _alone(
    tensors: Any,
    caches: Any,
    indices: Any,
    num_items: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
) -> Any:
    for item in range(num_items):
        _run_item(tensors, caches, indices, item, strides, shape, sizes, kind)


def paged_attention(
    tensors: tuple[int, int, int, int],
    caches: tuple[int, int],
    indices: tuple[int, int, int],
    num_items: int,
    workers: int,
    strides: tuple[int, int],
    shape: tuple[int, int, int],
    sizes: tuple[int, int],
    kind: Any,
) -> None:
    """Store new keys and values, then attend.

    Args:
        tensors: addresses of query, key, value and output.
        caches: addresses of one layer's keys and values,
            [num_blocks, num_kv_heads, block_size, head_dim].
        indices: addresses of query_start_loc, seq_lens and block_tables (all int32).
        num_items: sequences times KV heads.
        workers: threads to use.
        strides: elements from one position to the next in query, and in key and value.
        shape: (block_size, num_kv_heads, head_dim).
        sizes: (query heads per KV head, columns of block_tables).
        kind: marker of the element type (see `cpu_math`).
    """
    if workers == 1:
        _alone(tensors, caches, indices, num_items, strides, shape, sizes, kind)
    else:
        _in_parallel(tensors, caches, indices, num_items, workers, strides, shape, sizes, kind)
