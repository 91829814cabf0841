"""Rows of different lengths in one tensor, so that one launch computes all of them exactly.

Rows are laid end to end along time with a gap between them (and at both ends) at least as wide as
any convolution's padding. A convolution over the pack, whose gaps were zeroed just before, gives
every row what it would get alone with zero padding. Nothing is masked or padded to the longest row.

A row need not start at its window's first frame: what later layers cannot see is dropped on the
way (`narrow`). This module computes nothing but indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

# A repack copies every frame; it must save more than that copy costs.
_MIN_SAVING = 1 / 16


@dataclass(frozen=True)
class Context:
    """Frames before and after a frame that its output depends on."""

    left: int = 0
    right: int = 0

    def __add__(self, other: Context) -> Context:
        return Context(self.left + other.left, self.right + other.right)


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of a window."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, eq=False)
class RowLayout:
    """Where each row lies in a pack [num_positions, channels].

    Attributes:
        rows: the frames of its window that each row holds.
        gap: positions between rows, before the first and after the last.
        device: where the index tensors live.
    """

    rows: tuple[Span, ...]
    gap: int
    device: torch.device

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each row's first frame."""
        steps = accumulate((len(row) + self.gap for row in self.rows), initial=self.gap)
        return tuple(steps)[:-1]

    @property
    def num_positions(self) -> int:
        """Length of the pack, gaps included."""
        return sum(len(row) + self.gap for row in self.rows) + self.gap

    @cached_property
    def gap_index(self) -> Tensor:
        """int64 [num_gap_positions]: positions that belong to no row."""
        starts = [
            0,
            *(offset + len(row) for offset, row in zip(self.offsets, self.rows, strict=True)),
        ]
        gaps = [torch.arange(start, start + self.gap) for start in starts]
        return torch.cat(gaps).to(self.device)

    def clear_gaps(self, x: Tensor) -> Tensor:
        """Zero the gaps of `x` [num_positions, channels] in place."""
        return x.index_fill_(0, self.gap_index, 0.0)

    def pack(self, rows: Sequence[Tensor]) -> Tensor:
        """Rows [len_i, channels] to a pack [num_positions, channels]."""
        gap = rows[0].new_zeros(self.gap, rows[0].shape[1])
        parts = [gap]
        for row in rows:
            parts += [row, gap]
        return torch.cat(parts)

    def unpack(self, x: Tensor) -> list[Tensor]:
        """A pack to its rows [len_i, channels], as views."""
        return [x.narrow(0, at, len(row)) for at, row in zip(self.offsets, self.rows, strict=True)]

    def narrow(self, x: Tensor, spans: Sequence[Span]) -> tuple[Tensor, RowLayout]:
        """Drop the frames outside `spans`, where that saves enough to be worth the copy."""
        rows = tuple(
            Span(max(row.start, span.start), min(row.end, span.end))
            for row, span in zip(self.rows, spans, strict=True)
        )
        narrowed = RowLayout(rows, self.gap, self.device)
        if narrowed.num_positions > (1 - _MIN_SAVING) * self.num_positions:
            return x, self
        kept = [
            x.narrow(0, at + new.start - old.start, len(new))
            for at, old, new in zip(self.offsets, self.rows, rows, strict=True)
        ]
        return narrowed.pack(kept), narrowed


def whole_rows(lengths: Sequence[int], gap: int, device: torch.device) -> RowLayout:
    """The layout of windows of `lengths` frames, nothing dropped."""
    return RowLayout(tuple(Span(0, length) for length in lengths), gap, device)
