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

from ..layers.cpu_math import FAST, compiled, element_bytes, pointer
from ..layers.cpu_panels import FLOAT32
from .cpu_block import load_queries, store_head, visit, write_outputs

_F32, _I32 = np.float32(0), np.int32(0)
_BY_ROWS = FLOAT32  # a mode that leaves rows as they are


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
                store_head(new, head, at, count - 1, shape, kind)
            for member in range(group):
                slot = (head - heads[0]) * group + member
                ahead = at + size if head + 1 < heads[1] else after
                visit(state, count, slot, at, ahead, shape, kind)


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
                store_head(new, head, at, position % block_size, shape, kind)
    slots = (heads[1] - heads[0]) * group
    for row in range(first, last):
        begin = (row * strides[0] + heads[0] * group * head_dim) * element_bytes(kind)
        load_queries(state, tensors[0] + begin, slots, head_dim, kind)
        new = (keys, values, row * strides[1], is_alone)
        seen = before + row + 1
        _attend(state, seen, tensors[4], table, heads, group, new, following, shape, kind)
        place = (row, heads[0] * group * head_dim, num_kv_heads * group * head_dim)
        write_outputs(state, tensors[3], place, slots, head_dim, kind, order)


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
