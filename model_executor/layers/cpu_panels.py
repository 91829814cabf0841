"""Matrix products on the CPU by panels of 32 output features, as pieces of compiled kernels.

A weight [out, in] is stored panel by panel, and a panel in the order in which it is multiplied, so
that a step reads every weight once, from one end to the other:

- float32: [out / 32, in, 32];
- bfloat16: [out / 32, in / 2, 32, 2], pairs of inputs side by side as the processor's dot products
  want them.

`multiply_panel` is one panel by up to `BLOCK_ROWS` rows. It comes in four modes: AMX tiles,
AVX512-BF16 dot products, bfloat16 widened to float32, and float32. In each mode a row is summed in
one order, whatever the other rows are. `cpu_stack` is what runs them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import overload

from ..memory import large_pages
from .cpu_tiles import (
    TILE,
    TILE_ROWS,
    configure_tiles,
    order_rows,
    release_tiles,
    sixteen_rows,
    thirty_two_rows,
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

PANEL = 32  # output features
BLOCK_ROWS = 32

_PANEL_BYTES = PANEL * 4  # of one input in float32, of a pair of inputs in bfloat16
_FAST_ROWS = 8
_CACHE_LINE = 64
_STEPS_AT_ONCE = 8

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


def pack_panels(weight: torch.Tensor) -> torch.Tensor:
    """A weight [out, in] in the order of the module's docstring, on large pages.

    Args:
        weight: float32 or bfloat16; both sizes are multiples of `PANEL`.

    Returns:
        [out / 32, in, 32, 1] or [out / 32, in / 2, 32, 2].
    """
    outputs, inputs = weight.shape
    group = 2 if weight.dtype == torch.bfloat16 else 1
    view = weight.view(outputs // PANEL, PANEL, inputs // group, group).permute(0, 2, 1, 3)
    packed = large_pages(view.shape, weight.dtype)
    packed.copy_(view)
    return packed


def unpack_panels(panels: torch.Tensor) -> torch.Tensor:
    """The weight [out, in] of what `pack_panels` made."""
    count, steps, _, group = panels.shape
    return panels.permute(0, 2, 1, 3).reshape(count * PANEL, steps * group)


def interleave(weight: torch.Tensor) -> torch.Tensor:
    """[2 * size, in], gates before values, so ordered that every panel holds 16 gates and then
    their 16 values."""
    halves = weight.view(2, -1, PANEL // 2, weight.shape[1])
    return halves.transpose(0, 1).reshape(weight.shape)


def separate(weight: torch.Tensor) -> torch.Tensor:
    """The weight that `interleave` was given."""
    pairs = weight.view(-1, 2, PANEL // 2, weight.shape[1])
    return pairs.transpose(0, 1).reshape(weight.shape)


def arrange_rows(mode: Any, rows: Any, count: Any, inputs: Any, room: Any) -> Any:
    """Put activations into the order in which `multiply_panel` reads them. For compiled code only.

    Args:
        mode: see the module.
        rows: address of [count, inputs] in the weight's type; readable, as the result is, up to the
            next multiple of `BLOCK_ROWS` rows.
        room: address of as many bytes, to be used where the order is another one.

    Returns:
        The address of the activations; every 16 rows lie where they lay in `rows`.
    """
    raise NotImplementedError


@overload(arrange_rows, jit_options={"error_model": "numpy"})  # type: ignore[untyped-decorator]
def _choose_order(mode: Any, rows: Any, count: Any, inputs: Any, room: Any) -> Any:
    def as_tiles(mode: Any, rows: Any, count: Any, inputs: Any, room: Any) -> Any:
        order_rows(rows, count, inputs, room)
        return room

    def as_it_is(mode: Any, rows: Any, count: Any, inputs: Any, room: Any) -> Any:
        return rows

    return as_tiles if mode == types.int8 else as_it_is


def multiply_panel(
    mode: Any, rows: Any, count: Any, panel: Any, inputs: Any, out: Any, following: Any, lines: Any
) -> Any:
    """out [count, PANEL] float32 = rows [count, inputs] times one panel. For compiled code only.

    Args:
        mode: see the module.
        rows: address of what `arrange_rows` made.
        count: rows.
        panel: address of the panel.
        inputs: input features.
        out: address of [count, PANEL] float32; written up to whole `BLOCK_ROWS`.
        following: address from which memory will be read next, and
        lines: how many of its cache lines to ask for meanwhile.
    """
    raise NotImplementedError


@overload(multiply_panel, inline="never", jit_options={"error_model": "numpy"})  # type: ignore[untyped-decorator]
def _choose_panel(
    mode: Any, rows: Any, count: Any, panel: Any, inputs: Any, out: Any, following: Any, lines: Any
) -> Any:
    return {types.int8: _by_tiles, types.uint16: _by_dots, types.int16: _by_widening}.get(
        mode, _by_floats
    )


def _vector_kernel(num_rows: int, kind: str) -> Any:
    """A kernel of exactly `num_rows` rows whose sums stay in registers for the whole panel; called
    with (rows, stride, panel, inputs, out)."""

    def emit(builder: Any, rows: Any, stride: Any, panel: Any, inputs: Any, out: Any) -> None:
        steps = inputs if kind == "float32" else builder.lshr(inputs, INT64(1))
        sums = [
            [cgutils.alloca_once_value(builder, ZEROS) for _ in range(2)] for _ in range(num_rows)
        ]
        with cgutils.for_range(builder, steps) as loop:
            at = builder.add(panel, builder.mul(loop.index, INT64(_PANEL_BYTES)))
            vector = FLOATS if kind == "float32" else INTS
            halves = [load(builder, builder.add(at, INT64(64 * half)), vector) for half in range(2)]
            column = builder.add(rows, builder.mul(loop.index, INT64(4)))
            for row in range(num_rows):
                address = builder.add(column, builder.mul(INT64(row), stride))
                factor = splat(builder, load(builder, address, vector.element))
                for total, weights in zip(sums[row], halves, strict=True):
                    after = _accumulate(builder, kind, builder.load(total), factor, weights)
                    builder.store(after, total)
        for row in range(num_rows):
            for half in range(2):
                place = builder.add(out, INT64(_PANEL_BYTES * row + 64 * half))
                store(builder, builder.load(sums[row][half]), place)

    return procedure(emit)


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

    def product(
        mode: Any,
        rows: Any,
        count: Any,
        panel: Any,
        inputs: Any,
        out: Any,
        following: Any,
        lines: Any,
    ) -> Any:
        stride = inputs * size
        for first in range(0, count, _FAST_ROWS):
            left = count - first
            source, target = rows + first * stride, out + first * _PANEL_BYTES
            if left > 4:
                eight((source, stride, panel, inputs, target))
            elif left > 2:
                four((source, stride, panel, inputs, target))
            elif left == 2:
                two((source, stride, panel, inputs, target))
            else:
                one((source, stride, panel, inputs, target))

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
    mode: Any, rows: Any, count: Any, panel: Any, inputs: Any, out: Any, following: Any, lines: Any
) -> Any:
    steps = inputs // PANEL
    if count <= TILE_ROWS:
        sixteen_rows(rows, panel, steps, out, following, lines // steps)
        return
    blocks = (count + BLOCK_ROWS - 1) // BLOCK_ROWS
    each = lines // (steps * blocks)
    # Several blocks of rows pass by a part of the panel that the first-level cache holds.
    at_once = steps if blocks == 1 else min(steps, _STEPS_AT_ONCE)
    for first in range(0, steps, at_once):
        part = min(at_once, steps - first)
        for block in range(blocks):
            upper = rows + (2 * block * steps + first) * TILE
            thirty_two_rows(
                upper,
                upper + steps * TILE,
                panel + first * TILE_ROWS * _PANEL_BYTES,
                part,
                out + block * BLOCK_ROWS * _PANEL_BYTES,
                first > 0,
                following,
                each,
            )
            following += part * each * _CACHE_LINE
