"""The compiled CPU kernel of paged attention (numba).

One work item is one sequence and a range of its KV heads. Its new keys and values are stored; then
each new position attends over all positions before it, block after block, with a running softmax
(Milakov and Gimelshein 2018), so that the cache is read once and in the order in which it lies.
What a position and head get depends on their own query and the cache only, in one fixed order of
sums: it is the same in any batch, for any chunking of a prompt and any number of threads.

The cache of a layer is [num_blocks, num_kv_heads, 2, block_size, head_dim], keys before values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from ..layers.cpu_math import FAST, compiled, exp32, narrow, pointer, prefetch, widen

_F32, _ONE, _I32 = np.float32(0), np.float32(1), np.int32(0)
_LOWEST = np.float32(-1e30)
_LINES_AHEAD = 8
_CACHE_LINE = 32  # bfloat16 elements
_VALUES_AT_ONCE = 4  # positions whose values are added in one pass over the output


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _dot(query: Any, at: Any, keys: Any, base: Any, head_dim: Any) -> Any:
    total = _F32
    for i in range(head_dim):
        total += query[at + i] * widen(keys[base + i])
    return total


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _score(
    scores: Any,
    count: Any,
    query: Any,
    at: Any,
    keys: Any,
    base: Any,
    head_dim: Any,
) -> Any:
    """scores [count] = query times keys; returns the highest."""
    highest = _LOWEST
    for i in range(count):
        scores[i] = _dot(query, at, keys, base + i * head_dim, head_dim)
    for i in range(count):
        highest = max(highest, scores[i])
    return highest


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _exponentiate(scores: Any, count: Any, highest: Any) -> Any:
    """Scores to weights in place; returns their sum."""
    total = _F32
    for i in range(count):
        scores[i] = exp32(scores[i] - highest)
        total += scores[i]
    return total


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _add_four(
    out: Any,
    at: Any,
    weights: Any,
    i: Any,
    values: Any,
    base: Any,
    head_dim: Any,
) -> Any:
    """out += weights[i : i + 4] @ values of four neighbouring positions."""
    w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
    b1, b2, b3 = base + head_dim, base + 2 * head_dim, base + 3 * head_dim
    for d in range(head_dim):
        out[at + d] += (w0 * widen(values[base + d]) + w1 * widen(values[b1 + d])) + (
            w2 * widen(values[b2 + d]) + w3 * widen(values[b3 + d])
        )


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _add_values(
    out: Any, at: Any, weights: Any, count: Any, values: Any, base: Any, head_dim: Any
) -> Any:
    whole = count - count % _VALUES_AT_ONCE
    for i in range(0, whole, _VALUES_AT_ONCE):
        _add_four(out, at, weights, i, values, base + i * head_dim, head_dim)
    for i in range(whole, count):
        for d in range(head_dim):
            out[at + d] += weights[i] * widen(values[base + i * head_dim + d])


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _visit(
    state: Any, scores: Any, count: Any, slot: Any, cache: Any, base: Any, shape: Any
) -> Any:
    """One query head meets one block; `state` is (query, out, highest, total) of all heads."""
    query, out, highest, total = state
    block_size, _, head_dim = shape
    at = slot * head_dim
    before = highest[slot]
    now = max(before, _score(scores, count, query, at, cache, base, head_dim))
    if now > before:
        shrink = exp32(before - now)
        total[slot] *= shrink
        for d in range(head_dim):
            out[at + d] *= shrink
        highest[slot] = now
    total[slot] += _exponentiate(scores, count, now)
    _add_values(out, at, scores, count, cache, base + block_size * head_dim, head_dim)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _fetch(cache: Any, base: Any) -> Any:
    """Ask for the first lines of a block and head: the hardware goes on from there, but does not
    guess where the next one lies."""
    for i in range(_LINES_AHEAD):
        prefetch(cache, base + i * _CACHE_LINE)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _attend(
    state: Any, scores: Any, seen: Any, cache: Any, table: Any, heads: Any, group: Any, shape: Any
) -> Any:
    """All query heads of one position over its first `seen` positions."""
    block_size, num_kv_heads, head_dim = shape
    size = 2 * block_size * head_dim
    num_blocks = (seen + block_size - 1) // block_size
    for index in range(num_blocks):
        count = min(block_size, seen - index * block_size)
        first = np.int64(table[index]) * num_kv_heads * size
        following = np.int64(table[min(index + 1, num_blocks - 1)]) * num_kv_heads * size
        following += heads[0] * size
        for head in range(heads[0], heads[1]):
            ahead = first + (head + 1) * size if head + 1 < heads[1] else following
            _fetch(cache, ahead)
            for member in range(group):
                slot = (head - heads[0]) * group + member
                _visit(state, scores, count, slot, cache, first + head * size, shape)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _store(
    source: Any, start: Any, cache: Any, block: Any, offset: Any, heads: Any, part: Any, shape: Any
) -> Any:
    """Copy the heads of one position to the cache; `part` is 0 for keys, 1 for values."""
    block_size, num_kv_heads, head_dim = shape
    for head in range(heads[0], heads[1]):
        base = (((block * num_kv_heads + head) * 2 + part) * block_size + offset) * head_dim
        for i in range(head_dim):
            cache[base + i] = source[start + head * head_dim + i]


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _load_queries(
    state: Any, queries: Any, start: Any, heads: Any, group: Any, head_dim: Any
) -> Any:
    """Scaled queries of one position to the state, which is reset."""
    query, out, highest, total = state
    scale = _ONE / np.sqrt(np.float32(head_dim))
    begin = start + heads[0] * group * head_dim
    for i in range((heads[1] - heads[0]) * group * head_dim):
        query[i] = widen(queries[begin + i]) * scale
        out[i] = _F32
    for i in range((heads[1] - heads[0]) * group):
        highest[i] = _LOWEST
        total[i] = _F32


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _write(
    state: Any,
    outputs: Any,
    start: Any,
    heads: Any,
    group: Any,
    head_dim: Any,
    kind: Any,
) -> Any:
    _, out, _, total = state
    begin = start + heads[0] * group * head_dim
    for slot in range((heads[1] - heads[0]) * group):
        inverse = _ONE / total[slot]
        for i in range(slot * head_dim, (slot + 1) * head_dim):
            outputs[begin + i] = narrow(out[i] * inverse, kind)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _run_item(
    tensors: Any,
    indices: Any,
    item: Any,
    ranges: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
) -> Any:
    """Store and attend for one sequence and one of `ranges` of heads."""
    block_size, num_kv_heads, head_dim = shape
    group, max_blocks = sizes
    sequence, part = item // ranges, item % ranges
    heads = (part * num_kv_heads // ranges, (part + 1) * num_kv_heads // ranges)
    queries, new_keys = pointer(tensors[0], kind), pointer(tensors[1], kind)
    new_values, outputs = pointer(tensors[2], kind), pointer(tensors[3], kind)
    cache = pointer(tensors[4], kind)
    starts, lengths = pointer(indices[0], _I32), pointer(indices[1], _I32)
    table = pointer(indices[2] + np.int64(sequence * max_blocks * 4), _I32)
    first, last = np.int64(starts[sequence]), np.int64(starts[sequence + 1])
    done = np.int64(lengths[sequence]) - (last - first)
    for row in range(first, last):
        position = done + row - first
        block, offset = np.int64(table[position // block_size]), position % block_size
        _store(new_keys, row * strides[1], cache, block, offset, heads, 0, shape)
        _store(new_values, row * strides[1], cache, block, offset, heads, 1, shape)
    slots = (heads[1] - heads[0]) * group
    width = slots * head_dim
    scratch = np.empty(2 * (width + slots) + block_size, np.float32)
    own = scratch.ctypes.data  # pointers, because an array's index may be negative: no vectors
    query, out = pointer(own, _F32), pointer(own + 4 * width, _F32)
    highest = pointer(own + 8 * width, _F32)
    total = pointer(own + 8 * width + 4 * slots, _F32)
    scores = pointer(own + 8 * (width + slots), _F32)
    state = (query, out, highest, total)
    for row in range(first, last):
        _load_queries(state, queries, row * strides[0], heads, group, head_dim)
        _attend(state, scores, done + row - first + 1, cache, table, heads, group, shape)
        start = row * num_kv_heads * group * head_dim
        _write(state, outputs, start, heads, group, head_dim, kind)
    scratch[0] = _F32  # keeps the memory alive to here


@compiled(parallel=True, fastmath=FAST)
def _in_parallel(
    tensors: Any,
    indices: Any,
    num_items: Any,
    workers: Any,
    ranges: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
) -> Any:
    for worker in prange(workers):
        for item in range(worker, num_items, workers):
            _run_item(tensors, indices, item, ranges, strides, shape, sizes, kind)


@compiled(fastmath=FAST)
def _alone(
    tensors: Any, indices: Any, num_items: Any, strides: Any, shape: Any, sizes: Any, kind: Any
) -> Any:
    for item in range(num_items):
        _run_item(tensors, indices, item, 1, strides, shape, sizes, kind)


def paged_attention(
    tensors: tuple[int, int, int, int, int],
    indices: tuple[int, int, int],
    num_sequences: int,
    workers: int,
    strides: tuple[int, int],
    shape: tuple[int, int, int],
    sizes: tuple[int, int],
    kind: Any,
) -> None:
    """Store new keys and values, then attend.

    Args:
        tensors: addresses of query, key, value, output and one layer's cache.
        indices: addresses of query_start_loc, seq_lens and block_tables (all int32).
        num_sequences: in the step.
        workers: threads to use; each takes every so-many-th item.
        strides: elements from one position to the next in query, and in key and value.
        shape: (block_size, num_kv_heads, head_dim).
        sizes: (query heads per KV head, columns of block_tables).
        kind: marker of the element type (see `cpu_math`).
    """
    if workers == 1:
        _alone(tensors, indices, num_sequences, strides, shape, sizes, kind)
    else:
        ranges = min(workers, shape[1])
        items = num_sequences * ranges
        _in_parallel(tensors, indices, items, workers, ranges, strides, shape, sizes, kind)
