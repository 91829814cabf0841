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

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils

from ..layers.cpu_math import (
    FAST,
    compiled,
    element_bytes,
    emit_prefetch,
    pointer,
)
from ..layers.cpu_panels import FLOAT32, input_index
from ..layers.cpu_vectors import (
    FLOAT,
    FLOATS,
    INT32,
    INT64,
    INTS,
    LANES,
    ZEROS,
    exponential,
    filled,
    greater,
    load,
    load_floats,
    multiply_add,
    procedure,
    reduced,
    splat,
    store,
    store_floats,
)

_F32, _ONE, _I32 = np.float32(0), np.float32(1), np.int32(0)
_LOWEST = -1e30
_CACHE_LINE = 64
_BY_ROWS = FLOAT32  # a mode that leaves rows as they are
_SUMS = 4  # of a score at a time; head_dim is a multiple


def _vector_bytes(element: Any) -> int:
    return LANES * int(element.bitwidth) // 8


def _ask_for(builder: Any, base: Any, index: Any, size: int) -> None:
    """Ask for the `index`th `size` bytes from an address."""
    for first in range(0, size, _CACHE_LINE):
        at = builder.add(base, builder.mul(index, INT64(size)))
        emit_prefetch(builder, builder.add(at, INT64(first)))


def _emit_scores(
    builder: Any,
    scores: Any,
    query: Any,
    keys: Any,
    head_dim: Any,
    stride: Any,
    following: Any,
    element: Any,
) -> None:
    """scores [16] = query [head_dim] times keys [head_dim, 16]; addresses, and bytes from one
    dimension's keys to the next. Four sums, because one alone would wait for itself. Meanwhile as
    many bytes from `following` are asked for."""
    sums = [cgutils.alloca_once_value(builder, ZEROS) for _ in range(_SUMS)]
    with cgutils.for_range(builder, builder.udiv(head_dim, INT64(_SUMS))) as loop:
        first = builder.mul(loop.index, INT64(_SUMS))
        for part, total in enumerate(sums):
            at = builder.add(first, INT64(part))
            factor = load(builder, builder.add(query, builder.mul(at, INT64(4))), FLOAT)
            row = load_floats(builder, builder.add(keys, builder.mul(at, stride)), element)
            after = multiply_add(builder, builder.load(total), splat(builder, factor), row)
            builder.store(after, total)
        _ask_for(builder, following, loop.index, _SUMS * _vector_bytes(element))
    left, right = (builder.fadd(builder.load(sums[i]), builder.load(sums[i + 1])) for i in (0, 2))
    store(builder, builder.fadd(left, right), scores)


def _emit_values(
    builder: Any,
    out: Any,
    weights: Any,
    count: Any,
    values: Any,
    stride: Any,
    following: Any,
    element: Any,
) -> None:
    """out [16] += weights [count] times values [count, 16]; addresses, and bytes from the values of
    one position to those of the next. Meanwhile as many bytes from `following` are asked for."""
    total = cgutils.alloca_once(builder, FLOATS)
    builder.store(load(builder, out, FLOATS), total)
    with cgutils.for_range(builder, count) as loop:
        weight = load(builder, builder.add(weights, builder.mul(loop.index, INT64(4))), FLOAT)
        row = load_floats(builder, builder.add(values, builder.mul(loop.index, stride)), element)
        builder.store(
            multiply_add(builder, builder.load(total), splat(builder, weight), row), total
        )
        _ask_for(builder, following, loop.index, _vector_bytes(element))
    store(builder, builder.load(total), out)


