"""Triton kernels of paged attention: store new keys and values, attend, merge splits.

Import this module only where Triton is installed and the backend was chosen. Every kernel works on
one layer of the cache, keys and values [num_slots, NUM_KV_HEADS, HEAD_DIM], contiguous.

Attention is computed by tiles of rows. A row is one (position, query head) pair; the GROUP query
heads that share a KV head lie side by side, so a tile of BLOCK_M rows covers BLOCK_Q positions.
Keys are visited in splits of SPLIT positions with an online softmax inside each, and the splits
are folded in order, in one program or in several. Where the splits end depends on positions alone,
so the sums of a sequence do not depend on its neighbours. Sources: online softmax (Milakov and
Gimelshein 2018), tiling (FlashAttention-2, Dao 2023), split KV (Flash-Decoding, Dao et al. 2023).
"""

# Triton's decorator and its tensors carry no types.
# mypy: disable-error-code="misc, no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

# Differ from step to step; a kernel for each kind of number would be compiled in service.
_COUNTS = ("num_seqs", "num_splits", "table_stride")


@triton.jit
def store_kv(
    key,
    value,
    keys,
    values,
    slot_mapping,
    key_stride,
    value_stride,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write one position's key and value, [WIDTH] each; slots below 0 are padding."""
    token = tl.program_id(0)
    slot = tl.load(slot_mapping + token)
    if slot < 0:
        return
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    new_key = tl.load(key + token * key_stride + column, mask=inside)
    new_value = tl.load(value + token * value_stride + column, mask=inside)
    tl.store(keys + slot * WIDTH + column, new_key, mask=inside)
    tl.store(values + slot * WIDTH + column, new_value, mask=inside)


@triton.jit
def _find_sequence(query_start_loc, num_seqs, tile, BLOCK_Q: tl.constexpr):
    """The sequence that a tile belongs to.

    Sequence b owns the tiles from query_start_loc[b] // BLOCK_Q + b on; some of the last may be
    empty. Binary search, so that the grid follows from the number of positions alone.
    """
    low = 0
    high = num_seqs
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_start_loc + middle) // BLOCK_Q + middle <= tile:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _locate(query_start_loc, num_seqs, BLOCK_Q: tl.constexpr, ONE_QUERY: tl.constexpr):
    """Sequence, first packed position, number of positions, first position of this tile."""
    tile = tl.program_id(0)
    if ONE_QUERY:
        return tile, tile, 1, 0
    seq = _find_sequence(query_start_loc, num_seqs, tile, BLOCK_Q)
    begin = tl.load(query_start_loc + seq)
    count = tl.load(query_start_loc + seq + 1) - begin
    return seq, begin, count, (tile - begin // BLOCK_Q - seq) * BLOCK_Q


@triton.jit
def _no_keys(BLOCK_M: tl.constexpr, HEAD_DIM: tl.constexpr):
    """The softmax accumulator of rows that have seen nothing: top, mass, total."""
    top = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    mass = tl.zeros([BLOCK_M], dtype=tl.float32)
    total = tl.zeros([BLOCK_M, HEAD_DIM], dtype=tl.float32)
    return top, mass, total


@triton.jit
def _load_rows(query, place, head, is_row, query_stride, HEAD_DIM: tl.constexpr):
    """The queries of a tile's rows, [BLOCK_M, HEAD_DIM]."""
    columns = tl.arange(0, HEAD_DIM)[None, :]
    source = query + place[:, None] * query_stride + head[:, None] * HEAD_DIM + columns
    return tl.load(source, mask=is_row[:, None], other=0.0)


@triton.jit
def _write_mean(out, target, is_row, mass, total, HEAD_DIM: tl.constexpr):
    """Normalise an accumulator and write its rows; zeros for those that saw no key."""
    mean = total / tl.where(mass == 0.0, 1.0, mass)[:, None]
    sink = out + target[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(sink, mean.to(out.dtype.element_ty), mask=is_row[:, None])


@triton.jit
def _fold(top, mass, total, other_top, other_mass, other_total):
    """Fold one softmax accumulator into another; exact when one of them is empty."""
    new_top = tl.maximum(top, other_top)
    base = tl.where(new_top == float("-inf"), 0.0, new_top)
    scale = tl.exp2(top - base)
    other_scale = tl.exp2(other_top - base)
    mass = mass * scale + other_mass * other_scale
    total = total * scale[:, None] + other_total * other_scale[:, None]
    return new_top, mass, total


@triton.jit
def _attend_split(
    query_rows,
    positions,
    keys,
    values,
    block_table,
    kv_head,
    begin,
    end,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Online softmax of BLOCK_M rows over key positions [begin, end): top, mass, total."""
    columns = tl.arange(0, HEAD_DIM)
    top, mass, total = _no_keys(BLOCK_M, HEAD_DIM)
    for start in range(begin, end, BLOCK_N):
        position = start + tl.arange(0, BLOCK_N)
        inside = position < end
        block = tl.load(block_table + position // BLOCK_SIZE, mask=inside, other=0).to(tl.int64)
        slot = block * BLOCK_SIZE + position % BLOCK_SIZE
        offset = (slot * NUM_KV_HEADS + kv_head) * HEAD_DIM
        key = tl.load(keys + offset[None, :] + columns[:, None], mask=inside[None, :], other=0.0)
        score = tl.dot(query_rows, key, input_precision=PRECISION) * scale
        seen = inside[None, :] & (position[None, :] <= positions[:, None])
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        weight = tl.exp2(score - base[:, None])
        shrink = tl.exp2(top - base)
        value = tl.load(
            values + offset[:, None] + columns[None, :], mask=inside[:, None], other=0.0
        )
        product = tl.dot(weight.to(value.dtype), value, input_precision=PRECISION)
        total = total * shrink[:, None] + product
        mass = mass * shrink + tl.sum(weight, 1)
        top = new_top
    return top, mass, total


@triton.jit
def _open_tile(
    query_start_loc,
    seq_lens,
    num_seqs,
    GROUP: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    ONE_QUERY: tl.constexpr,
):
    """This program's tile.

    Returns:
        The sequence; one past the last key position that a row sees (0 for an empty tile); and of
        the rows: packed positions (int64), positions in the sequence, query heads, places in an
        output [N, num_heads], and which of them are real.
    """
    seq, begin, count, first = _locate(query_start_loc, num_seqs, BLOCK_Q, ONE_QUERY)
    context = tl.load(seq_lens + seq) - count
    end = tl.where(first < count, context + tl.minimum(first + BLOCK_Q, count), 0)
    row = tl.arange(0, BLOCK_M)
    local = first + row // GROUP
    is_row = (row < BLOCK_Q * GROUP) & (local < count)
    place = (begin + local).to(tl.int64)
    head = tl.program_id(1) * GROUP + row % GROUP
    target = place * (NUM_KV_HEADS * GROUP) + head
    return seq.to(tl.int64), end, place, context + local, head, target, is_row


@triton.jit(do_not_specialize=_COUNTS)
def attend(
    query,
    keys,
    values,
    out,
    query_start_loc,
    seq_lens,
    block_tables,
    num_seqs,
    scale,
    query_stride,
    table_stride,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    ONE_QUERY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend for one tile of rows and one KV head; writes `out` [N, num_heads, HEAD_DIM]."""
    seq, end, place, positions, head, target, is_row = _open_tile(
        query_start_loc, seq_lens, num_seqs, GROUP, NUM_KV_HEADS, BLOCK_M, BLOCK_Q, ONE_QUERY
    )
    query_rows = _load_rows(query, place, head, is_row, query_stride, HEAD_DIM)
    table = block_tables + seq * table_stride
    all_top, all_mass, all_total = _no_keys(BLOCK_M, HEAD_DIM)
    for start in range(0, end, SPLIT):
        stop = tl.minimum(start + SPLIT, end)
        top, mass, total = _attend_split(
            query_rows, positions, keys, values, table, tl.program_id(1), start, stop, scale,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, BLOCK_M, BLOCK_N, PRECISION,
        )  # fmt: skip
        all_top, all_mass, all_total = _fold(all_top, all_mass, all_total, top, mass, total)
    _write_mean(out, target, is_row, all_mass, all_total, HEAD_DIM)


@triton.jit(do_not_specialize=_COUNTS)
def attend_splits(
    query,
    keys,
    values,
    partial_total,
    partial_top,
    partial_mass,
    query_start_loc,
    seq_lens,
    block_tables,
    num_seqs,
    num_splits,
    scale,
    query_stride,
    table_stride,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    ONE_QUERY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`attend` over one split only; writes `partial_*` [N, num_heads, num_splits, ...]."""
    seq, end, place, positions, head, target, is_row = _open_tile(
        query_start_loc, seq_lens, num_seqs, GROUP, NUM_KV_HEADS, BLOCK_M, BLOCK_Q, ONE_QUERY
    )
    split = tl.program_id(2)
    start = split * SPLIT
    if start >= end:
        return
    query_rows = _load_rows(query, place, head, is_row, query_stride, HEAD_DIM)
    table = block_tables + seq * table_stride
    stop = tl.minimum(start + SPLIT, end)
    top, mass, total = _attend_split(
        query_rows, positions, keys, values, table, tl.program_id(1), start, stop, scale,
        NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, BLOCK_M, BLOCK_N, PRECISION,
    )  # fmt: skip
    columns = tl.arange(0, HEAD_DIM)[None, :]
    target = target * num_splits + split
    tl.store(partial_top + target, top, mask=is_row)
    tl.store(partial_mass + target, mass, mask=is_row)
    tl.store(partial_total + target[:, None] * HEAD_DIM + columns, total, mask=is_row[:, None])


@triton.jit(do_not_specialize=_COUNTS)
def merge_splits(
    out,
    partial_total,
    partial_top,
    partial_mass,
    query_start_loc,
    seq_lens,
    num_seqs,
    num_splits,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    SPLIT: tl.constexpr,
    ONE_QUERY: tl.constexpr,
):
    """Fold the splits of one tile of rows, in order, and write `out`."""
    _, end, _, _, _, target, is_row = _open_tile(
        query_start_loc, seq_lens, num_seqs, GROUP, NUM_KV_HEADS, BLOCK_M, BLOCK_Q, ONE_QUERY
    )
    columns = tl.arange(0, HEAD_DIM)[None, :]
    all_top, all_mass, all_total = _no_keys(BLOCK_M, HEAD_DIM)
    for split in range(tl.cdiv(end, SPLIT)):
        source = target * num_splits + split
        top = tl.load(partial_top + source, mask=is_row, other=float("-inf"))
        mass = tl.load(partial_mass + source, mask=is_row, other=0.0)
        rows = partial_total + source[:, None] * HEAD_DIM + columns
        total = tl.load(rows, mask=is_row[:, None], other=0.0)
        all_top, all_mass, all_total = _fold(all_top, all_mass, all_total, top, mass, total)
    _write_mean(out, target, is_row, all_mass, all_total, HEAD_DIM)
