"""The pointwise parts of a Llama layer, compiled for the CPU (numba), row by row.

Same meaning as `functional`, with the residual addition fused into the norm. A row's result does
not depend on the other rows. Activations are float32 or bfloat16, sums are float32. Threads are not
used: at the sizes of a step waking one costs more than the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .cpu_math import FAST, compiled, exp32, narrow, pointer, widen

_F32 = np.float32(0)
_ONE = np.float32(1)
_MARKERS = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0)}


def marker(dtype: torch.dtype) -> Any:
    """The scalar whose type tells a kernel the element type.

    Raises:
        KeyError: neither float32 nor bfloat16.
    """
    return _MARKERS[dtype]


def add_rms_norm(
    residual: torch.Tensor,
    update: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out: torch.Tensor,
) -> None:
    """residual += update, in place; out = rms_norm(residual).

    Args:
        residual: float32 [N, size], contiguous.
        update: [>= N, size], contiguous, in the dtype of `out`.
        weight: float32 [size].
        out: [>= N, size], contiguous.
    """
    rows, size = residual.shape
    _add_rms_norm(
        *(residual.data_ptr(), update.data_ptr(), weight.data_ptr(), out.data_ptr()),
        *(rows, size, np.float32(eps), marker(out.dtype)),
    )


def rms_norm(residual: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> None:
    """out = rms_norm(residual); shapes as in `add_rms_norm`."""
    rows, size = residual.shape
    _rms_norm(
        *(residual.data_ptr(), weight.data_ptr(), out.data_ptr()),
        *(rows, size, np.float32(eps), marker(out.dtype)),
    )


def rotate(heads: torch.Tensor, num_rotated: int, cos_sin: torch.Tensor) -> None:
    """Apply rotary embedding in place to the first heads of each position.

    Args:
        heads: [N, num_heads, head_dim], contiguous.
        num_rotated: heads (queries and keys) that come first and are rotated.
        cos_sin: float32 [N, head_dim]; see `functional.rotary_table`.
    """
    rows, num_heads, head_dim = heads.shape
    _rotate(
        *(heads.data_ptr(), cos_sin.data_ptr(), rows, num_heads, num_rotated, head_dim),
        marker(heads.dtype),
    )


def silu_and_mul(gate_up: torch.Tensor, out: torch.Tensor) -> None:
    """out = silu(gate) * up.

    Args:
        gate_up: [N, 2 * size], gate first, contiguous.
        out: [N, size], contiguous.
    """
    rows, size = out.shape
    _silu_and_mul(gate_up.data_ptr(), out.data_ptr(), rows, size, marker(out.dtype))


@compiled(fastmath=FAST)
def _rms_norm(
    residual: Any, weight: Any, out: Any, rows: Any, size: Any, eps: Any, kind: Any
) -> Any:
    xs, ws, ys = pointer(residual, _F32), pointer(weight, _F32), pointer(out, kind)
    for row in range(rows):
        base = row * size
        square = _F32
        for i in range(size):
            square += xs[base + i] * xs[base + i]
        scale = _ONE / np.sqrt(square / np.float32(size) + eps)
        for i in range(size):
            ys[base + i] = narrow(xs[base + i] * scale * ws[i], kind)


@compiled(fastmath=FAST)
def _add_rms_norm(
    residual: Any, update: Any, weight: Any, out: Any, rows: Any, size: Any, eps: Any, kind: Any
) -> Any:
    xs, us = pointer(residual, _F32), pointer(update, kind)
    ws, ys = pointer(weight, _F32), pointer(out, kind)
    for row in range(rows):
        base = row * size
        square = _F32
        for i in range(size):
            x = xs[base + i] + widen(us[base + i])
            xs[base + i] = x
            square += x * x
        scale = _ONE / np.sqrt(square / np.float32(size) + eps)
        for i in range(size):
            ys[base + i] = narrow(xs[base + i] * scale * ws[i], kind)


@compiled(fastmath=FAST)
def _rotate(
    heads: Any, cos_sin: Any, rows: Any, num_heads: Any, num_rotated: Any, head_dim: Any, kind: Any
) -> Any:
    xs, table = pointer(heads, kind), pointer(cos_sin, _F32)
    half = head_dim // 2
    for row in range(rows):
        angle = row * head_dim
        for head in range(num_rotated):
            base = (row * num_heads + head) * head_dim
            for i in range(half):
                cos, sin = table[angle + i], table[angle + half + i]
                first, second = widen(xs[base + i]), widen(xs[base + half + i])
                xs[base + i] = narrow(first * cos - second * sin, kind)
                xs[base + half + i] = narrow(second * cos + first * sin, kind)


@compiled(fastmath=FAST)
def _silu_and_mul(gate_up: Any, out: Any, rows: Any, size: Any, kind: Any) -> Any:
    xs, ys = pointer(gate_up, kind), pointer(out, kind)
    for row in range(rows):
        gates, ups, base = 2 * row * size, 2 * row * size + size, row * size
        for i in range(size):
            gate = widen(xs[gates + i])
            ys[base + i] = narrow(gate * widen(xs[ups + i]) / (_ONE + exp32(-gate)), kind)
