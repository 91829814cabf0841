"""`BlockPool`: which KV blocks are free, shared, or kept for a prefix that may come back.

The pool knows block ids and the hashes of their contents, nothing about sequences or tensors. Its
free list is an intrusive doubly linked list over two plain lists of ints: a prefix hit takes a
block out of the middle in O(1), which a deque cannot do, and nothing is allocated per operation.

A block is in one of three states: used (reference count above zero), cached (count zero, but its
content is known by hash, so it can be revived) or free. Cached blocks are evicted least recently
used, and only when no free block is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class BlockPool:
    """Reference-counted KV blocks with ids 0 to num_blocks - 1.

    Args:
        num_blocks: blocks in the pool, at least one.
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"a pool needs at least one block, not {num_blocks}")
        self.num_blocks = num_blocks
        self._ref_count = [0] * num_blocks
        self._hash: list[bytes | None] = [None] * num_blocks
        self._by_hash: dict[bytes, int] = {}
        # Links of the free list; index num_blocks is both its head and its tail.
        self._next: list[int] = [*range(1, num_blocks + 1), 0]
        self._prev: list[int] = [num_blocks, *range(num_blocks)]
        self._num_available = num_blocks

    @property
    def num_available(self) -> int:
        """Blocks that could be allocated now, free and cached together."""
        return self._num_available

    @property
    def num_used(self) -> int:
        """Blocks that some sequence holds."""
        return self.num_blocks - self._num_available

    @property
    def num_cached(self) -> int:
        """Blocks that nobody holds but whose content is known."""
        return sum(1 for block in self._by_hash.values() if not self._ref_count[block])

    def lookup(self, content: bytes) -> int | None:
        """The block that holds this content, or None."""
        return self._by_hash.get(content)

    def num_idle(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` nobody holds, so that sharing them takes from the available."""
        return sum(1 for block in blocks if not self._ref_count[block])

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks; the caller has checked `num_available`."""
        assert count <= self._num_available, "allocation was not checked"
        blocks = [self._take_oldest() for _ in range(count)]
        for block in blocks:
            self._ref_count[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Add one holder to each of `blocks`, reviving those that nobody held."""
        for block in blocks:
            if not self._ref_count[block]:
                self._unlink(block)
            self._ref_count[block] += 1

    def free(self, blocks: Sequence[int]) -> None:
        """Give up one hold on each of `blocks`.

        The last block goes first, so that the start of a prefix outlives its end.
        """
        for block in reversed(blocks):
            self._ref_count[block] -= 1
            if not self._ref_count[block]:
                self._link(block)

    def remember(self, block: int, content: bytes) -> None:
        """Make a held block findable by its content; the first block of a content stays."""
        if content not in self._by_hash and self._hash[block] is None:
            self._by_hash[content] = block
            self._hash[block] = content

    def forget_contents(self) -> None:
        """Make no block findable any more; cached blocks become free ones."""
        for block in self._by_hash.values():
            self._hash[block] = None
        self._by_hash.clear()

    def check_integrity(self, holds: Iterable[int]) -> None:
        """Raise unless the books agree with `holds`: every held block, once per holder.

        Raises:
            RuntimeError: a block leaked, is held by a stranger, or the free list is broken.
        """
        expected = [0] * self.num_blocks
        for block in holds:
            expected[block] += 1
        if expected != self._ref_count:
            wrong = [b for b, count in enumerate(expected) if count != self._ref_count[b]]
            raise RuntimeError(f"reference counts of blocks {wrong[:8]} are wrong")
        linked = self._linked()
        if len(linked) != self._num_available or any(self._ref_count[b] for b in linked):
            raise RuntimeError("the free list does not hold exactly the available blocks")
        if any(self._hash[block] != content for content, block in self._by_hash.items()):
            raise RuntimeError("a cached block lost its hash")

    def _linked(self) -> set[int]:
        linked: set[int] = set()
        block = self._next[self.num_blocks]
        while block != self.num_blocks and block not in linked:
            linked.add(block)
            block = self._next[block]
        return linked

    def _take_oldest(self) -> int:
        block = self._next[self.num_blocks]
        self._unlink(block)
        content = self._hash[block]
        if content is not None:
            del self._by_hash[content]
            self._hash[block] = None
        return block

    def _unlink(self, block: int) -> None:
        before, after = self._prev[block], self._next[block]
        self._next[before], self._prev[after] = after, before
        self._num_available -= 1

    def _link(self, block: int) -> None:
        """Blocks without known content go to the front, so that cached ones live longer."""
        end = self.num_blocks
        before = end if self._hash[block] is None else self._prev[end]
        after = self._next[before]
        self._next[before] = self._prev[after] = block
        self._prev[block], self._next[block] = before, after
        self._num_available += 1
