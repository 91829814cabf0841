"""One head of one position meets one block of the KV cache, in vectors: pieces of `cpu_kernel`.

Between blocks a position's *state* is kept in float32: addresses of its scaled queries and its
outputs so far [slots, head_dim], of room for scores [lanes], and of the highest score and the total
of the weights [slots]. A slot is one of the query heads that are at work.
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

from ..layers.cpu_math import element_bytes, emit_prefetch, pointer
from ..layers.cpu_panels import input_index
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

_F32, _ONE = np.float32(0), np.float32(1)
_LOWEST = -1e30
_CACHE_LINE = 64
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
def visit(
    state: Any, count: Any, slot: Any, block: Any, following: Any, shape: Any, kind: Any
) -> Any:
    """The query head in a slot meets the first `count` positions of a block, at an address. The
    block at `following` is asked for meanwhile: the hardware does not guess where the next one
    lies. `shape` is (block_size, lanes, num_kv_heads, head_dim)."""
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
def store_head(new: Any, head: Any, block: Any, offset: Any, shape: Any, kind: Any) -> Any:
    """Copy a position's keys and values of one head to an offset of the block and head that lie at
    an address; `new` is (keys, values, where the position's begin in them, anything)."""
    keys, values, begin, _ = new
    _, lanes, _, head_dim = shape
    cache = pointer(block, kind)
    source = begin + head * head_dim
    for i in range(head_dim):
        cache[i * lanes + offset] = keys[source + i]
    for i in range(head_dim):
        cache[(lanes + offset) * head_dim + i] = values[source + i]


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
def load_queries(state: Any, queries: Any, slots: Any, head_dim: Any, kind: Any) -> Any:
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
def write_outputs(
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
