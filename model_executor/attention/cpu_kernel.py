"""The compiled CPU kernel of paged attention (numba).

One work item is one sequence and a range of its KV heads. Its new keys and values are stored; then
each new position attends over all positions before it, block after block, with a running softmax
(Milakov and Gimelshein 2018), so that the cache is read once and in the order in which it lies.
What a position and head get depends on their own query and the cache only, in one fixed order of
sums: it is the same in any batch, for any chunking of a prompt and any number of threads.

The cache of a layer is [num_blocks, num_kv_heads, 2, ...]: first keys [head_dim, lanes], so that 16
positions are scored at once, then values [lanes, head_dim]. `lanes` is the block size rounded up
to whole vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.core import cgutils

from ..layers.cpu_math import (
    FAST,
    compiled,
    element_bytes,
    exp32,
    narrow,
    pointer,
    prefetch,
    widen,
)
from ..layers.cpu_vectors import (
    FLOAT,
    FLOATS,
    INT64,
    LANES,
    ZEROS,
    load,
    load_floats,
    multiply_add,
    procedure,
    splat,
    store,
)

_F32, _ONE, _I32 = np.float32(0), np.float32(1), np.int32(0)
_LOWEST = np.float32(-1e30)
_LINES_AHEAD = 8
_CACHE_LINE = 64
_SUMS = 4  # of a score at a time; head_dim is a multiple


def _emit_scores(
    builder: Any, scores: Any, query: Any, keys: Any, head_dim: Any, stride: Any, element: Any
) -> None:
    """scores [16] = query [head_dim] times keys [head_dim, 16]; addresses, and bytes from one
    dimension's keys to the next. Four sums, because one alone would wait for itself."""
    sums = [cgutils.alloca_once_value(builder, ZEROS) for _ in range(_SUMS)]
    with cgutils.for_range(builder, builder.udiv(head_dim, INT64(_SUMS))) as loop:
        first = builder.mul(loop.index, INT64(_SUMS))
        for part, total in enumerate(sums):
            at = builder.add(first, INT64(part))
            factor = load(builder, builder.add(query, builder.mul(at, INT64(4))), FLOAT)
            row = load_floats(builder, builder.add(keys, builder.mul(at, stride)), element)
            after = multiply_add(builder, builder.load(total), splat(builder, factor), row)
            builder.store(after, total)
    left, right = (builder.fadd(builder.load(sums[i]), builder.load(sums[i + 1])) for i in (0, 2))
    store(builder, builder.fadd(left, right), scores)


def _emit_values(
    builder: Any, out: Any, weights: Any, count: Any, values: Any, stride: Any, element: Any
) -> None:
    """out [16] += weights [count] times values [count, 16]; addresses, and bytes from the values of
    one position to those of the next."""
    total = cgutils.alloca_once(builder, FLOATS)
    builder.store(load(builder, out, FLOATS), total)
    with cgutils.for_range(builder, count) as loop:
        weight = load(builder, builder.add(weights, builder.mul(loop.index, INT64(4))), FLOAT)
        row = load_floats(builder, builder.add(values, builder.mul(loop.index, stride)), element)
        builder.store(
            multiply_add(builder, builder.load(total), splat(builder, weight), row), total
        )
    store(builder, builder.load(total), out)


