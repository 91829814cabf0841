"""How weights lie in memory for products by panels of 32 output features, and the way back.

A weight [out, in] is stored panel by panel, and a panel in the order in which it is multiplied, so
that a step reads every weight once, from one end to the other:

- float32: [out / 32, in, 32];
- bfloat16: [out / 32, in / 2, 32, 2], pairs of inputs side by side as the processor's dot products
  want them;
- compact bfloat16: the same in 12 bits a weight, and nothing is lost. The upper bytes of a matrix
  (sign and most of the exponent) take few values; the 16 commonest have codes of 4 bits, and what
  has another upper byte, about one weight in ten thousand, is listed. A step of few sequences is
  bound by memory, so it takes less time by what it does not read. The idea is that of DFloat11
  (Zhang et al. 2025, arXiv 2504.11651), whose Huffman codes are smaller, and slower to expand.

`Panels` packs; `expand_part` is for compiled code (see `cpu_panels`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import njit
from numba.core import cgutils

from ..memory import large_pages
from .cpu_math import ask_for, compiled, pointer
from .cpu_vectors import INT32, INT64, load, procedure, store

PANEL = 32  # output features

_UNIT_INPUTS = 4  # a unit of compact weights: 2 * 64 lower bytes, then 64 bytes of two codes each
_UNIT_BYTES, _UNIT_EXPANDED = 192, _UNIT_INPUTS * PANEL * 2
_VECTOR = 64  # bytes
_CODES = 16
_MOST_EXCEPTIONS = 0.002  # a share of the weights beyond which a weight is stored as it is
_UPPER_BITS = 8  # of an exception; the rest is its place in its panel
_CACHE_LINE = 64

STEP_BYTES = 32 * PANEL * 2  # of 32 inputs, expanded
_STEP_UNITS = 32 // _UNIT_INPUTS
_STEP_WEIGHTS = 32 * PANEL

_BYTES = ir.VectorType(ir.IntType(8), _VECTOR)
_SHORTS = ir.VectorType(ir.IntType(16), _VECTOR // 2)


@lru_cache(maxsize=1)
def can_expand() -> bool:
    """True where the processor looks up 64 codes at once (AVX512BW)."""
    return bool(binding.get_host_cpu_features().get("avx512bw"))


class Panels:
    """A weight in the order of the module's docstring, on large pages.

    Args:
        weight: [out, in], float32 or bfloat16; both sizes are multiples of `PANEL`. Copied.

    Attributes:
        record: what compiled code is given the address of: addresses of the panels, of the codes'
            table (0 when the panels are not compact), of the first exception of each panel and of
            the exceptions, and the bytes of a panel.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        outputs, self._inputs = weight.shape
        self._count, self._dtype = outputs // PANEL, weight.dtype
        self._table = self._starts = self._exceptions = np.zeros(0, np.int32)
        self._data = self._order(weight)
        self.is_compact = _may_compress(weight) and self._compress()
        self.record = np.array(
            [
                self._data.data_ptr(),
                self._table.ctypes.data if self.is_compact else 0,
                self._starts.ctypes.data,
                self._exceptions.ctypes.data,
                self._data.nbytes // self._count,
            ],
            np.int64,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self._data.nbytes

    def _order(self, weight: torch.Tensor) -> torch.Tensor:
        group = 2 if weight.dtype == torch.bfloat16 else 1
        view = weight.view(self._count, PANEL, self._inputs // group, group).permute(0, 2, 1, 3)
        return large_pages(view.shape, view.dtype).copy_(view)

    def _compress(self) -> bool:
        """Make the panels compact, but where there are many exceptions."""
        words = self._data.view(torch.int16).numpy().reshape(self._count, -1).view(np.uint16)
        frequency = np.zeros(256, np.int64)
        _count_upper(words, frequency)
        common = np.argsort(-frequency, kind="stable")[:_CODES].astype(np.uint8)
        exceptions = words.size - int(frequency[common].sum())
        if exceptions > _MOST_EXCEPTIONS * words.size:
            return False
        codes = np.full(256, _CODES, np.uint8)
        codes[common] = np.arange(_CODES)
        self._table = np.tile(common, _VECTOR // _CODES)
        self._starts = np.zeros(self._count + 1, np.int32)
        self._exceptions = np.zeros(exceptions, np.int32)
        units = words.shape[1] * 2 // _UNIT_EXPANDED
        data = large_pages((self._count, units, _UNIT_BYTES), torch.uint8)
        _compress_all(words, codes, _PLACES, data.numpy(), self._starts, self._exceptions)
        self._data = data
        return True

    def unpack(self) -> torch.Tensor:
        """The weight [out, in], bit for bit."""
        ordered = self._expand() if self.is_compact else self._data
        count, steps, _, group = ordered.shape
        return ordered.permute(0, 2, 1, 3).reshape(count * PANEL, steps * group)

    def _expand(self) -> torch.Tensor:
        out = torch.empty(self._count, self._inputs // 2, PANEL, 2, dtype=torch.bfloat16)
        _expand_all(self.record.ctypes.data, self._count, self._inputs, out.data_ptr())
        return out


def interleave(weight: torch.Tensor) -> torch.Tensor:
    """[2 * size, in], gates before values, so ordered that every panel holds 16 gates and then
    their 16 values."""
    halves = weight.view(2, -1, PANEL // 2, weight.shape[1])
    return halves.transpose(0, 1).reshape(weight.shape)


def separate(weight: torch.Tensor) -> torch.Tensor:
    """The weight that `interleave` was given."""
    pairs = weight.view(-1, 2, PANEL // 2, weight.shape[1])
    return pairs.transpose(0, 1).reshape(weight.shape)


def _may_compress(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and can_expand()


# Where the bytes of 64 weights go, so that interleaving two vectors, 16 bytes at a time, puts them
# right again.
_PLACES = np.arange(_VECTOR).reshape(4, 2, 8).transpose(1, 0, 2).ravel()


@compiled()
def _count_upper(words: Any, frequency: Any) -> Any:
    for panel in range(len(words)):
        for word in words[panel]:
            frequency[word >> 8] += 1


@compiled()
def _compress_all(
    words: Any, codes: Any, places: Any, data: Any, starts: Any, exceptions: Any
) -> Any:
    """Panels of bfloat16 [panels, weights] to units [panels, units, bytes], and what has no code to
    the exceptions."""
    found = 0
    for panel in range(len(words)):
        starts[panel] = found
        for index in range(words.shape[1]):
            word = words[panel, index]
            unit, inside = data[panel, index // (2 * _VECTOR)], index % (2 * _VECTOR)
            place = places[inside % _VECTOR]
            code = codes[word >> 8]
            if code == _CODES:
                exceptions[found] = index << _UPPER_BITS | np.int64(word >> 8)
                found, code = found + 1, np.uint8(0)
            unit[inside // _VECTOR * _VECTOR + place] = np.uint8(word)
            if inside < _VECTOR:
                unit[2 * _VECTOR + place] = code
            else:
                unit[2 * _VECTOR + place] |= np.uint8(code << 4)
    starts[len(words)] = found


def _emit_expand(builder: Any, unit: Any, target: Any, table: Any) -> None:
    """A unit of compact weights to bfloat16; all are addresses."""
    common = load(builder, table, _BYTES)
    codes = load(builder, builder.add(unit, INT64(2 * _VECTOR)), _BYTES)
    for group in range(2):
        lower = load(builder, builder.add(unit, INT64(group * _VECTOR)), _BYTES)
        upper = _look_up(builder, common, _codes_of(builder, codes, group))
        for half in range(2):
            place = builder.add(target, INT64((2 * group + half) * _VECTOR))
            store(builder, _interleaved(builder, lower, upper, half), place)


def _codes_of(builder: Any, codes: Any, group: int) -> Any:
    """The lower or upper four bits of 64 bytes."""
    if group:
        shift = ir.Constant(_SHORTS, [4] * (_VECTOR // 2))
        codes = builder.bitcast(builder.lshr(builder.bitcast(codes, _SHORTS), shift), _BYTES)
    return builder.and_(codes, ir.Constant(_BYTES, [_CODES - 1] * _VECTOR))


def _look_up(builder: Any, table: Any, codes: Any) -> Any:
    """The byte of each code; one by one where the processor cannot: there nothing is compact, but
    the code is compiled all the same."""
    if not can_expand():
        found = ir.Constant(_BYTES, None)
        for lane in map(INT32, range(_VECTOR)):
            place = builder.zext(builder.extract_element(codes, lane), INT32)
            found = builder.insert_element(found, builder.extract_element(table, place), lane)
        return found
    signature = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    function = cgutils.get_or_insert_function(
        builder.module, signature, "llvm.x86.avx512.pshuf.b.512"
    )
    return builder.call(function, [table, codes])


def _interleaved(builder: Any, lower: Any, upper: Any, half: int) -> Any:
    """Pairs of a lower and an upper byte, of the first or second 8 of each 16."""
    order = [
        source + 16 * lane + 8 * half + index
        for lane in range(4)
        for index in range(8)
        for source in (0, _VECTOR)
    ]
    mask = ir.Constant(ir.VectorType(INT32, _VECTOR), order)
    return builder.shuffle_vector(lower, upper, mask)


_expand_unit = procedure(_emit_expand)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def panel_address(weight: Any, panel: Any) -> Any:
    """Where a panel lies of the weight whose `Panels.record` is at an address."""
    record = pointer(weight, np.int64(0))
    return record[0] + panel * record[4]


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def expand_part(
    weight: Any, panel: Any, first: Any, steps: Any, target: Any, following: Any, lines: Any
) -> Any:
    """Expand steps of 32 inputs of a compact panel to `target`, as the panel's bfloat16.

    Args:
        weight: address of `Panels.record`.
        panel: which.
        first: step to begin with.
        steps: how many.
        target: address of room for steps * `STEP_BYTES`.
        following: address from which memory will be read next, and
        lines: how many of its cache lines to ask for in every step meanwhile.
    """
    record = pointer(weight, np.int64(0))
    source = panel_address(weight, panel) + first * _STEP_UNITS * _UNIT_BYTES
    for step in range(steps):
        wanted = following + step * lines * _CACHE_LINE
        for unit in range(_STEP_UNITS):
            ask_for(wanted, lines, unit, _STEP_UNITS)
            index = step * _STEP_UNITS + unit
            _expand_unit((source + index * _UNIT_BYTES, target + index * _UNIT_EXPANDED, record[1]))
    _correct(record, panel, first * _STEP_WEIGHTS, (first + steps) * _STEP_WEIGHTS, target)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _correct(record: Any, panel: Any, begin: Any, end: Any, target: Any) -> Any:
    """Put right the upper bytes of the exceptions among a panel's weights `begin` to `end`."""
    starts, exceptions = pointer(record[2], np.int32(0)), pointer(record[3], np.int32(0))
    out = pointer(target, np.uint8(0))
    for index in range(np.int64(starts[panel]), np.int64(starts[panel + 1])):
        place = np.int64(exceptions[index] >> _UPPER_BITS)
        if begin <= place < end:
            out[2 * (place - begin) + 1] = np.uint8(exceptions[index])


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _expand_all(weight: Any, count: Any, inputs: Any, out: Any) -> Any:
    steps = inputs // 32
    for panel in range(count):
        expand_part(weight, panel, 0, steps, out + panel * steps * STEP_BYTES, out, 0)
