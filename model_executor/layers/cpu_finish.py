"""What becomes of a block of a product's sums, in vectors: pieces of compiled kernels.

A block is [count, PANEL] float32, one panel's outputs of some rows. It is stored in the weights'
type, added to the residual stream, or taken as 16 gates and the 16 values they let through
(SwiGLU, Shazeer 2020, arXiv 2002.05202).
"""

from __future__ import annotations

from typing import Any

from numba import njit

from .cpu_math import element_bytes
from .cpu_packing import PANEL
from .cpu_panels import input_index
from .cpu_vectors import FLOATS, INT64, exponential, filled, load, procedure, store, store_floats

STORE, ADD, GATE = 0, 1, 2

_VECTOR_BYTES, _ROW_BYTES = 64, PANEL * 4  # of sums


def _emit_store(builder: Any, sums: Any, out: Any, element: Any) -> None:
    for half in range(2):
        values = load(builder, builder.add(sums, INT64(half * _VECTOR_BYTES)), FLOATS)
        bytes_each = element.bitwidth // 8
        place = builder.add(out, INT64(half * PANEL // 2 * bytes_each))
        store_floats(builder, values, place, element)


def _emit_add(builder: Any, sums: Any, out: Any) -> None:
    for half in range(2):
        values = load(builder, builder.add(sums, INT64(half * _VECTOR_BYTES)), FLOATS)
        place = builder.add(out, INT64(half * _VECTOR_BYTES))
        store(builder, builder.fadd(load(builder, place, FLOATS), values), place)


def _emit_gate(builder: Any, sums: Any, out: Any, element: Any) -> None:
    """silu(gates) * values, with silu(x) = x / (1 + exp(-x))."""
    gates = load(builder, sums, FLOATS)
    values = load(builder, builder.add(sums, INT64(_VECTOR_BYTES)), FLOATS)
    divisor = builder.fadd(filled(1.0), exponential(builder, builder.fneg(gates)))
    gated = builder.fdiv(builder.fmul(gates, values), divisor)
    store_floats(builder, gated, out, element)


_store_row = procedure(_emit_store, element_argument=2)
_add_row = procedure(_emit_add)
_gate_row = procedure(_emit_gate, element_argument=2)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def finish_block(
    purpose: Any,
    block: Any,
    count: Any,
    out: Any,
    row: Any,
    width: Any,
    panel: Any,
    kind: Any,
    mode: Any,
) -> Any:
    """Rows [count, PANEL] of a product to where they belong.

    Args:
        purpose: `STORE` and `ADD` to rows of `width` elements, of the kind and of float32; `GATE`
            to the inputs of another product, of which there are `width`.
        block: address of the sums.
        count: rows.
        out: address of row 0.
        row: of the first sums.
        panel: of the outputs.
        kind: marker of the element type.
        mode: of products (see `cpu_panels`).
    """
    size = element_bytes(kind)
    for i in range(count):
        sums = block + i * _ROW_BYTES
        if purpose == GATE:
            place = input_index(mode, row + i, panel * (PANEL // 2), width)
            _gate_row((sums, out + place * size, kind))
        elif purpose == ADD:
            _add_row((sums, out + ((row + i) * width + panel * PANEL) * 4))
        else:
            _store_row((sums, out + ((row + i) * width + panel * PANEL) * size, kind))
