"""Scalars for the compiled CPU kernels: raw pointers, bfloat16, and an exponential that vectorises.

numba has neither bfloat16 nor a vector exponential. Kernels take addresses instead of arrays,
because unpacking a dozen arrays costs more than a small kernel does, and a *marker*, a numpy scalar
whose type chooses the element type: uint16 stands for bfloat16, float32 for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .kernel_cache import forget_old_kernels

_MARKERS = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0)}
_INT32, _FLOAT = cgutils.ir.IntType(32), cgutils.ir.FloatType()

_CACHE_LINE = 64

FAST = {"reassoc", "contract", "nsz", "arcp"}

LOG2E, LN2 = 1.44269504088896341, 0.6931471805599453
EXP_LOWEST = -87.0
EXP_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LOG2E, _LN2, _HALF = np.float32(LOG2E), np.float32(LN2), np.float32(0.5)
_LOWEST = np.float32(EXP_LOWEST)
_C0, _C1, _C2, _C3, _C4, _C5 = (np.float32(value) for value in EXP_COEFFICIENTS)
_ONE = np.float32(1.0)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A kernel that releases the interpreter and is kept on disk, where there is a place to write;
    elsewhere (a read-only container) it is compiled again in each process."""

    def decorate(function: Callable[..., Any]) -> Any:
        settings = {"error_model": "numpy", "nogil": True, **options}
        try:
            kernel = njit(cache=True, **settings)(function)
        except RuntimeError:  # numba found no folder for its cache
            return njit(**settings)(function)
        forget_old_kernels(Path(kernel.stats.cache_path))
        return kernel

    return decorate


def marker(dtype: torch.dtype) -> Any:
    """The scalar whose type tells a kernel the element type.

    Raises:
        KeyError: neither float32 nor bfloat16.
    """
    return _MARKERS[dtype]


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_context: Any, address: Any, marker: Any) -> Any:
    """The address as a pointer to elements of the marker's type."""
    signature = types.CPointer(marker)(address, marker)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def widen(_context: Any, element: Any) -> Any:
    """An element as float32."""

    def codegen(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        if element == types.float32:
            return args[0]
        bits = builder.zext(args[0], _INT32)
        return builder.bitcast(builder.shl(bits, _INT32(16)), _FLOAT)

    return types.float32(element), codegen


@intrinsic  # type: ignore[untyped-decorator]
def narrow(_context: Any, value: Any, marker: Any) -> Any:
    """A float32 as an element of the marker's type, rounded to nearest even."""

    def codegen(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        if marker == types.float32:
            return args[0]
        bits = builder.bitcast(args[0], _INT32)
        odd = builder.and_(builder.lshr(bits, _INT32(16)), _INT32(1))
        rounded = builder.add(builder.add(bits, _INT32(0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, _INT32(16)), cgutils.ir.IntType(16))

    return marker(value, marker), codegen


@intrinsic  # type: ignore[untyped-decorator]
def element_bytes(_context: Any, marker: Any) -> Any:
    """Bytes of an element of the marker's type."""

    def codegen(_c: Any, _b: Any, _s: Any, _a: Any) -> Any:
        return cgutils.ir.Constant(cgutils.ir.IntType(64), marker.bitwidth // 8)

    return types.int64(marker), codegen


def emit_prefetch(builder: Any, address: Any) -> None:
    """LLVM code that brings the cache line at an integer address to the second-level cache, without
    waiting."""
    kind = cgutils.ir.IntType(8).as_pointer()
    signature = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [kind] + [_INT32] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(function, [builder.inttoptr(address, kind), _INT32(0), _INT32(2), _INT32(1)])


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_context: Any, address: Any) -> Any:
    """`emit_prefetch` for compiled Python."""

    def codegen(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        emit_prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.none(address), codegen


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def ask_for(address: Any, lines: Any, share: Any, shares: Any) -> Any:
    """`prefetch` one of several equal shares of some cache lines from an address. A few at a time,
    because a processor can wait for about a dozen lines only."""
    for line in range(lines * share // shares, lines * (share + 1) // shares):
        prefetch(address + line * _CACHE_LINE)


@intrinsic  # type: ignore[untyped-decorator]
def _floor(_context: Any, value: Any) -> Any:
    def codegen(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.floor", [_FLOAT])
        return builder.call(function, args)

    return types.float32(types.float32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _at_least(_context: Any, value: Any, lowest: Any) -> Any:
    def codegen(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[1], args[0])

    return types.float32(types.float32, types.float32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _two_to(_context: Any, whole: Any) -> Any:
    """2^whole, made of exponent bits."""

    def codegen(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        exponent = builder.add(builder.fptosi(args[0], _INT32), _INT32(127))
        return builder.bitcast(builder.shl(exponent, _INT32(23)), _FLOAT)

    return types.float32(types.float32), codegen


@njit(inline="always")  # type: ignore[untyped-decorator]
def exp32(x: Any) -> Any:
    """exp(x) for x at most 87, within 4e-7 of it (range reduction and the polynomial of Cephes'
    expf); below -87 it is exp(-87)."""
    x = _at_least(x, _LOWEST)
    whole = _floor(x * _LOG2E + _HALF)
    r = x - whole * _LN2
    y = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
    return (y * r * r + r + _ONE) * _two_to(whole)
