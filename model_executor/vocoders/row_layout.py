"""Rows of different lengths in one tensor, so that one launch computes all of them exactly.

Rows are laid end to end along time with a gap between them (and at both ends) at least as wide as
any convolution's padding. A convolution over the pack, whose gaps are zero, gives every row what it
would get alone with zero padding. Nothing is masked or padded to the longest row. This module
computes nothing but positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

# Kernels are generated for every number of rows that they meet, which costs more than running
# them; so few numbers are used, at most an eighth apart.
_MIN_STEP = 16
_STEPS_PER_OCTAVE = 8


def bucket(length: int) -> int:
    """The number of rows to compute for `length` rows; 0 stays 0."""
    octave = 1 << max(length - 1, 0).bit_length() >> 1
    step = max(_MIN_STEP, octave // _STEPS_PER_OCTAVE)
    return -(-length // step) * step


def buckets(longest: int) -> list[int]:
    """Every value of `bucket` from 1 row to `longest`."""
    return sorted({bucket(length) for length in range(1, longest + 1)})


@dataclass(frozen=True)
class Context:
    """Frames before and after a frame that its output depends on."""

    left: int = 0
    right: int = 0

    def __add__(self, other: Context) -> Context:
        return Context(self.left + other.left, self.right + other.right)


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of a sequence."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class FrameMask(Protocol):
    """Which positions of a pack hold frames; the others hold zeros."""

    def is_frame(self, x: Tensor) -> Tensor:
        """1 for frames and 0 for gaps, in the type of `x`, [num_positions, 1]."""


@dataclass(frozen=True, eq=False)
class RowLayout:
    """Where each row lies in a pack [num_positions, channels].

    Attributes:
        rows: the frames of its sequence that each row holds.
        gap: positions between rows and before the first; at least as many follow the last.
    """

    rows: tuple[Span, ...]
    gap: int

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each row's first frame."""
        steps = accumulate((len(row) + self.gap for row in self.rows), initial=self.gap)
        return tuple(steps)[:-1]

    def pack(self, rows: Sequence[Sequence[Tensor]]) -> Tensor:
        """Rows, each in pieces [frames, channels], to a pack [num_positions, channels]."""
        first = rows[0][0]
        gap = first.new_zeros(self.gap, first.shape[1])
        parts = [gap]
        for pieces in rows:
            parts += [*pieces, gap]
        length = self.gap + sum(len(row) + self.gap for row in self.rows)
        parts.append(first.new_zeros(bucket(length) - length, first.shape[1]))
        return torch.cat(parts)

    def select(self, x: Tensor, spans: Sequence[Span]) -> Tensor:
        """Frames `spans` of the rows of a pack, end to end without gaps."""
        return torch.cat(
            [
                x.narrow(0, offset + span.start - row.start, len(span))
                for offset, row, span in zip(self.offsets, self.rows, spans, strict=True)
            ]
        )

    def is_frame(self, x: Tensor) -> Tensor:
        """1 for positions of rows and 0 for gaps, in the type of `x`, [num_positions, 1]."""
        ones = [[x.new_ones(len(row), 1)] for row in self.rows]
        return self.pack(ones)


def split_rows(x: Tensor, spans: Sequence[Span]) -> tuple[Tensor, ...]:
    """Views of the rows of `x`, which holds `spans` end to end."""
    return torch.split(x, [len(span) for span in spans])
