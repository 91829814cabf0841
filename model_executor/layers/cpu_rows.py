"""The pointwise parts of a Llama layer for compiled CPU kernels (numba), one row or head at a time.

Same meaning as `functional`. Elements are float32 or bfloat16, sums are float32. `cpu_stack` puts
them together; nothing here can be called from Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .cpu_math import FAST, exp32, narrow, widen

_F32, _ONE = np.float32(0), np.float32(1)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def norm_row(xs: Any, ws: Any, ys: Any, base: Any, size: Any, eps: Any, kind: Any) -> Any:
    """ys = rms_norm(xs) of `size` elements from `base`; xs and the weights ws are float32."""
    square = _F32
    for i in range(size):
        square += xs[base + i] * xs[base + i]
    scale = _ONE / np.sqrt(square / np.float32(size) + eps)
    for i in range(size):
        ys[base + i] = narrow(xs[base + i] * scale * ws[i], kind)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def rotate_head(xs: Any, base: Any, table: Any, angle: Any, head_dim: Any, kind: Any) -> Any:
    """Rotary embedding in place of the head at `base`; `angle` is its row in the float32 table of
    `functional.rotary_table`."""
    half = head_dim // 2
    for i in range(half):
        cos, sin = table[angle + i], table[angle + half + i]
        first, second = widen(xs[base + i]), widen(xs[base + half + i])
        xs[base + i] = narrow(first * cos - second * sin, kind)
        xs[base + half + i] = narrow(second * cos + first * sin, kind)


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def gate_row(gate_up: Any, at: Any, ys: Any, base: Any, size: Any, kind: Any) -> Any:
    """ys = silu(gate) * up; `gate_up` is float32, `size` gates and then as many values."""
    for i in range(size):
        gate = gate_up[at + i]
        ys[base + i] = narrow(gate * gate_up[at + size + i] / (_ONE + exp32(-gate)), kind)
