"""`InputBatch`: what the runner knows of each sequence, and a step's inputs made from it.

Every known sequence owns a row in a few host arrays (block table, sampling parameters), so that a
step gathers its inputs by row instead of walking over requests. It decides nothing about what runs
and draws nothing; it keeps no frames (`frame_store`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..scheduler.interfaces import ScheduledSequence
from .frame_store import FrameStore
from .interfaces import IntArray, OutputKind, Prompt, ResolvedSampling
from .noise import chattts_race, uniform
from .sampler import PENALTY_WINDOW

FIRST_ROWS = 64

Arrays = dict[str, npt.NDArray[Any]]
LongArray = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class SequenceState:
    """One sequence on the runner's side.

    Attributes:
        row: its place in the batch's arrays.
        drawn: host copies of what was drawn, [num_codebooks] each.
        stopped: it drew its end; later draws of steps in flight are ignored.
    """

    seq_id: str
    row: int
    prompt: Prompt
    sampling: ResolvedSampling
    race: torch.Tensor | None
    drawn: list[IntArray] = field(default_factory=list)
    stopped: bool = False

    @property
    def num_text_tokens(self) -> int:
        """Positions before the first frame."""
        return len(self.prompt.token_ids)

    @property
    def num_prompt_frames(self) -> int:
        """Frames that the prompt gives."""
        return 0 if self.prompt.frames is None else len(self.prompt.frames)

    def frame_index(self, position: int) -> int:
        """Index in the frame store of the frame at a position; below 0 for text."""
        return position - self.num_text_tokens


@dataclass(frozen=True, slots=True, eq=False)
class SampleGroup:
    """Sequences of one step that draw from the same head."""

    kind: OutputKind
    states: tuple[SequenceState, ...]
    steps: LongArray  # [S] index of the frame that is drawn
    last: LongArray  # [S] packed index of the predicting position


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """A step in host terms. B sequences, N packed positions."""

    states: tuple[SequenceState, ...]
    computed: LongArray  # [B]
    counts: LongArray  # [B]
    groups: tuple[SampleGroup, ...]

    @property
    def rows(self) -> LongArray:
        """Rows of the sequences, [B]."""
        return np.array([state.row for state in self.states], dtype=np.int64)

    @property
    def is_decode(self) -> bool:
        """True when every sequence computes its newest frame and draws the next, plainly."""
        if len(self.groups) != 1 or self.groups[0].kind != "frames":
            return False
        if len(self.groups[0].states) != len(self.states) or (self.counts != 1).any():
            return False
        return all(
            state.race is None and state.frame_index(computed) >= 0
            for state, computed in zip(self.states, self.computed.tolist(), strict=True)
        )


class InputBatch:
    """Rows of known sequences.

    Args:
        num_codebooks, codebook_size, text_vocab_size: of the model.
        max_blocks: longest block table.
        block_size: positions in a block.
        num_rows: to begin with.
    """

    def __init__(
        self,
        *,
        num_codebooks: int,
        codebook_size: int,
        text_vocab_size: int,
        max_blocks: int,
        block_size: int,
        num_rows: int = FIRST_ROWS,
    ) -> None:
        self._num_codebooks = num_codebooks
        self._vocab_sizes = {"frames": codebook_size, "text": text_vocab_size}
        self._block_size = block_size
        self._free = list(range(num_rows - 1, -1, -1))
        self._states: dict[str, SequenceState] = {}
        self._block_tables = np.zeros((num_rows, max_blocks), dtype=np.int32)
        self._parameters: Arrays = {
            "temperature": np.ones((num_rows, num_codebooks), dtype=np.float32),
            "top_p": np.ones(num_rows, dtype=np.float32),
            "top_k": np.ones(num_rows, dtype=np.int64),
            "repetition_penalty": np.ones(num_rows, dtype=np.float32),
            "min_new_tokens": np.zeros(num_rows, dtype=np.int64),
            "seed": np.zeros(num_rows, dtype=np.uint64),
        }

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, seq_id: str) -> bool:
        return seq_id in self._states

    @property
    def num_rows(self) -> int:
        """Rows in the arrays, used or not."""
        return len(self._block_tables)

    @property
    def max_blocks(self) -> int:
        """Longest block table."""
        return self._block_tables.shape[1]

    def state(self, seq_id: str) -> SequenceState:
        """What is known of a sequence."""
        return self._states[seq_id]

    def add(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> SequenceState:
        """Give a sequence a row.

        Raises:
            ValueError: the id is taken.
        """
        if seq_id in self._states:
            raise ValueError(f"sequence {seq_id!r} is already known")
        if not self._free:
            self._grow()
        row = self._free.pop()
        race = None
        if sampling.seed_mode == "chattts":
            columns = self._num_codebooks if prompt.output == "frames" else 1
            race = chattts_race(sampling.seed, columns, self._vocab_sizes[prompt.output])
        state = SequenceState(seq_id, row, prompt, sampling, race)
        self._states[seq_id] = state
        self._set_parameters(row, sampling)
        return state

    def remove(self, seq_id: str) -> None:
        """Free a sequence's row."""
        self._free.append(self._states.pop(seq_id).row)

    def plan(self, scheduled: Sequence[ScheduledSequence]) -> BatchPlan:
        """Note new blocks and lay the step out."""
        states = tuple(self._states[item.seq_id] for item in scheduled)
        for state, item in zip(states, scheduled, strict=True):
            new = item.block_table[item.first_new_block :]
            if new:
                end = item.first_new_block + len(new)
                self._block_tables[state.row, item.first_new_block : end] = new
        computed = np.array([item.num_computed_tokens for item in scheduled], dtype=np.int64)
        counts = np.array([item.num_scheduled_tokens for item in scheduled], dtype=np.int64)
        samples = np.array([item.samples for item in scheduled], dtype=bool)
        return BatchPlan(states, computed, counts, _groups(states, computed, counts, samples))

    def positions(self, plan: BatchPlan) -> tuple[LongArray, LongArray]:
        """Packed positions [N] and the index [N] of the sequence that each belongs to."""
        owner = np.repeat(np.arange(len(plan.counts)), plan.counts)
        starts = np.cumsum(plan.counts) - plan.counts
        return np.arange(len(owner)) - starts[owner] + plan.computed[owner], owner

    def attention_arrays(self, plan: BatchPlan) -> Arrays:
        """Host side of `AttentionMetadata`, and `positions` int64 [N]."""
        rows = plan.rows
        positions, owner = self.positions(plan)
        lengths = plan.computed + plan.counts
        width = -(-int(lengths.max()) // self._block_size)
        blocks = self._block_tables[rows[owner], positions // self._block_size]
        slots = blocks.astype(np.int64) * self._block_size + positions % self._block_size
        return {
            "positions": positions,
            "query_start_loc": np.concatenate([[0], np.cumsum(plan.counts)]).astype(np.int32),
            "seq_lens": lengths.astype(np.int32),
            "block_tables": self._block_tables[rows, :width],
            "slot_mapping": slots,
        }

    def embedding_arrays(self, plan: BatchPlan, store: FrameStore) -> Arrays:
        """Which packed positions are text, frames, drawn text and speaker, and their contents."""
        if plan.is_decode:
            nothing = np.zeros(0, np.int64)
            names = ("text_index", "text_source", "drawn_index", "drawn_source")
            frames = np.arange(len(plan.states))
            newest = self.newest_frames(plan, store)
            return {**dict.fromkeys(names, nothing), "frame_index": frames, "frame_source": newest}
        sources: dict[str, list[tuple[LongArray, LongArray]]] = {}
        speakers: list[tuple[int, npt.NDArray[np.float32]]] = []
        start = 0
        for state, first, count in zip(
            plan.states, plan.computed.tolist(), plan.counts.tolist(), strict=True
        ):
            num_text = min(max(state.num_text_tokens - first, 0), count)
            if num_text:
                ids = state.prompt.token_ids[first : first + num_text].astype(np.int64)
                sources.setdefault("text", []).append((np.arange(start, start + num_text), ids))
                speakers += _speaker(state.prompt, first, num_text, start)
            if num_text < count:
                index = np.arange(start + num_text, start + count)
                begin = state.frame_index(first + num_text)
                rows = store.rows(state.seq_id, begin, begin + count - num_text)
                kind = "frame" if state.prompt.output == "frames" else "drawn"
                sources.setdefault(kind, []).append((index, rows))
            start += count
        arrays: Arrays = {}
        for name in ("text", "frame", "drawn"):
            pairs = sources.get(name, [])
            arrays[f"{name}_index"] = _concat([index for index, _ in pairs])
            arrays[f"{name}_source"] = _concat([source for _, source in pairs])
        if speakers:
            arrays["speaker_index"] = np.array([index for index, _ in speakers], dtype=np.int64)
            arrays["speakers"] = np.stack([vector for _, vector in speakers])
        return arrays

    def newest_frames(self, plan: BatchPlan, store: FrameStore) -> LongArray:
        """Rows of the frame store [B] that a decode step reads; see `BatchPlan.is_decode`."""
        rows = [
            store.row(state.seq_id, state.frame_index(computed))
            for state, computed in zip(plan.states, plan.computed.tolist(), strict=True)
        ]
        return np.array(rows, dtype=np.int64)

    def sampling_arrays(self, group: SampleGroup, store: FrameStore) -> Arrays:
        """Host side of `SamplingTensors` and where the draws go."""
        rows = np.array([state.row for state in group.states], dtype=np.int64)
        columns = self._num_codebooks if group.kind == "frames" else 1
        given = {name: array[rows] for name, array in self._parameters.items()}
        frames = [
            state.num_prompt_frames + step
            for state, step in zip(group.states, group.steps.tolist(), strict=True)
        ]
        for state, frame in zip(group.states, frames, strict=True):
            store.reserve(state.seq_id, frame + 1)
        places = [store.row(s.seq_id, f) for s, f in zip(group.states, frames, strict=True)]
        return {
            "rows": rows,
            "ring": group.steps % PENALTY_WINDOW,
            "last": group.last,
            "store_rows": np.array(places, dtype=np.int64),
            "temperature": given["temperature"][:, :columns],
            "top_p": given["top_p"],
            "top_k": given["top_k"],
            "repetition_penalty": given["repetition_penalty"],
            "ban_eos": group.steps < given["min_new_tokens"],
            "uniform": uniform(given["seed"], group.steps, columns),
            "uses_race": np.array([state.race is not None for state in group.states]),
        }

    def _set_parameters(self, row: int, sampling: ResolvedSampling) -> None:
        given = sampling.temperature
        temperature = given if len(given) == self._num_codebooks else given[:1]
        self._parameters["temperature"][row] = temperature
        self._parameters["top_p"][row] = sampling.top_p
        self._parameters["top_k"][row] = sampling.top_k
        self._parameters["repetition_penalty"][row] = sampling.repetition_penalty
        self._parameters["min_new_tokens"][row] = sampling.min_new_tokens
        self._parameters["seed"][row] = sampling.seed

    def _grow(self) -> None:
        rows = self.num_rows
        self._block_tables = np.concatenate([self._block_tables, np.zeros_like(self._block_tables)])
        for name, array in self._parameters.items():
            self._parameters[name] = np.concatenate([array, array])
        self._free = list(range(2 * rows - 1, rows - 1, -1))


def _groups(
    states: tuple[SequenceState, ...], computed: LongArray, counts: LongArray, samples: Any
) -> tuple[SampleGroup, ...]:
    ends = np.cumsum(counts) - 1
    kinds: tuple[OutputKind, ...] = ("frames", "text")
    groups = []
    for kind in kinds:
        mine = [i for i, s in enumerate(states) if samples[i] and s.prompt.output == kind]
        if not mine:
            continue
        chosen = tuple(states[i] for i in mine)
        prompts = np.array([state.prompt.num_tokens for state in chosen], dtype=np.int64)
        steps = (computed + counts)[mine] - prompts
        groups.append(SampleGroup(kind, chosen, steps, ends[mine]))
    return tuple(groups)


def _speaker(
    prompt: Prompt, first: int, num_text: int, start: int
) -> list[tuple[int, npt.NDArray[np.float32]]]:
    """The speaker vector and its packed index, when its position is among those computed now."""
    where = prompt.speaker_position
    if where is None or prompt.speaker is None or not first <= where < first + num_text:
        return []
    return [(start + where - first, prompt.speaker)]


def _concat(arrays: list[LongArray]) -> LongArray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
