"""Matrix products on the CPU by panels of 32 output features, as pieces of compiled kernels.

`multiply_panel` is one panel of a weight (see `cpu_packing`) by any number of rows. It comes in
four modes: AMX tiles, AVX512-BF16 dot products, bfloat16 widened to float32, and float32. In each
mode a row is summed in one order, whatever the other rows are and however the weight is stored.
`cpu_stack` is what runs them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import overload

from .cpu_math import pointer
from .cpu_packing import PANEL, STEP_BYTES, expand_part
from .cpu_tiles import (
    TILE,
    TILE_ROWS,
    configure_tiles,
    release_tiles,
    sixteen_rows,
    thirty_two_rows,
    tile_index,
)
from .cpu_vectors import (
    FLOATS,
    INT64,
    INTS,
    ZEROS,
    load,
    lower,
    multiply_add,
    procedure,
    splat,
    store,
    upper,
)

BLOCK_ROWS = 32
# Steps of 32 inputs that pass the first-level cache at once: more of them where many blocks of rows
# pass too, whose sums are read and written again for every part of a panel.
_FEW_STEPS, _MANY_STEPS, _FEW_BLOCKS = 4, 8, 4
SCRATCH_BYTES = _MANY_STEPS * STEP_BYTES  # of a thread, for `multiply_panel`

_PANEL_BYTES = PANEL * 4  # of one input in float32, of a pair of inputs in bfloat16
_STEP_INPUTS = 32
_BLOCK_BYTES = BLOCK_ROWS * _PANEL_BYTES  # of sums
_FAST_ROWS = 8
_CACHE_LINE = 64

binding.initialize_native_asmparser()  # llvmlite has no bfloat16 for the instruction's own function

# A mode is a scalar whose type chooses the code, as markers choose element types.
AMX, DOT, WIDEN, FLOAT32 = np.int8(0), np.uint16(0), np.int16(0), np.float32(0)


@lru_cache(maxsize=1)
def has_dots() -> bool:
    """True where the processor multiplies pairs of bfloat16 (AVX512-BF16)."""
    return bool(binding.get_host_cpu_features().get("avx512bf16"))


@lru_cache(maxsize=1)
def has_tiles() -> bool:
    """True where the processor has AMX for bfloat16 and the system, asked, lets this process use
    its tiles."""
    request = getattr(torch.cpu, "_init_amx", None)  # private: a later torch may lack it
    present = binding.get_host_cpu_features().get("amx-bf16")
    return bool(present and request is not None and request())


def choose_mode(dtype: torch.dtype) -> Any:
    """The fastest mode of this processor for float32 or bfloat16 weights."""
    if dtype == torch.float32:
        return FLOAT32
    if has_tiles():
        return AMX
    return DOT if has_dots() else WIDEN


def input_index(mode: Any, row: Any, column: Any, inputs: Any) -> Any:
    """Index of an element of activations [rows, inputs] in the order in which `multiply_panel`
    reads them; 32 inputs, beginning at a multiple of 32, are neighbours in any mode. For compiled
    code only."""
    raise NotImplementedError


@overload(input_index, jit_options={"error_model": "numpy"})  # type: ignore[untyped-decorator]
def _choose_order(mode: Any, row: Any, column: Any, inputs: Any) -> Any:
    def by_tiles(mode: Any, row: Any, column: Any, inputs: Any) -> Any:
        return tile_index(row, column, inputs)

    def by_rows(mode: Any, row: Any, column: Any, inputs: Any) -> Any:
        return row * inputs + column

    return by_tiles if mode == types.int8 else by_rows


def multiply_panel(
    mode: Any,
    rows: Any,
    count: Any,
    weight: Any,
    panel: Any,
    following: Any,
    inputs: Any,
    out: Any,
    scratch: Any,
) -> Any:
    """out [count, PANEL] float32 = rows [count, inputs] times one panel. For compiled code only.

    Args:
        mode: see the module.
        rows: address of activations in the weight's type, ordered as `input_index` says; readable
            up to the next multiple of `BLOCK_ROWS` rows.
        count: rows.
        weight: address of `Panels.record`.
        panel: which.
        following: address of the panel that this thread multiplies next, to be asked for meanwhile.
        inputs: input features.
        out: address of [count, PANEL] float32; written up to whole `BLOCK_ROWS`.
        scratch: address of `SCRATCH_BYTES` of the thread's own.
    """
    raise NotImplementedError


@overload(multiply_panel, inline="never", jit_options={"error_model": "numpy"})  # type: ignore[untyped-decorator]
def _choose_panel(
    mode: Any,
    rows: Any,
    count: Any,
    weight: Any,
    panel: Any,
    following: Any,
    inputs: Any,
    out: Any,
    scratch: Any,
) -> Any:
    return {types.int8: _by_tiles, types.uint16: _by_dots, types.int16: _by_widening}.get(
        mode, _by_floats
    )


def _vector_kernel(num_rows: int, kind: str) -> Any:
    """A kernel of exactly `num_rows` rows whose sums stay in registers; called with (rows, stride,
    part of a panel, its inputs, out, whether the sums go on from what `out` holds)."""

    def emit(
        builder: Any, rows: Any, stride: Any, part: Any, inputs: Any, out: Any, goes_on: Any
    ) -> None:
        steps = inputs if kind == "float32" else builder.lshr(inputs, INT64(1))
        places = [
            [builder.add(out, INT64(_PANEL_BYTES * row + 64 * half)) for half in range(2)]
            for row in range(num_rows)
        ]
        sums = [[cgutils.alloca_once_value(builder, ZEROS) for _ in pair] for pair in places]
        with builder.if_then(goes_on):
            for place, total in _pairs(places, sums):
                builder.store(load(builder, place, FLOATS), total)
        with cgutils.for_range(builder, steps) as loop:
            at = builder.add(part, builder.mul(loop.index, INT64(_PANEL_BYTES)))
            vector = FLOATS if kind == "float32" else INTS
            halves = [load(builder, builder.add(at, INT64(64 * half)), vector) for half in range(2)]
            column = builder.add(rows, builder.mul(loop.index, INT64(4)))
            for row in range(num_rows):
                address = builder.add(column, builder.mul(INT64(row), stride))
                factor = splat(builder, load(builder, address, vector.element))
                for total, weights in zip(sums[row], halves, strict=True):
                    after = _accumulate(builder, kind, builder.load(total), factor, weights)
                    builder.store(after, total)
        for place, total in _pairs(places, sums):
            store(builder, builder.load(total), place)

    return procedure(emit)


def _pairs(places: list[list[Any]], sums: list[list[Any]]) -> list[tuple[Any, Any]]:
    """Every sum with the address where it belongs."""
    rows = zip(places, sums, strict=True)
    return [pair for row in rows for pair in zip(*row, strict=True)]


def _accumulate(builder: Any, kind: str, total: Any, factor: Any, weights: Any) -> Any:
    """total + factor * weights; of bfloat16, both products of each pair."""
    if kind == "float32":
        return multiply_add(builder, total, factor, weights)
    if kind == "dot":
        dot = ir.InlineAsm(
            ir.FunctionType(FLOATS, [FLOATS, INTS, INTS]), "vdpbf16ps $3, $2, $0", "=v,0,v,v"
        )
        return builder.call(dot, [total, factor, weights])
    for part in (lower, upper):
        total = multiply_add(builder, total, part(builder, factor), part(builder, weights))
    return total


def _vector_product(kind: str) -> Any:
    """All rows of a block, eight at a time; fewer where fewer are left."""
    size = 4 if kind == "float32" else 2
    one, two, four, eight = (_vector_kernel(rows, kind) for rows in (1, 2, 4, _FAST_ROWS))

    @njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def all_rows(
        mode: Any,
        rows: Any,
        count: Any,
        stride: Any,
        part: Any,
        inputs: Any,
        out: Any,
        goes_on: Any,
    ) -> Any:
        # The mode's type keeps the three functions of this name apart in numba's cache.
        for first in range(0, count, _FAST_ROWS):
            left = count - first
            source, target = rows + first * stride, out + first * _PANEL_BYTES
            if left > 4:
                eight((source, stride, part, inputs, target, goes_on))
            elif left > 2:
                four((source, stride, part, inputs, target, goes_on))
            elif left == 2:
                two((source, stride, part, inputs, target, goes_on))
            else:
                one((source, stride, part, inputs, target, goes_on))

    def product(
        mode: Any,
        rows: Any,
        count: Any,
        weight: Any,
        panel: Any,
        following: Any,
        inputs: Any,
        out: Any,
        scratch: Any,
    ) -> Any:
        record = pointer(weight, np.int64(0))
        stride = inputs * size
        if not record[1]:
            at = record[0] + panel * record[4]
            all_rows(mode, rows, count, stride, at, inputs, out, False)
            return
        steps = inputs // _STEP_INPUTS
        lines = record[4] // _CACHE_LINE // steps
        for first in range(0, steps, _FEW_STEPS):
            part = min(_FEW_STEPS, steps - first)
            ahead = following + first * lines * _CACHE_LINE
            expand_part(weight, panel, first, part, scratch, ahead, lines)
            source = rows + first * _STEP_INPUTS * size
            all_rows(mode, source, count, stride, scratch, part * _STEP_INPUTS, out, first > 0)

    return product


_by_floats = _vector_product("float32")
_by_dots = _vector_product("dot")
_by_widening = _vector_product("widen")


def begin_products(mode: Any, configuration: Any) -> None:
    """To be called by a thread before its first product in a kernel. For compiled code only."""
    raise NotImplementedError


def end_products(mode: Any) -> None:
    """To be called by a thread after its last product in a kernel. For compiled code only."""
    raise NotImplementedError


@overload(begin_products)  # type: ignore[untyped-decorator]
def _choose_begin(mode: Any, configuration: Any) -> Any:
    def with_tiles(mode: Any, configuration: Any) -> Any:
        configure_tiles(configuration)

    def without(mode: Any, configuration: Any) -> Any:
        pass

    return with_tiles if mode == types.int8 else without


@overload(end_products)  # type: ignore[untyped-decorator]
def _choose_end(mode: Any) -> Any:
    def with_tiles(mode: Any) -> Any:
        release_tiles()

    def without(mode: Any) -> Any:
        pass

    return with_tiles if mode == types.int8 else without


def _by_tiles(
    mode: Any,
    rows: Any,
    count: Any,
    weight: Any,
    panel: Any,
    following: Any,
    inputs: Any,
    out: Any,
    scratch: Any,
) -> Any:
    record = pointer(weight, np.int64(0))
    is_compact = record[1] != 0
    steps, blocks = inputs // _STEP_INPUTS, (count + BLOCK_ROWS - 1) // BLOCK_ROWS
    each = record[4] // (_CACHE_LINE * steps * (blocks + is_compact))
    # Several blocks of rows pass by a part of the panel that the first-level cache holds.
    at_once = _FEW_STEPS if blocks <= _FEW_BLOCKS else _MANY_STEPS
    if blocks == 1 and not is_compact:
        at_once = steps
    for first in range(0, steps, at_once):
        part = min(at_once, steps - first)
        weights = record[0] + panel * record[4] + first * STEP_BYTES
        if is_compact:
            expand_part(weight, panel, first, part, scratch, following, each)
            following += part * each * _CACHE_LINE
            weights = scratch
        for block in range(blocks):
            tiles, sums = rows + (2 * block * steps + first) * TILE, out + block * _BLOCK_BYTES
            if count - block * BLOCK_ROWS <= TILE_ROWS:
                sixteen_rows(tiles, weights, part, sums, first > 0, following, each)
            else:
                lower = tiles + steps * TILE
                thirty_two_rows(tiles, lower, weights, part, sums, first > 0, following, each)
            following += part * each * _CACHE_LINE
