"""A chain of layers over rows of one fixed shape, with nothing in it that depends on the data.

`Chain` gives every row exactly the frames that it needs, so its shapes change with every call. Here
all rows have as many frames as a bucket holds, so that a call can be captured once and replayed:
what is not a frame is zero before every layer, as beyond the ends of a sequence, and what a row
gets does not depend on how much padding it has or on its neighbours.

A stream is computed as a delay line. Each layer keeps the last `left + right` frames of its input
in a slot of the row's sequence and gives as many outputs as it gets inputs, `right` frames late.
It chooses no rows and no slots, and it knows nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .chain import Stage
from .row_layout import Context, FrameMask


class _DelayByOne:
    """Gives what it gets, one frame late: makes an odd delay even."""

    context = Context(right=1)

    def look(self, pack: Tensor, layout: FrameMask) -> Tensor:
        """Each frame sees nothing but itself."""
        return pack

    def apply(self, x: Tensor, seen: Tensor) -> Tensor:
        """The same frames."""
        return x


@dataclass(frozen=True, eq=False)
class _Mask:
    """Implements `FrameMask` for rows [rows, positions] that lie end to end."""

    real: Tensor

    def is_frame(self, x: Tensor) -> Tensor:
        """See `FrameMask`."""
        return self.real.reshape(-1, 1).to(x.dtype)


class PaddedChain:
    """Runs the stages of a chain.

    Args:
        stages: as a `Chain` has them.
        features: width of their input.
        num_slots: sequences whose streams can be kept; one more slot, the last, is scratch.
        device: where the states live.

    Attributes:
        delay: frames by which a stream's outputs lag behind its inputs; even.
        scratch_slot: belongs to no sequence.
    """

    def __init__(
        self, stages: Sequence[Stage], *, features: int, num_slots: int, device: torch.device
    ) -> None:
        self._stages = list(stages)
        self.delay = sum(stage.context.right for stage in stages)
        if self.delay % 2:
            self._stages.insert(0, _DelayByOne())
            self.delay += 1
        self.scratch_slot = num_slots
        widths = self._widths(features, device)
        self._tails = [
            torch.zeros(num_slots + 1, _reach(stage), width, device=device)
            for stage, width in zip(self._stages, widths, strict=True)
        ]

    def whole(self, x: Tensor, ends: Tensor) -> Tensor:
        """Rows that begin and end where their sequences do, or whose edges nobody wants.

        Args:
            x: [rows, frames, features].
            ends: int64 [rows], frames that each row has; the rest is ignored.

        Returns:
            [rows, frames, out].
        """
        first = torch.zeros_like(ends)
        for stage in self._stages:
            left, right = stage.context.left, stage.context.right
            x = _apply(stage, F.pad(x, (0, 0, left, right)), first - left, ends)
        return x

    def resume(
        self, x: Tensor, slots: Tensor, first: Tensor, counts: Tensor, ends: Tensor
    ) -> Tensor:
        """The next frames of streams; moves their states on.

        Args:
            x: [rows, frames, features], new inputs.
            slots: int64 [rows], where each stream's state is; distinct, but for the scratch slot.
            first: int64 [rows], position in the sequence of each row's first new input; 0 begins
                a stream, whatever was in its slot.
            counts: int64 [rows], new inputs of each row; what follows is ignored.
            ends: int64 [rows], length of the sequence where that is known, else any larger number;
                inputs beyond it are taken as zero.

        Returns:
            [rows, frames, out]: outputs for the positions from `first - delay` on.
        """
        for stage, tails in zip(self._stages, self._tails, strict=True):
            reach = _reach(stage)
            first = first - reach
            pack = torch.cat([tails[slots], x], 1)
            place = counts[:, None] + torch.arange(reach, device=x.device)
            # What precedes a sequence's beginning is zero to whoever reads it, so a tail needs no
            # mask of its own.
            kept = pack.gather(1, place[..., None].expand(-1, -1, pack.shape[2]))
            tails.index_copy_(0, slots, kept)
            x = _apply(stage, pack, first, ends)
            first = first + stage.context.left
        return x

    def _widths(self, features: int, device: torch.device) -> list[int]:
        """Input widths of the stages, from a run of one frame."""
        x = torch.zeros(1, 1, features, device=device)
        first = torch.zeros(1, dtype=torch.int64, device=device)
        widths = []
        for stage in self._stages:
            widths.append(x.shape[2])
            left, right = stage.context.left, stage.context.right
            x = _apply(stage, F.pad(x, (0, 0, left, right)), first - left, torch.ones_like(first))
        return widths


def _reach(stage: Stage) -> int:
    """Frames beside its own that an output depends on."""
    return stage.context.left + stage.context.right


def _apply(stage: Stage, pack: Tensor, first: Tensor, ends: Tensor) -> Tensor:
    """One stage over rows [rows, reach + frames, in] whose first positions are `first`, with zeros
    for positions outside [0, ends): [rows, frames, out]."""
    rows, length, width = pack.shape
    positions = first[:, None] + torch.arange(length, device=pack.device)
    real = (positions >= 0) & (positions < ends[:, None])
    pack = pack.masked_fill(~real[..., None], 0)
    seen = stage.look(pack.view(rows * length, width), _Mask(real))
    left, count = stage.context.left, length - _reach(stage)
    seen = seen.view(rows, length, *seen.shape[1:])[:, left : left + count]
    own = pack[:, left : left + count].reshape(rows * count, width)
    return stage.apply(own, seen.reshape(rows * count, *seen.shape[2:])).view(rows, count, -1)