def _emit_softmax(
    builder: Any,
    scores: Any,
    lanes: Any,
    count: Any,
    highest: Any,
    total: Any,
    out: Any,
    head_dim: Any,
) -> None:
    """A running softmax goes on: the first `count` of `lanes` scores become weights, the others
    nothing; the highest score and the total so far follow, and what is in `out` [head_dim] shrinks
    with them. Addresses and numbers."""
    before = load(builder, highest, FLOAT)
    top = cgutils.alloca_once_value(builder, filled(_LOWEST))
    for_vectors = partial(_for_vectors, builder)
    with for_vectors(scores, lanes) as (at, first):
        valid = _below(builder, first, count)
        seen = builder.select(valid, load(builder, at, FLOATS), filled(_LOWEST))
        builder.store(greater(builder, builder.load(top), seen), top)
    now = greater(builder, before, reduced(builder, greater, builder.load(top)))
    sums = cgutils.alloca_once_value(builder, ZEROS)
    with for_vectors(scores, lanes) as (at, first):
        score = builder.fsub(load(builder, at, FLOATS), splat(builder, now))
        weight = builder.select(_below(builder, first, count), exponential(builder, score), ZEROS)
        builder.store(builder.fadd(builder.load(sums), weight), sums)
        store(builder, weight, at)
    shrink = exponential(builder, splat(builder, builder.fsub(before, now)))
    with builder.if_then(builder.fcmp_ordered(">", now, before)):
        store(builder, now, highest)
        with for_vectors(out, head_dim) as (at, _):
            store(builder, builder.fmul(load(builder, at, FLOATS), shrink), at)
    so_far = builder.fmul(
        load(builder, total, FLOAT), builder.extract_element(shrink, ir.Constant(INT32, 0))
    )
    added = reduced(builder, ir.IRBuilder.fadd, builder.load(sums))
    store(builder, builder.fadd(so_far, added), total)


@contextmanager
def _for_vectors(builder: Any, base: Any, count: Any) -> Iterator[tuple[Any, Any]]:
    """A loop over `count` float32 from an address: the address and the index of each 16."""
    with cgutils.for_range(builder, builder.udiv(count, INT64(LANES))) as loop:
        first = builder.mul(loop.index, INT64(LANES))
        yield builder.add(base, builder.mul(first, INT64(4))), first


def _below(builder: Any, first: Any, count: Any) -> Any:
    """Which of the 16 numbers from `first` on are below `count`."""
    left = builder.trunc(builder.sub(count, first), INT32)
    return builder.icmp_signed(">", splat(builder, left), ir.Constant(INTS, list(range(LANES))))


_score_sixteen = procedure(_emit_scores, element_argument=6)
_add_sixteen = procedure(_emit_values, element_argument=6)
_soften = procedure(_emit_softmax)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _visit(
    state: Any, count: Any, slot: Any, block: Any, following: Any, shape: Any, kind: Any
) -> Any:
    """One query head meets one block, at an address; `state` is the addresses of query and out of
    all heads, of scores, and of highest and total of all heads. The block at `following` is asked
    for meanwhile: the hardware does not guess where the next one lies."""
    query, out, scores, highest, total = state
    _, lanes, _, head_dim = shape
    size = element_bytes(kind)
    at = slot * head_dim * 4
    for first in range(0, lanes, LANES):
        keys = block + first * size
        ahead = following + first * head_dim * size
        _score_sixteen((scores + first * 4, query + at, keys, head_dim, lanes * size, ahead, kind))
    _soften((scores, lanes, count, highest + slot * 4, total + slot * 4, out + at, head_dim))
    values, ahead = block + lanes * head_dim * size, following + lanes * head_dim * size
    for first in range(0, head_dim, LANES):
        target, source = out + at + first * 4, values + first * size
        _add_sixteen(
            (target, scores, count, source, head_dim * size, ahead + first * lanes * size, kind)
        )


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _store_head(new: Any, head: Any, block: Any, offset: Any, shape: Any, kind: Any) -> Any:
    """Copy a position's keys and values of one head to an offset of the block and head that lie at
    an address; `new` as in `_attend`."""
    keys, values, begin, _ = new
    _, lanes, _, head_dim = shape
    cache = pointer(block, kind)
    source = begin + head * head_dim
    for i in range(head_dim):
        cache[i * lanes + offset] = keys[source + i]
    for i in range(head_dim):
        cache[(lanes + offset) * head_dim + i] = values[source + i]


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _attend(
    state: Any,
    seen: Any,
    cache: Any,
    table: Any,
    heads: Any,
    group: Any,
    new: Any,
    following: Any,
    shape: Any,
    kind: Any,
) -> Any:
    """All query heads of one position over its first `seen` positions; `following` is the block and
    head that come after them. `new` is (keys, values, where the position's begin in them, whether
    they are still to be stored): that is done just before they are met, when their place has been
    asked for."""
    block_size, lanes, num_kv_heads, head_dim = shape
    size = 2 * lanes * head_dim * element_bytes(kind)
    num_blocks = (seen + block_size - 1) // block_size
    for index in range(num_blocks):
        count = min(block_size, seen - index * block_size)
        first = cache + np.int64(table[index]) * num_kv_heads * size
        after = following
        if index + 1 < num_blocks:
            after = cache + (np.int64(table[index + 1]) * num_kv_heads + heads[0]) * size
        is_last = index + 1 == num_blocks
        for head in range(heads[0], heads[1]):
            at = first + head * size
            if is_last and new[3]:
                _store_head(new, head, at, count - 1, shape, kind)
            for member in range(group):
                slot = (head - heads[0]) * group + member
                ahead = at + size if head + 1 < heads[1] else after
                _visit(state, count, slot, at, ahead, shape, kind)


