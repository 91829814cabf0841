"""`CpuChain`: a chain whose layers read their rows in place, for the CPU.

`Chain` lays rows into packs, which on a CPU costs as much as the matrix products of a small
vocoder, and more than them where a chunk is short. Here every layer is one compiled kernel, which
finds each frame where the layer before or the sequence's state has it, and its products. Plans,
rows and states are those of `Chain`, which stays the reference and the way on other devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..layers.cpu_math import marker
from . import cpu_kernels
from .chain import Chain, Row, Stage, Step, StreamState, Then
from .istft import InverseSTFT
from .layers import ConvNeXtBlock, FrameConv, blocks
from .row_layout import Span, bucket

Table = npt.NDArray[np.int64]  # [rows, NUM_FIELDS]; see `cpu_kernels`


class _Layer(Protocol):
    """A stage, compiled."""

    def __call__(self, x: Tensor, table: Table, length: int) -> Tensor:
        """Inputs [*, in] to outputs [length, out], of which the last may be no frames."""


class CpuChain:
    """The stages of a chain, compiled.

    Args:
        chain: on the CPU.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._layers = [_compile(stage) for stage in chain.stages]

    def __call__(
        self, inputs: Sequence[Tensor], rows: Sequence[Row]
    ) -> tuple[list[Tensor], list[StreamState | None]]:
        """See `Chain`."""
        plans = [self._chain.plan(row) for row in rows]
        tails: list[list[Tensor]] = [[] for _ in rows]
        spans = [row.given for row in rows]
        x = torch.cat(list(inputs))
        for index, layer in enumerate(self._layers):
            steps = [plan[index] for plan in plans]
            for row, step, kept in zip(rows, steps, tails, strict=True):
                kept.append(x.new_empty(len(step.keep) if row.keep_state else 0, x.shape[1]))
            table = _table(index, spans, rows, steps, tails)
            spans = [step.give for step in steps]
            x = layer(x, table, bucket(sum(map(len, spans))))
        return self._chain.finish(x, spans, rows, plans, tails)


def _table(
    index: int,
    spans: Sequence[Span],
    rows: Sequence[Row],
    steps: Sequence[Step],
    tails: Sequence[Sequence[Tensor]],
) -> Table:
    """What a kernel needs to know of each row; see `cpu_kernels`."""
    lines: list[tuple[int, ...]] = []
    x_at = out_at = 0
    for span, row, step, kept in zip(spans, rows, steps, tails, strict=True):
        tail = None if row.state is None else row.state.tails[index]
        before = (0, 0) if tail is None else (tail.data_ptr(), len(tail))
        keep = (kept[index].data_ptr(), step.keep.start, step.keep.start + len(kept[index]))
        give = (step.give.start, step.give.end)
        lines.append((x_at, span.start, span.end, *before, *give, out_at, *keep))
        x_at += len(span)
        out_at += len(step.give)
    return np.array(lines, dtype=np.int64)


class _Conv:
    """`FrameConv`, compiled."""

    def __init__(self, conv: FrameConv) -> None:
        self._conv = conv

    def __call__(self, x: Tensor, table: Table, length: int) -> Tensor:
        """See `_Layer`."""
        kernel, channels = self._conv.kernel_size, x.shape[1]
        seen = x.new_empty(length, kernel * channels)
        cpu_kernels.neighbourhoods(
            *(x.data_ptr(), channels, table.ctypes.data, len(table)),
            *(kernel, self._conv.context.left, seen.data_ptr(), length),
        )
        return self._conv.linear(seen)


class _Block:
    """`ConvNeXtBlock`, compiled."""

    def __init__(self, block: ConvNeXtBlock) -> None:
        self._block = block
        conv, norm = block.depthwise, block.norm
        # [kernel, channels]
        self._weight = conv.weight.squeeze((1, 2)).T.contiguous()
        self._filters = self._weight.data_ptr(), conv.bias.data_ptr()
        self._taps = len(self._weight), conv.dilation, conv.context.left
        self._norm = norm.weight.data_ptr(), norm.bias.data_ptr(), np.float32(norm.eps)
        self._dtype = block.expand.dtype

    def __call__(self, x: Tensor, table: Table, length: int) -> Tensor:
        """See `_Layer`."""
        seen = x.new_empty(length, x.shape[1], dtype=self._dtype)
        same = x.new_empty(length, x.shape[1])
        cpu_kernels.depthwise_norm(
            *(x.data_ptr(), x.shape[1], table.ctypes.data, len(table)),
            *(self._filters, self._taps, self._norm),
            *(seen.data_ptr(), same.data_ptr(), length, marker(self._dtype)),
        )
        for part, update in zip(blocks(same), blocks(seen), strict=True):
            part.add_(self._block.project(self._block.expand(update)))
        return same


class _OverlapAdd:
    """`InverseSTFT`, compiled."""

    def __init__(self, istft: InverseSTFT) -> None:
        self._istft = istft

    def __call__(self, x: Tensor, table: Table, length: int) -> Tensor:
        """See `_Layer`."""
        hop_length, power = self._istft.hop_length, self._istft.power
        out = x.new_empty(length, hop_length)
        cpu_kernels.overlap_add(
            *(x.data_ptr(), len(power) // hop_length, hop_length, table.ctypes.data, len(table)),
            *(power.data_ptr(), out.data_ptr()),
        )
        return out


class _Then:
    """`Then`, compiled: the layers over channels follow."""

    def __init__(self, layer: _Layer, following: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self._layer, self._following = layer, following

    def __call__(self, x: Tensor, table: Table, length: int) -> Tensor:
        """See `_Layer`."""
        out = self._layer(x, table, length)
        for layer in self._following:
            out = layer(out)
        return out


def _compile(stage: Stage) -> _Layer:
    """The compiled counterpart of a stage.

    Raises:
        TypeError: a stage of an unknown kind.
    """
    if isinstance(stage, Then):
        return _Then(_compile(stage.stage), stage.layers)
    if isinstance(stage, ConvNeXtBlock):
        return _Block(stage)
    if isinstance(stage, FrameConv):
        return _Conv(stage)
    if isinstance(stage, InverseSTFT):
        return _OverlapAdd(stage)
    raise TypeError(f"{type(stage).__name__} has no compiled counterpart")
