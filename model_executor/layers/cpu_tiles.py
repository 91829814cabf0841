"""AMX: products of bfloat16 by tiles of 16 rows, as pieces of compiled kernels.

A tile holds 16 rows of 64 bytes. A kernel configures the tiles once per thread and releases them at
its end; in between, `sixteen_rows` and `thirty_two_rows` multiply rows that lie in the tiles' order
(`tile_index`) by one panel of `cpu_panels`. Intel, "Architecture Instruction Set Extensions
Programming Reference", chapter 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .cpu_math import ask_for

_BYTE = ir.IntType(8)
_BYTES = _BYTE.as_pointer()
_INPUTS = 32  # of a row of a tile
_PANEL_BYTES = 128  # of a pair of inputs
_CACHE_LINE = 64


def _tile_instruction(name: str, *tiles: int) -> Any:
    """An AMX instruction on fixed tiles that takes no memory."""

    @intrinsic  # type: ignore[untyped-decorator]
    def instruction(_c: Any) -> Any:
        def codegen(context: Any, builder: Any, _s: Any, _a: Any) -> Any:
            _call(builder, name, [_BYTE(tile) for tile in tiles])
            return context.get_dummy_value()

        return types.none(), codegen

    return instruction


def _tile_transfer(name: str, tile: int) -> Any:
    """An AMX instruction that loads or stores a fixed tile: (address, bytes between rows)."""

    @intrinsic  # type: ignore[untyped-decorator]
    def instruction(_c: Any, address: Any, stride: Any) -> Any:
        def codegen(context: Any, builder: Any, _s: Any, args: Any) -> Any:
            _call(builder, name, [_BYTE(tile), builder.inttoptr(args[0], _BYTES), args[1]])
            return context.get_dummy_value()

        return types.none(address, stride), codegen

    return instruction


def _call(builder: Any, name: str, args: list[Any]) -> None:
    signature = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.{name}")
    builder.call(function, args)


@intrinsic  # type: ignore[untyped-decorator]
def configure_tiles(_c: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        _call(builder, "ldtilecfg", [builder.inttoptr(args[0], _BYTES)])
        return context.get_dummy_value()

    return types.none(address), codegen


# Tiles 0 to 3 are sums (rows 0 and 16, features 0 and 16), 4 and 5 rows, 6 and 7 the panel.
_zero_00, _zero_01, _zero_10, _zero_11 = (_tile_instruction("tilezero", t) for t in range(4))
_store_00, _store_01, _store_10, _store_11 = (
    _tile_transfer("tilestored64", tile) for tile in range(4)
)
_resume_00, _resume_01, _resume_10, _resume_11 = (
    _tile_transfer("tileloadd64", tile) for tile in range(4)
)
_load_upper, _load_lower, _load_left, _load_right = (
    _tile_transfer("tileloadd64", tile) for tile in range(4, 8)
)
_dot_00, _dot_01, _dot_10, _dot_11 = (
    _tile_instruction("tdpbf16ps", *tiles) for tiles in ((0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7))
)
release_tiles = _tile_instruction("tilerelease")

TILE_ROWS = 16
_TILE_BYTES = 64  # of a row: 32 inputs in bfloat16, 16 outputs in float32
TILE = TILE_ROWS * _TILE_BYTES


def tile_configuration() -> npt.NDArray[np.uint8]:
    """What `begin_products` is given the address of: palette 1, eight full tiles."""
    configuration = np.zeros(64, np.uint8)
    configuration[0] = 1
    configuration[16:32].view(np.uint16)[:] = _TILE_BYTES
    configuration[48:56] = TILE_ROWS
    return configuration


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def tile_index(row: Any, column: Any, inputs: Any) -> Any:
    """Index of an element among activations [rows, inputs] that lie tile by tile: 16 rows of 32
    inputs, then the next 32 inputs of the same rows, and so on."""
    tile = row // TILE_ROWS * (inputs // _INPUTS) + column // _INPUTS
    return (tile * TILE_ROWS + row % TILE_ROWS) * _INPUTS + column % _INPUTS


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def sixteen_rows(
    rows: Any, panel: Any, steps: Any, out: Any, goes_on: Any, following: Any, lines: Any
) -> Any:
    """out [16, 32] float32 = rows of `steps` tiles times part of a panel; added to what `out` holds
    if it `goes_on`. Meanwhile `lines` cache lines from `following` are asked for in every step."""
    if goes_on:
        _resume_00(out, _PANEL_BYTES)
        _resume_01(out + _TILE_BYTES, _PANEL_BYTES)
    else:
        _zero_00()
        _zero_01()
    for step in range(steps):
        wanted = following + step * lines * _CACHE_LINE
        at = panel + step * TILE_ROWS * _PANEL_BYTES
        _load_upper(rows + step * TILE, _TILE_BYTES)
        ask_for(wanted, lines, 0, 2)
        _load_left(at, _PANEL_BYTES)
        _dot_00()
        ask_for(wanted, lines, 1, 2)
        _load_right(at + _TILE_BYTES, _PANEL_BYTES)
        _dot_01()
    _store_00(out, _PANEL_BYTES)
    _store_01(out + _TILE_BYTES, _PANEL_BYTES)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def thirty_two_rows(
    rows: Any,
    lower: Any,
    panel: Any,
    steps: Any,
    out: Any,
    goes_on: Any,
    following: Any,
    lines: Any,
) -> Any:
    """out [32, 32] float32 = two times 16 rows of `steps` tiles, at `rows` and `lower`, times part
    of a panel; see `sixteen_rows`."""
    below = out + TILE_ROWS * _PANEL_BYTES
    if goes_on:
        _resume_00(out, _PANEL_BYTES)
        _resume_01(out + _TILE_BYTES, _PANEL_BYTES)
        _resume_10(below, _PANEL_BYTES)
        _resume_11(below + _TILE_BYTES, _PANEL_BYTES)
    else:
        _zero_00()
        _zero_01()
        _zero_10()
        _zero_11()
    for step in range(steps):
        wanted = following + step * lines * _CACHE_LINE
        at = panel + step * TILE_ROWS * _PANEL_BYTES
        _load_upper(rows + step * TILE, _TILE_BYTES)
        ask_for(wanted, lines, 0, 4)
        _load_left(at, _PANEL_BYTES)
        _dot_00()
        ask_for(wanted, lines, 1, 4)
        _load_right(at + _TILE_BYTES, _PANEL_BYTES)
        _dot_01()
        ask_for(wanted, lines, 2, 4)
        _load_lower(lower + step * TILE, _TILE_BYTES)
        _dot_10()
        ask_for(wanted, lines, 3, 4)
        _dot_11()
    _store_00(out, _PANEL_BYTES)
    _store_01(out + _TILE_BYTES, _PANEL_BYTES)
    _store_10(below, _PANEL_BYTES)
    _store_11(below + _TILE_BYTES, _PANEL_BYTES)