_score_sixteen = procedure(_emit_scores, element_argument=5)
_add_sixteen = procedure(_emit_values, element_argument=5)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _highest(scores: Any, count: Any) -> Any:
    highest = _LOWEST
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
def _visit(state: Any, count: Any, slot: Any, block: Any, shape: Any, kind: Any) -> Any:
    """One query head meets one block, at an address; `state` is the addresses of query and out of
    all heads and of scores, then highest and total of all heads."""
    query, out, score_at, highest, total = state
    _, lanes, _, head_dim = shape
    scores = pointer(score_at, _F32)
    size = element_bytes(kind)
    at = slot * head_dim * 4
    for first in range(0, lanes, LANES):
        keys = block + first * size
        _score_sixteen((score_at + first * 4, query + at, keys, head_dim, lanes * size, kind))
    before = highest[slot]
    now = max(before, _highest(scores, count))
    if now > before:
        shrink = exp32(before - now)
        total[slot] *= shrink
        so_far = pointer(out + at, _F32)
        for d in range(head_dim):
            so_far[d] *= shrink
        highest[slot] = now
    total[slot] += _exponentiate(scores, count, now)
    values = block + lanes * head_dim * size
    for first in range(0, head_dim, LANES):
        target = out + at + first * 4
        _add_sixteen((target, score_at, count, values + first * size, head_dim * size, kind))


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _fetch(address: Any) -> Any:
    """Ask for the first lines of a block and head: the hardware goes on from there, but does not
    guess where the next one lies."""
    memory = pointer(address, np.int8(0))
    for line in range(_LINES_AHEAD):
        prefetch(memory, line * _CACHE_LINE)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _attend(
    state: Any, seen: Any, cache: Any, table: Any, heads: Any, group: Any, shape: Any, kind: Any
) -> Any:
    """All query heads of one position over its first `seen` positions."""
    block_size, lanes, num_kv_heads, head_dim = shape
    size = 2 * lanes * head_dim * element_bytes(kind)
    num_blocks = (seen + block_size - 1) // block_size
    for index in range(num_blocks):
        count = min(block_size, seen - index * block_size)
        first = cache + np.int64(table[index]) * num_kv_heads * size
        following = cache + np.int64(table[min(index + 1, num_blocks - 1)]) * num_kv_heads * size
        following += heads[0] * size
        for head in range(heads[0], heads[1]):
            _fetch(first + (head + 1) * size if head + 1 < heads[1] else following)
            for member in range(group):
                slot = (head - heads[0]) * group + member
                _visit(state, count, slot, first + head * size, shape, kind)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _store_position(
    keys: Any, values: Any, start: Any, cache: Any, place: Any, heads: Any, shape: Any
) -> Any:
    """Copy a position's heads, from `start` in keys and values, to its `place` (block, offset)."""
    block, offset = place
    _, lanes, num_kv_heads, head_dim = shape
    for head in range(heads[0], heads[1]):
        base = (block * num_kv_heads + head) * 2 * lanes * head_dim
        source = start + head * head_dim
        for i in range(head_dim):
            cache[base + i * lanes + offset] = keys[source + i]
        base += (lanes + offset) * head_dim
        for i in range(head_dim):
            cache[base + i] = values[source + i]


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _load_queries(state: Any, queries: Any, begin: Any, slots: Any, head_dim: Any) -> Any:
    """Scaled queries of one position to the state, which is reset."""
    query, out = pointer(state[0], _F32), pointer(state[1], _F32)
    highest, total = state[3], state[4]
    scale = _ONE / np.sqrt(np.float32(head_dim))
    for i in range(slots * head_dim):
        query[i] = widen(queries[begin + i]) * scale
        out[i] = _F32
    for i in range(slots):
        highest[i] = _LOWEST
        total[i] = _F32


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _write(state: Any, outputs: Any, begin: Any, slots: Any, head_dim: Any, kind: Any) -> Any:
    out, total = pointer(state[1], _F32), state[4]
    for slot in range(slots):
        inverse = _ONE / total[slot]
        for i in range(slot * head_dim, (slot + 1) * head_dim):
            outputs[begin + i] = narrow(out[i] * inverse, kind)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def attend_item(
    tensors: Any,
    indices: Any,
    item: Any,
    ranges: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
) -> Any:
    """Store and attend for one sequence and one of `ranges` of heads. For compiled code; see
    `paged_attention` for the arguments."""
    block_size, lanes, num_kv_heads, head_dim = shape
    group, max_blocks = sizes
    sequence, part = item // ranges, item % ranges
    heads = (part * num_kv_heads // ranges, (part + 1) * num_kv_heads // ranges)
    queries, outputs = pointer(tensors[0], kind), pointer(tensors[3], kind)
    keys, values = pointer(tensors[1], kind), pointer(tensors[2], kind)
    cache = pointer(tensors[4], kind)
    starts, lengths = pointer(indices[0], _I32), pointer(indices[1], _I32)
    table = pointer(indices[2] + np.int64(sequence * max_blocks * 4), _I32)
    first, last = np.int64(starts[sequence]), np.int64(starts[sequence + 1])
    done = np.int64(lengths[sequence]) - (last - first)
    for row in range(first, last):
        position = done + row - first
        place = (np.int64(table[position // block_size]), position % block_size)
        _store_position(keys, values, row * strides[1], cache, place, heads, shape)
    slots = (heads[1] - heads[0]) * group
    width = slots * head_dim
    scratch = np.empty(2 * (width + slots) + lanes, np.float32)
    own = scratch.ctypes.data  # pointers, because an array's index may be negative: no vectors
    highest = pointer(own + 8 * width, _F32)
    total = pointer(own + 8 * width + 4 * slots, _F32)
    state = (own, own + 4 * width, own + 8 * (width + slots), highest, total)
    for row in range(first, last):
        _load_queries(
            state, queries, row * strides[0] + heads[0] * group * head_dim, slots, head_dim
        )
        seen = done + row - first + 1
        _attend(state, seen, tensors[4], table, heads, group, shape, kind)
        begin = (row * num_kv_heads + heads[0]) * group * head_dim
        _write(state, outputs, begin, slots, head_dim, kind)
    scratch[0] = _F32  # keeps the memory alive to here


@compiled(fastmath=FAST)
def paged_attention(
    tensors: Any, indices: Any, num_sequences: Any, strides: Any, shape: Any, sizes: Any, kind: Any
) -> Any:
    """Store new keys and values, then attend, on one thread.

    Args:
        tensors: addresses of query, key, value, output and one layer's cache.
        indices: addresses of query_start_loc, seq_lens and block_tables (all int32).
        num_sequences: in the step.
        strides: elements from one position to the next in query, and in key and value.
        shape: (block_size, lanes, num_kv_heads, head_dim).
        sizes: (query heads per KV head, columns of block_tables).
        kind: marker of the element type (see `cpu_math`).
    """
    for item in range(num_sequences):
        attend_item(tensors, indices, item, 1, strides, shape, sizes, kind)
