"""The pointwise parts of a Llama layer for compiled CPU kernels (numba), one row or head at a time.

Same meaning as `functional`. Elements are float32 or bfloat16, sums are float32. `cpu_stack` puts
them together; `rms_norm` and `sum_embeddings` are for what comes before and after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit

from .cpu_math import FAST, compiled, element_bytes, narrow, pointer
from .cpu_vectors import (
    FLOATS,
    LANES,
    load,
    load_floats,
    multiply_add,
    procedure,
    store_floats,
)

_F32, _ONE = np.float32(0), np.float32(1)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def norm_scale(xs: Any, base: Any, size: Any, eps: Any) -> Any:
    """What rms_norm multiplies `size` float32 elements from `base` by, before the weights."""
    square = _F32
    for i in range(size):
        square += xs[base + i] * xs[base + i]
    return _ONE / np.sqrt(square / np.float32(size) + eps)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def scale_run(
    xs: Any, first: Any, scale: Any, ws: Any, column: Any, ys: Any, place: Any, size: Any, kind: Any
) -> Any:
    """ys = xs * scale * ws for a run of `size` elements from `first`, `column` and `place`."""
    for i in range(size):
        ys[place + i] = narrow(xs[first + i] * scale * ws[column + i], kind)


def _emit_rotation(builder: Any, first: Any, second: Any, cos: Any, sin: Any, element: Any) -> None:
    """16 pairs (x, y) become (x cos - y sin, y cos + x sin); addresses."""
    x, y = (load_floats(builder, address, element) for address in (first, second))
    c, s = (load(builder, address, FLOATS) for address in (cos, sin))
    turned = builder.fsub(builder.fmul(x, c), builder.fmul(y, s))
    store_floats(builder, turned, first, element)
    store_floats(builder, multiply_add(builder, builder.fmul(y, c), x, s), second, element)


_rotate_sixteen = procedure(_emit_rotation, element_argument=4)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def rotate_head(head: Any, angles: Any, head_dim: Any, kind: Any) -> Any:
    """Rotary embedding in place of the head at an address; `angles` is that of its row in the
    float32 table of `functional.rotary_table`. `head_dim` is a multiple of 32."""
    half, size = head_dim // 2, element_bytes(kind)
    for i in range(0, half, LANES):
        first, cos = head + i * size, angles + i * 4
        _rotate_sixteen((first, first + half * size, cos, cos + half * 4, kind))


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See `functional.rms_norm`; x is contiguous."""
    out = torch.empty_like(x)
    _norm_rows(x.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, np.float32(eps))
    return out


def sum_embeddings(table: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Sums [N, hidden] of one embedding of each codebook.

    Args:
        table: float32 [C * V, hidden], codebook after codebook.
        codes: int64 [N, C], contiguous.
    """
    out = torch.empty(len(codes), table.shape[1])
    size = len(table) // codes.shape[1]
    _sum_rows(table.data_ptr(), codes.data_ptr(), out.data_ptr(), *codes.shape, size, out.shape[1])
    return out


@compiled(fastmath=FAST)
def _norm_rows(x: Any, weight: Any, out: Any, rows: Any, size: Any, eps: Any) -> Any:
    xs, ws, ys = pointer(x, _F32), pointer(weight, _F32), pointer(out, _F32)
    for row in range(rows):
        base = row * size
        scale_run(xs, base, norm_scale(xs, base, size, eps), ws, 0, ys, base, size, _F32)


@compiled()
def _sum_rows(
    table: Any, codes: Any, out: Any, rows: Any, columns: Any, size: Any, hidden: Any
) -> Any:
    values, ids, sums = pointer(table, _F32), pointer(codes, np.int64(0)), pointer(out, _F32)
    for row in range(rows):
        for column in range(columns):
            source = (column * size + ids[row * columns + column]) * hidden
            for i in range(hidden):
                before = sums[row * hidden + i] if column else _F32
                sums[row * hidden + i] = before + values[source + i]
