"""`KVCacheManager`: block tables of sequences, and the prefixes they share.

It stands between the scheduler, which thinks in positions, and the `BlockPool`, which knows only
ids. Only full blocks of a prompt are shared, and never a whole sequence: at least one position is
computed, because its output is what draws the next frame. Frames are not cached: two requests do
not draw the same ones.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as SequenceOf
from hashlib import blake2b

from .block_pool import BlockPool
from .sequence import Sequence


def hash_blocks(keys: SequenceOf[Hashable], block_size: int, salt: bytes) -> list[bytes]:
    """One 16-byte hash for every full block of `keys`, chained from `salt`.

    Keys are compared by their `repr`, so they are ints, strings, bytes, or tuples of these. A
    cryptographic hash, because a collision would give one voice's KV to another.
    """
    hashes: list[bytes] = []
    parent = blake2b(salt, digest_size=16).digest()
    for start in range(0, len(keys) - block_size + 1, block_size):
        content = repr(tuple(keys[start : start + block_size])).encode()
        parent = blake2b(parent + content, digest_size=16).digest()
        hashes.append(parent)
    return hashes


class KVCacheManager:
    """Blocks for sequences.

    Args:
        num_blocks: blocks in the pool.
        block_size: positions in a block.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.pool = BlockPool(num_blocks)
        self.num_queries = 0  # prompt tokens looked up at admissions
        self.num_hits = 0  # prompt tokens found
        # Content that this step computes: it can be read by later steps, not by this one.
        self._being_computed: dict[bytes, int] = {}

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold so many positions."""
        return -(-num_tokens // self.block_size)

    def waits_for_prefix(self, seq: Sequence) -> bool:
        """True when this step computes the next block of the sequence's prompt for another one."""
        found = len(self._find_prefix(seq))
        shareable = self._shareable(seq)
        return found < len(shareable) and shareable[found] in self._being_computed

    def can_admit(self, seq: Sequence, num_spare: int) -> bool:
        """True when the whole sequence fits and leaves `num_spare` blocks available."""
        found = self._find_prefix(seq)
        needed = self.num_blocks_for(seq.num_tokens) - len(found) + self.pool.num_idle(found)
        return needed + num_spare <= self.pool.num_available

    def admit(self, seq: Sequence) -> None:
        """Give the sequence blocks for all its positions; what is cached counts as computed."""
        found = self._find_prefix(seq)
        self.pool.share(found)
        fresh = self.pool.allocate(self.num_blocks_for(seq.num_tokens) - len(found))
        seq.block_table = found + fresh
        seq.num_computed_tokens = len(found) * self.block_size
        seq.num_known_blocks = 0
        if seq.block_hashes:
            self.num_queries += seq.num_prompt_tokens
            self.num_hits += seq.num_computed_tokens

    def grow(self, seq: Sequence) -> bool:
        """Make room for the sequence's next positions; False when the pool has no block."""
        missing = self.num_blocks_for(seq.num_tokens) - len(seq.block_table)
        if missing > self.pool.num_available:
            return False
        if missing > 0:
            seq.block_table.extend(self.pool.allocate(missing))
        return True

    def mark_computed(self, seq: Sequence, start: int, end: int) -> None:
        """Note that this step fills positions [start, end), prompt blocks among them."""
        last = min(end // self.block_size, len(seq.block_hashes))
        for index in range(start // self.block_size, last):
            self._being_computed.setdefault(seq.block_hashes[index], seq.block_table[index])

    def commit_step(self) -> None:
        """End the step: steps run in order, so later ones may read what it computes."""
        for content, block in self._being_computed.items():
            self.pool.remember(block, content)
        self._being_computed.clear()

    def release(self, seq: Sequence) -> None:
        """Take all blocks from the sequence."""
        self.pool.free(seq.block_table)
        seq.block_table = []
        seq.num_computed_tokens = 0
        seq.num_known_blocks = 0

    def _shareable(self, seq: Sequence) -> SequenceOf[bytes]:
        return seq.block_hashes[: (seq.num_tokens - 1) // self.block_size]

    def _find_prefix(self, seq: Sequence) -> list[int]:
        blocks: list[int] = []
        for content in self._shareable(seq):
            block = self.pool.lookup(content)
            if block is None:
                break
            blocks.append(block)
        return blocks
