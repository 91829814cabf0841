"""The two orders a scheduler keeps: who waits, and who runs. Neither knows of blocks or budgets.

Both are first come first served by `Sequence.sort_key`. The waiting queue is a heap whose removals
are lazy, because thousands of bulk lines may wait; the running list is a sorted list, because a
step walks over all of it in order and preempts from its end.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from operator import attrgetter

from .sequence import Sequence, SortKey

_sort_key = attrgetter("sort_key")


class WaitingQueue:
    """Sequences by arrival. `push` and `pop` are O(log n), `remove` is O(1) over time."""

    def __init__(self) -> None:
        self._heap: list[tuple[SortKey, Sequence]] = []
        self._members: set[Sequence] = set()

    def __len__(self) -> int:
        return len(self._members)

    def push(self, seq: Sequence) -> None:
        """Add a sequence that is not in the queue."""
        self._members.add(seq)
        heapq.heappush(self._heap, (seq.sort_key, seq))

    def peek(self) -> Sequence | None:
        """The first to have come, or None."""
        while self._heap and self._heap[0][1] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def pop(self) -> Sequence:
        """Take the first to have come; the queue is not empty."""
        seq = self.peek()
        assert seq is not None, "popped an empty queue"
        heapq.heappop(self._heap)
        self._members.remove(seq)
        return seq

    def remove(self, seq: Sequence) -> None:
        """Take out a sequence that is in the queue, for good."""
        self._members.remove(seq)
        if len(self._heap) > 2 * len(self._members) + 64:
            self._sweep()

    def _sweep(self) -> None:
        self._heap = [(seq.sort_key, seq) for seq in self._members]
        heapq.heapify(self._heap)


class RunningList:
    """Sequences in order of arrival, so that the last to have come is the first to be preempted."""

    def __init__(self) -> None:
        self.items: list[Sequence] = []

    def __len__(self) -> int:
        return len(self.items)

    def add(self, seq: Sequence) -> None:
        """Insert in order."""
        insort(self.items, seq, key=_sort_key)

    def remove(self, seq: Sequence) -> None:
        """Take out a sequence that is in the list."""
        index = bisect_left(self.items, seq.sort_key, key=_sort_key)
        assert self.items[index] is seq, "not in the running list"
        del self.items[index]

    def pop_last(self) -> Sequence:
        """Take the last to have come."""
        return self.items.pop()
