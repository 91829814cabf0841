"""Runs the layers of the vocoder over many rows at once, computing each frame as seldom as it can.

Rows are spans of different sequences. For every layer the chain works out which of its outputs are
wanted by the layers after it, gives it exactly the inputs those need, and drops the rest. A row
may come with the `StreamState` that its sequence's previous chunk left: the last inputs of every
layer. Then nothing before the new frames is computed again, so a stream costs about what one
decode of the whole costs, whatever the size of its chunks, and gives the same samples.

Where inputs end (at the window's end) zeros follow, as at the end of a sequence. What was computed
from such zeros is used once and not kept in a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from torch import Tensor, cat

from .row_layout import Context, FrameMask, RowLayout, Span, split_rows


class Stage(Protocol):
    """A layer over time."""

    @property
    def context(self) -> Context:
        """Frames before and after each frame that the output depends on."""

    def look(self, pack: Tensor, layout: FrameMask) -> Tensor:
        """[num_positions, in] to what each frame sees, [num_positions, ...]; gaps are zero."""

    def apply(self, x: Tensor, seen: Tensor) -> Tensor:
        """Frames [rows, in] and what they see [rows, ...] to [rows, out]; may overwrite `x`."""


class Then:
    """A stage followed by layers over channels."""

    def __init__(self, stage: Stage, *layers: Callable[[Tensor], Tensor]) -> None:
        self.stage = stage
        self.layers = layers
        self.context = stage.context

    def look(self, pack: Tensor, layout: FrameMask) -> Tensor:
        """See `Stage`."""
        return self.stage.look(pack, layout)

    def apply(self, x: Tensor, seen: Tensor) -> Tensor:
        """See `Stage`."""
        out = self.stage.apply(x, seen)
        for layer in self.layers:
            out = layer(out)
        return out


@dataclass(frozen=True, eq=False)
class StreamState:
    """What the next chunk of a sequence needs of the frames before it.

    Attributes:
        ends: one per stage, and one for the output: frames before it are final there.
        tails: per stage, its last final inputs: frames up to `ends[stage]`, [frames, in].
    """

    ends: tuple[int, ...]
    tails: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One window's way through the chain. Frames are those of its sequence, not of the window.

    Attributes:
        window: frames that there are.
        wanted: frames whose outputs are wanted.
        state: left by the sequence's previous chunk; None starts at the window.
        keep_state: whether a next chunk may come. Without a state only a row that starts its
            sequence can keep one: any other lacks frames before its context.
    """

    window: Span
    wanted: Span
    state: StreamState | None = None
    keep_state: bool = False

    @property
    def first_input(self) -> int:
        """Inputs before it are not read."""
        return self.window.start if self.state is None else self.state.ends[0]

    @property
    def given(self) -> Span:
        """Frames whose inputs are read."""
        return Span(self.first_input, self.window.end)


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage does for one row.

    Attributes:
        have: input frames there are, the state's included.
        take: of those, the ones that are read.
        give: output frames.
        final: inputs before it will not change when more frames come.
        keep: inputs that the row's next chunk will need again.
    """

    have: Span
    take: Span
    give: Span
    final: int
    keep: Span


class Chain:
    """Stages in order, and what they need of the neighbouring frames together."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        backwards = accumulate(
            (stage.context for stage in reversed(self.stages)), initial=Context()
        )
        contexts = list(backwards)[::-1]
        self.context = contexts[0]
        self._remaining = contexts[1:]
        self._gap = max(max(stage.context.left, stage.context.right) for stage in self.stages)

    def __add__(self, other: Chain) -> Chain:
        return Chain((*self.stages, *other.stages))

    def __call__(
        self, inputs: Sequence[Tensor], rows: Sequence[Row]
    ) -> tuple[list[Tensor], list[StreamState | None]]:
        """Run all stages.

        Args:
            inputs: one per row, frames `first_input` to the window's end, [frames, in].
            rows: a row with a state must have `first_input` in its window.

        Returns:
            The outputs of `wanted`, [frames, out] each, cut off at the window's end; and for
            rows with `keep_state` the state that their sequence can go on from.
        """
        spans = [row.given for row in rows]
        x = cat(list(inputs))
        plans = [self.plan(row) for row in rows]
        tails: list[list[Tensor]] = [[] for _ in rows]
        for index in range(len(self.stages)):
            steps = [plan[index] for plan in plans]
            x, kept = self._run(index, x, spans, rows, steps)
            for row_tails, tail in zip(tails, kept, strict=True):
                row_tails.append(tail)
            spans = [step.give for step in steps]
        return self.finish(x, spans, rows, plans, tails)

    def plan(self, row: Row) -> list[Step]:
        """What each stage does for a row."""
        steps: list[Step] = []
        span, final = row.given, row.given.end
        for index, stage in enumerate(self.stages):
            steps.append(self._plan(index, row, span, final))
            span, final = steps[-1].give, max(steps[-1].final - stage.context.right, 0)
        return steps

    def finish(
        self,
        x: Tensor,
        spans: Sequence[Span],
        rows: Sequence[Row],
        plans: Sequence[Sequence[Step]],
        tails: Sequence[Sequence[Tensor]],
    ) -> tuple[list[Tensor], list[StreamState | None]]:
        """From the last stage's outputs `x`, which holds `spans` end to end, to what a call gives.

        Args:
            tails: of every row, the inputs `keep` of every stage.
        """
        ends, starts = list(accumulate(map(len, spans))), [row.wanted.start for row in rows]
        outputs = [
            x[end - span.end + start : end]
            for end, span, start in zip(ends, spans, starts, strict=True)
        ]
        right = self.stages[-1].context.right
        states = [
            StreamState((*(s.final for s in plan), max(plan[-1].final - right, 0)), tuple(kept))
            if row.keep_state
            else None
            for row, plan, kept in zip(rows, plans, tails, strict=True)
        ]
        return outputs, states

    def _plan(self, index: int, row: Row, span: Span, final: int) -> Step:
        context, later = self.stages[index].context, self._remaining[index]
        end = min(row.window.end, row.wanted.end + later.right)
        if row.state is None:
            start = max(row.window.start, row.wanted.start - later.left)
            have = span
        else:
            start = row.state.ends[index + 1]
            have = Span(span.start - len(row.state.tails[index]), span.end)
        take = Span(max(have.start, start - context.left), min(have.end, end + context.right))
        final = min(final, take.end)
        next_start = max(final - context.right, 0)
        keep = Span(max(take.start, next_start - context.left), final)
        return Step(have, take, Span(start, end), final, keep)

    def _run(
        self,
        index: int,
        x: Tensor,
        spans: Sequence[Span],
        rows: Sequence[Row],
        steps: Sequence[Step],
    ) -> tuple[Tensor, list[Tensor]]:
        stage = self.stages[index]
        layout = RowLayout(tuple(step.take for step in steps), self._gap)
        pieces = [
            _pieces(None if row.state is None else row.state.tails[index], part, step)
            for row, part, step in zip(rows, split_rows(x, spans), steps, strict=True)
        ]
        pack = layout.pack(pieces)
        tails = _tails(pack, layout, rows, steps)
        give = [step.give for step in steps]
        seen = layout.select(stage.look(pack, layout), give)
        return stage.apply(layout.select(pack, give), seen), tails


def _tails(
    pack: Tensor, layout: RowLayout, rows: Sequence[Row], steps: Sequence[Step]
) -> list[Tensor]:
    """Copies of the inputs that each row's next chunk will need again."""
    tails = []
    for offset, row, step in zip(layout.offsets, rows, steps, strict=True):
        at = offset + step.keep.start - step.take.start
        length = len(step.keep) if row.keep_state else 0
        tails.append(pack[at : at + length].clone())
    return tails


def _pieces(tail: Tensor | None, part: Tensor, step: Step) -> list[Tensor]:
    """Frames `take` of a row, from its state's tail and its new inputs."""
    skip, length = step.take.start - step.have.start, len(step.take)
    if tail is None:
        return [part.narrow(0, skip, length)]
    from_tail = tail[skip : skip + length]
    skip = max(skip - len(tail), 0)
    return [from_tail, part.narrow(0, skip, length - len(from_tail))]
