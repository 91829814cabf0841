"""`Sequence`: what the scheduler remembers of one segment. Few integers, the rest is derived.

Positions 0 to num_prompt_tokens - 1 are the prompt; frame i sits at num_prompt_tokens + i and is
drawn when the position before it is computed. The newest frame has no KV until it is computed, in
the step that draws the next one.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal

from .interfaces import SequencePriority

SequenceStatus = Literal["waiting", "running", "finished"]
SortKey = tuple[float, int, int]


@dataclass(slots=True, eq=False)
class Sequence:
    """Scheduling state of one segment.

    Attributes:
        ticket: order of `add`; breaks ties of arrival.
        block_hashes: one hash for every full block of the prompt, each including those before it.
        max_new_frames: capped so that prompt and frames fit the model.
        num_frames: frames kept so far.
        num_pending: draws that were scheduled and not answered yet; each is taken to be a frame.
        num_in_flight: steps that were scheduled with it and not answered yet.
        num_computed_tokens: positions whose KV exists once the steps in flight have run.
        block_table: replaced, not emptied, at preemption: steps in flight still read the old one.
        num_known_blocks: entries of `block_table` that the runner has been told of.
        promoted: a bulk sequence that has waited its share and now counts as interactive.
    """

    seq_id: str
    request_id: str
    arrival_time: float
    segment_index: int
    ticket: int
    priority: SequencePriority
    num_prompt_tokens: int
    max_new_frames: int
    block_hashes: SequenceOf[bytes]
    status: SequenceStatus = "waiting"
    num_frames: int = 0
    num_pending: int = 0
    num_in_flight: int = 0
    num_computed_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    num_known_blocks: int = 0
    num_preemptions: int = 0
    promoted: bool = False

    @property
    def num_tokens(self) -> int:
        """Positions known or taken for granted: prompt, frames, draws in flight."""
        return self.num_prompt_tokens + self.num_frames + self.num_pending

    @property
    def is_drawn_out(self) -> bool:
        """True when every frame it may have is drawn or in flight."""
        return self.num_frames + self.num_pending >= self.max_new_frames

    @property
    def num_remaining_tokens(self) -> int:
        """Positions still to compute before the next draw; 0 when there is none to come."""
        drawn = self.num_frames + self.num_pending
        if drawn >= self.max_new_frames:
            return 0
        return self.num_prompt_tokens + drawn - self.num_computed_tokens

    @property
    def rank(self) -> int:
        """0 for interactive and promoted sequences, 1 for bulk."""
        return int(self.priority == "bulk" and not self.promoted)

    @property
    def sort_key(self) -> SortKey:
        """First come first served; the segments of a request in order."""
        return (self.arrival_time, self.segment_index, self.ticket)
