"""What of a vocoder's layers is not a matrix product, compiled for the CPU (numba), row by row.

Each kernel reads the frames that a row sees from where they are: the outputs of the layer before,
or the tail that the row's sequence left (see `chain`). Nothing is packed, padded or copied first,
and a frame's result does not depend on the other rows. Kernels take addresses; see `cpu_math`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers.cpu_math import FAST, compiled, exp32, narrow, pointer

# Columns of the table of rows, int64 [rows, NUM_FIELDS]; frames are numbered as in the sequence.
NUM_FIELDS = 11
X_AT = 0  # row of `x` that holds frame SPAN_START
SPAN_START, SPAN_END = 1, 2  # frames in `x`
TAIL, TAIL_LENGTH = 3, 4  # address and number of the frames just before SPAN_START
GIVE_START, GIVE_END = 5, 6  # frames to compute
OUT_AT = 7  # row of the output that frame GIVE_START goes to
KEEP, KEEP_START, KEEP_END = 8, 9, 10  # address that gets a copy of these input frames

_F32 = np.float32(0)
_I64 = np.int64(0)
_ONE = np.float32(1)


@compiled(inline="always")
def _frame(xs: Any, size: Any, row: Any, frame: Any) -> Any:
    """Address of an input frame [size]; 0 when the row has no such frame."""
    after = frame - row[SPAN_START]
    if after >= 0:
        return xs + 4 * size * (row[X_AT] + after) if frame < row[SPAN_END] else 0
    after += row[TAIL_LENGTH]
    return row[TAIL] + 4 * size * after if after >= 0 else 0


@compiled(inline="always")
def _copy(source: Any, target: Any, size: Any) -> Any:
    """float32 [size] from one address to another."""
    values, out = pointer(source, _F32), pointer(target, _F32)
    for i in range(size):
        out[i] = values[i]


@compiled(inline="always")
def _keep(xs: Any, size: Any, row: Any) -> Any:
    """Copy the inputs that the row's next chunk will need again."""
    for frame in range(row[KEEP_START], row[KEEP_END]):
        target = row[KEEP] + 4 * size * (frame - row[KEEP_START])
        _copy(_frame(xs, size, row, frame), target, size)


@compiled(inline="always")
def _clear(out: Any, first: Any, last: Any, size: Any, kind: Any) -> Any:
    """Zero rows [first, last)."""
    values = pointer(out, kind)
    for i in range(first * size, last * size):
        values[i] = narrow(_F32, kind)


@compiled(fastmath=FAST)
def neighbourhoods(
    xs: Any, size: Any, table: Any, rows: Any, kernel: Any, left: Any, out: Any, length: Any
) -> Any:
    """Frames [t - left, t - left + kernel) of every frame t, zero where there is none.

    Args:
        xs: float32 [*, size].
        table: of the rows.
        out: float32 [length, kernel * size]; rows that are no frame become 0.
    """
    end = _I64
    for index in range(rows):
        row = pointer(table + 8 * NUM_FIELDS * index, _I64)
        for frame in range(row[GIVE_START], row[GIVE_END]):
            target = out + 4 * kernel * size * (row[OUT_AT] + frame - row[GIVE_START])
            for tap in range(kernel):
                source = _frame(xs, size, row, frame + tap - left)
                if source != 0:
                    _copy(source, target + 4 * size * tap, size)
                else:
                    _clear(target + 4 * size * tap, 0, 1, size, _F32)
        _keep(xs, size, row)
        end = row[OUT_AT] + row[GIVE_END] - row[GIVE_START]
    _clear(out, end, length, kernel * size, _F32)


@compiled(fastmath=FAST)
def depthwise_norm(
    xs: Any,
    size: Any,
    table: Any,
    rows: Any,
    filters: Any,
    taps: Any,
    norm: Any,
    out: Any,
    same: Any,
    length: Any,
    kind: Any,
) -> Any:
    """Depthwise convolution, then LayerNorm; and the frames themselves, for the residual.

    Args:
        xs: float32 [*, size].
        table: of the rows.
        filters: addresses of weight [kernel, size] and bias [size].
        taps: (kernel, dilation, left context).
        norm: addresses of weight [size] and bias [size], and epsilon.
        out: [length, size] of `kind`; rows that are no frame become 0.
        same: float32 [length, size], the inputs at the frames of `out`.
    """
    kernel, dilation, left = taps
    scratch = np.empty(size, np.float32)
    sums = pointer(scratch.ctypes.data, _F32)
    weights, bias = pointer(filters[0], _F32), pointer(filters[1], _F32)
    scale, shift = pointer(norm[0], _F32), pointer(norm[1], _F32)
    values, end = pointer(out, kind), _I64
    for index in range(rows):
        row = pointer(table + 8 * NUM_FIELDS * index, _I64)
        for frame in range(row[GIVE_START], row[GIVE_END]):
            for i in range(size):
                sums[i] = bias[i]
            for tap in range(kernel):
                source = _frame(xs, size, row, frame + tap * dilation - left)
                if source != 0:
                    seen, first = pointer(source, _F32), tap * size
                    for i in range(size):
                        sums[i] += weights[first + i] * seen[i]
            at = row[OUT_AT] + frame - row[GIVE_START]
            _normalize(sums, size, scale, shift, norm[2], values, at * size, kind)
            _copy(_frame(xs, size, row, frame), same + 4 * size * at, size)
        _keep(xs, size, row)
        end = row[OUT_AT] + row[GIVE_END] - row[GIVE_START]
    _clear(out, end, length, size, kind)
    _clear(same, end, length, size, _F32)
    scratch[0] = _F32  # keeps the memory alive to here