def _emit_scale(
    builder: Any, source: Any, factor: Any, target: Any, out: Any, element: Any
) -> None:
    """16 elements times a factor, as float32, to `target`; zeros to `out`. Addresses."""
    values = load_floats(builder, source, element)
    store(builder, builder.fmul(values, splat(builder, factor)), target)
    store(builder, ZEROS, out)


def _emit_scaled(builder: Any, source: Any, factor: Any, target: Any, element: Any) -> None:
    """16 float32 times a factor, as elements."""
    values = load(builder, source, FLOATS)
    store_floats(builder, builder.fmul(values, splat(builder, factor)), target, element)


_scale_sixteen = procedure(_emit_scale, element_argument=4)
_write_sixteen = procedure(_emit_scaled, element_argument=3)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _load_queries(state: Any, queries: Any, slots: Any, head_dim: Any, kind: Any) -> Any:
    """Scaled queries of one position, at an address, to the state, which is reset."""
    highest, total = pointer(state[3], _F32), pointer(state[4], _F32)
    size = element_bytes(kind)
    scale = _ONE / np.sqrt(np.float32(head_dim))
    for i in range(0, slots * head_dim, LANES):
        _scale_sixteen((queries + i * size, scale, state[0] + i * 4, state[1] + i * 4, kind))
    for i in range(slots):
        highest[i] = _LOWEST
        total[i] = _F32


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _write(
    state: Any, outputs: Any, place: Any, slots: Any, head_dim: Any, kind: Any, order: Any
) -> Any:
    """Outputs of one position to their `place` (row, first column, columns of a row)."""
    total, size = pointer(state[4], _F32), element_bytes(kind)
    row, column, width = place
    for slot in range(slots):
        inverse = _ONE / total[slot]
        for first in range(slot * head_dim, (slot + 1) * head_dim, LANES):
            target = outputs + input_index(order, row, column + first, width) * size
            _write_sixteen((state[1] + first * 4, inverse, target, kind))


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def attend_item(
    tensors: Any,
    indices: Any,
    item: Any,
    ranges: Any,
    upcoming: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
    order: Any,
) -> Any:
    """Store and attend for one sequence and one of `ranges` of heads. For compiled code; see
    `paged_attention` for the arguments. `upcoming` is the item that comes next on this thread;
    `order` is the mode of the products whose inputs the outputs are (see `cpu_panels`)."""
    _, lanes, num_kv_heads, head_dim = shape
    group, _ = sizes
    sequence, heads = _split(item, ranges, num_kv_heads)
    starts, lengths = pointer(indices[0], _I32), pointer(indices[1], _I32)
    first, last = np.int64(starts[sequence]), np.int64(starts[sequence + 1])
    rows = (first, last, np.int64(lengths[sequence]) - last)
    following = _beginning(tensors[4], indices[2], upcoming, ranges, shape, sizes, kind)
    # One position meets the heads of a block in the order in which they lie in memory; of many
    # positions each head's turn comes alone, while its keys and values are in the nearest cache.
    at_once = heads[1] - heads[0] if last - first == 1 else 1
    slots = at_once * group
    width = slots * head_dim
    scratch = np.empty(2 * (width + slots) + lanes, np.float32)
    own = scratch.ctypes.data
    highest = own + 8 * width
    state = (own, own + 4 * width, highest + 8 * slots, highest, highest + 4 * slots)
    for head in range(heads[0], heads[1], at_once):
        some = (head, head + at_once)
        _attend_rows(
            state,
            tensors,
            indices[2],
            sequence,
            rows,
            some,
            following,
            strides,
            shape,
            sizes,
            kind,
            order,
        )
    scratch[0] = _F32  # keeps the memory alive to here


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _split(item: Any, ranges: Any, num_kv_heads: Any) -> Any:
    """The sequence of an item and its heads (first, end)."""
    part = item % ranges
    return item // ranges, (part * num_kv_heads // ranges, (part + 1) * num_kv_heads // ranges)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _beginning(
    cache: Any, tables: Any, item: Any, ranges: Any, shape: Any, sizes: Any, kind: Any
) -> Any:
    """Address of the first block of an item's first head."""
    _, lanes, num_kv_heads, head_dim = shape
    sequence, heads = _split(item, ranges, num_kv_heads)
    block = np.int64(pointer(tables, _I32)[sequence * sizes[1]])
    return cache + (block * num_kv_heads + heads[0]) * 2 * lanes * head_dim * element_bytes(kind)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _attend_rows(
    state: Any,
    tensors: Any,
    tables: Any,
    sequence: Any,
    rows: Any,
    heads: Any,
    following: Any,
    strides: Any,
    shape: Any,
    sizes: Any,
    kind: Any,
    order: Any,
) -> Any:
    """Store and attend for a sequence's new `rows` (first, end, how many positions lie before row
    0 of the batch) and some of its KV heads."""
    block_size, lanes, num_kv_heads, head_dim = shape
    group, max_blocks = sizes
    first, last, before = rows
    keys, values = pointer(tensors[1], kind), pointer(tensors[2], kind)
    table = pointer(tables + np.int64(sequence * max_blocks * 4), _I32)
    is_alone = last - first == 1
    if not is_alone:
        size = 2 * lanes * head_dim * element_bytes(kind)
        for row in range(first, last):
            position = before + row
            block = np.int64(table[position // block_size]) * num_kv_heads
            new = (keys, values, row * strides[1], True)
            for head in range(heads[0], heads[1]):
                at = tensors[4] + (block + head) * size
                _store_head(new, head, at, position % block_size, shape, kind)
    slots = (heads[1] - heads[0]) * group
    for row in range(first, last):
        begin = (row * strides[0] + heads[0] * group * head_dim) * element_bytes(kind)
        _load_queries(state, tensors[0] + begin, slots, head_dim, kind)
        new = (keys, values, row * strides[1], is_alone)
        seen = before + row + 1
        _attend(state, seen, tensors[4], table, heads, group, new, following, shape, kind)
        place = (row, heads[0] * group * head_dim, num_kv_heads * group * head_dim)
        _write(state, tensors[3], place, slots, head_dim, kind, order)


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
        upcoming = min(item + 1, num_sequences - 1)
        attend_item(tensors, indices, item, 1, upcoming, strides, shape, sizes, kind, _BY_ROWS)
