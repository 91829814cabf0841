"""Vectors of 16 float32 in compiled CPU kernels, written as LLVM code.

numba has no vectors; where a loop must keep sums in registers, or load narrow numbers and widen
them, kernels emit these operations from an intrinsic. LLVM splits a vector where the processor's
are shorter.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cpu_math import EXP_COEFFICIENTS, EXP_LOWEST, LN2, LOG2E

LANES = 16
INT32, INT64, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT32, LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)
ZEROS = ir.Constant(FLOATS, None)


def procedure(emit: Any, *, element_argument: int | None = None) -> Any:
    """An intrinsic without a result from `emit(builder, *args)`.

    With `element_argument`, that argument is a marker (see `cpu_math`) and `emit` gets its numba
    type in its place.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def call(_c: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, _s: Any, args: Any) -> Any:
            values = list(_unpack(builder, args[0], len(arguments.types)))
            if element_argument is not None:
                values[element_argument] = arguments.types[element_argument]
            emit(builder, *values)
            return context.get_dummy_value()

        return types.none(arguments), codegen

    return call


def _unpack(builder: Any, pack: Any, count: int) -> Any:
    return (builder.extract_value(pack, index) for index in range(count))


def load(builder: Any, address: Any, kind: Any) -> Any:
    """What lies at an address, aligned or not."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=2)


def store(builder: Any, value: Any, address: Any) -> None:
    """Put a value at an address, aligned or not."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=2)


def load_floats(builder: Any, address: Any, element: Any) -> Any:
    """16 neighbours as float32; `element` is the numba type of a marker."""
    if element == types.float32:
        return load(builder, address, FLOATS)
    return lower(builder, builder.zext(load(builder, address, _SHORTS), INTS))


def store_floats(builder: Any, value: Any, address: Any, element: Any) -> None:
    """16 float32 as neighbours of an element type, rounded to nearest even."""
    store(builder, value if element == types.float32 else _rounded(builder, value), address)


def _rounded(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, INTS)
    half = ir.Constant(INTS, [16] * LANES)
    odd = builder.and_(builder.lshr(bits, half), ir.Constant(INTS, [1] * LANES))
    up = builder.add(builder.add(bits, ir.Constant(INTS, [0x7FFF] * LANES)), odd)
    return builder.trunc(builder.lshr(up, half), _SHORTS)


def filled(value: float) -> Any:
    """A number in all lanes."""
    return ir.Constant(FLOATS, [value] * LANES)


def exponential(builder: Any, x: Any) -> Any:
    """`cpu_math.exp32` of 16 numbers."""
    x = builder.select(builder.fcmp_ordered("<", x, filled(EXP_LOWEST)), filled(EXP_LOWEST), x)
    floor = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(FLOATS, [FLOATS]), f"llvm.floor.v{LANES}f32"
    )
    whole = builder.call(floor, [multiply_add(builder, filled(0.5), x, filled(LOG2E))])
    rest = multiply_add(builder, x, whole, filled(-LN2))
    y = filled(EXP_COEFFICIENTS[0])
    for coefficient in EXP_COEFFICIENTS[1:]:
        y = multiply_add(builder, filled(coefficient), y, rest)
    square = builder.fmul(rest, rest)
    y = multiply_add(builder, builder.fadd(rest, filled(1.0)), y, square)
    exponent = builder.add(builder.fptosi(whole, INTS), ir.Constant(INTS, [127] * LANES))
    power = builder.shl(exponent, ir.Constant(INTS, [23] * LANES))
    return builder.fmul(y, builder.bitcast(power, FLOATS))


def greater(builder: Any, left: Any, right: Any) -> Any:
    """The greater of two numbers, or of each two in two vectors."""
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


def reduced(builder: Any, operation: Any, vector: Any) -> Any:
    """All lanes by `operation(builder, left, right)`, halves first."""
    width = LANES // 2
    while width:
        order = [lane + width if lane + width < LANES else lane for lane in range(LANES)]
        other = builder.shuffle_vector(vector, vector, ir.Constant(INTS, order))
        vector, width = operation(builder, vector, other), width // 2
    return builder.extract_element(vector, INT32(0))


def splat(builder: Any, value: Any) -> Any:
    """A scalar in all lanes."""
    vector = ir.VectorType(value.type, LANES)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT32(0))
    return builder.shuffle_vector(single, single, ir.Constant(INTS, [0] * LANES))


def multiply_add(builder: Any, total: Any, left: Any, right: Any) -> Any:
    """One instruction where the processor has it; a call of `fma` would be slow where not."""
    product = builder.fmul(left, right, flags=["contract"])
    return builder.fadd(total, product, flags=["contract"])


def lower(builder: Any, pairs: Any) -> Any:
    """The first bfloat16 of each pair in 16 int32, as float32."""
    return builder.bitcast(builder.shl(pairs, ir.Constant(INTS, [16] * LANES)), FLOATS)


def upper(builder: Any, pairs: Any) -> Any:
    """The second bfloat16 of each pair."""
    mask = ir.Constant(INTS, [0xFFFF0000] * LANES)
    return builder.bitcast(builder.and_(pairs, mask), FLOATS)