@compiled(inline="always", fastmath=FAST)
def _normalize(
    sums: Any, size: Any, scale: Any, shift: Any, eps: Any, values: Any, base: Any, kind: Any
) -> Any:
    """LayerNorm of `sums` [size] into `values` from `base` on."""
    total = _F32
    for i in range(size):
        total += sums[i]
    mean, square = total / np.float32(size), _F32
    for i in range(size):
        square += (sums[i] - mean) * (sums[i] - mean)
    inverse = _ONE / np.sqrt(square / np.float32(size) + eps)
    for i in range(size):
        values[base + i] = narrow((sums[i] - mean) * inverse * scale[i] + shift[i], kind)


@compiled(fastmath=FAST)
def overlap_add(
    xs: Any,
    hops: Any,
    hop_length: Any,
    table: Any,
    rows: Any,
    power: Any,
    out: Any,
) -> Any:
    """Windowed frames to the samples that start at each frame's centre, over the windows' sum.

    Args:
        xs: float32 [*, hops * hop_length], windowed.
        table: of the rows.
        power: float32 [hops * hop_length], the window squared.
        out: float32 [*, hop_length].
    """
    size = hops * hop_length
    scratch = np.empty(hop_length, np.float32)
    envelope = pointer(scratch.ctypes.data, _F32)
    squares = pointer(power, _F32)
    for index in range(rows):
        row = pointer(table + 8 * NUM_FIELDS * index, _I64)
        for frame in range(row[GIVE_START], row[GIVE_END]):
            at = row[OUT_AT] + frame - row[GIVE_START]
            samples = pointer(out + 4 * hop_length * at, _F32)
            for i in range(hop_length):
                samples[i] = envelope[i] = _F32
            for hop in range(hops):
                source = _frame(xs, size, row, frame + hops // 2 - hop)
                if source != 0:
                    first = hop * hop_length
                    piece = pointer(source + 4 * first, _F32)
                    for i in range(hop_length):
                        samples[i] += piece[i]
                        envelope[i] += squares[first + i]
            for i in range(hop_length):
                samples[i] = samples[i] / envelope[i]
        _keep(xs, size, row)
    scratch[0] = _F32  # keeps the memory alive to here


_MAX_LOG = np.float32(87)
_TWO_OVER_PI = np.float32(0.63661977236758134)
_HALF = np.float32(0.5)
# pi / 2 in three parts, and the minimax polynomials on [-pi/4, pi/4], as in Cephes' sinf and cosf.
_P0, _P1, _P2 = (
    np.float32(1.5703125),
    np.float32(4.837512969970703e-4),
    np.float32(7.54978995489e-8),
)
_S0, _S1, _S2 = (
    np.float32(-1.9515295891e-4),
    np.float32(8.3321608736e-3),
    np.float32(-1.6666654611e-1),
)
_C0, _C1, _C2 = (
    np.float32(2.443315711809948e-5),
    np.float32(-1.388731625493765e-3),
    np.float32(4.166664568298827e-2),
)


@compiled()
def spectrum(head: Any, bins: Any, rows: Any, limit: Any, out: Any) -> Any:
    """Logarithms of magnitudes and phases to complex numbers.

    Args:
        head: float32 [rows, 2 * bins], the logarithms first.
        limit: of the magnitude.
        out: float32 [rows, bins, 2], real and imaginary parts.
    """
    for row in range(rows):
        logs = pointer(head + 8 * bins * row, _F32)
        phases = pointer(head + 8 * bins * row + 4 * bins, _F32)
        parts = pointer(out + 8 * bins * row, _F32)
        for i in range(bins):
            magnitude = min(exp32(min(logs[i], _MAX_LOG)), limit)
            phase = phases[i]
            quarter = np.floor(phase * _TWO_OVER_PI + _HALF)
            r = ((phase - quarter * _P0) - quarter * _P1) - quarter * _P2
            square = r * r
            sine = r + r * square * ((_S0 * square + _S1) * square + _S2)
            cosine = _ONE - _HALF * square
            cosine += square * square * ((_C0 * square + _C1) * square + _C2)
            turn = np.int32(quarter)
            swap = (turn & 1) != 0
            real, imag = (sine, cosine) if swap else (cosine, sine)
            if ((turn + 1) & 2) != 0:
                real = -real
            if (turn & 2) != 0:
                imag = -imag
            parts[2 * i] = magnitude * real
            parts[2 * i + 1] = magnitude * imag
