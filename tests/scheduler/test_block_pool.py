"""The block pool and the prefixes shared through it."""

from __future__ import annotations

import pytest

from stretto.scheduler.block_pool import BlockPool
from stretto.scheduler.kv_cache import hash_blocks
from tests.scheduler.factories import make_scheduler, make_sequence, run_until_idle, step


def test_blocks_come_and_go() -> None:
    pool = BlockPool(4)
    taken = pool.allocate(3)
    assert taken == [0, 1, 2]
    assert (pool.num_available, pool.num_used) == (1, 3)
    pool.free(taken)
    assert (pool.num_available, pool.num_used, pool.num_cached) == (4, 0, 0)
    pool.check_integrity([])


def test_a_pool_has_blocks() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        BlockPool(0)


def test_a_cached_block_is_found_and_revived() -> None:
    pool = BlockPool(3)
    (block,) = pool.allocate(1)
    pool.remember(block, b"x")
    pool.free([block])
    assert pool.num_cached == 1
    assert pool.lookup(b"x") == block
    assert pool.num_idle([block]) == 1
    pool.share([block])
    pool.share([block])
    assert pool.num_idle([block]) == 0
    pool.check_integrity([block, block])
    pool.free([block])
    assert pool.num_used == 1


def test_free_blocks_go_before_cached_ones_and_the_oldest_cached_first() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(4)
    for block, content in zip(blocks[:3], (b"a", b"b", b"c"), strict=True):
        pool.remember(block, content)
    pool.free([blocks[1]])
    pool.free([blocks[0]])
    pool.free([blocks[2]])
    pool.free([blocks[3]])
    assert pool.allocate(1) == [blocks[3]]
    assert pool.allocate(1) == [blocks[1]]
    assert [pool.lookup(c) for c in (b"a", b"b", b"c")] == [blocks[0], None, blocks[2]]
    pool.check_integrity([blocks[3], blocks[1]])


def test_the_end_of_a_prefix_is_evicted_before_its_start() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(2)
    for i, block in enumerate(blocks):
        pool.remember(block, b"%d" % i)
    pool.free(blocks)
    pool.allocate(1)
    assert pool.lookup(b"0") == blocks[0]
    assert pool.lookup(b"1") is None


def test_the_first_block_of_a_content_stays() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.remember(first, b"x")
    pool.remember(second, b"x")
    assert pool.lookup(b"x") == first
    pool.free([second])
    assert pool.num_cached == 0
    pool.check_integrity([first])


@pytest.mark.parametrize("holds", [[], [0, 0], [1]])
def test_wrong_books_are_found(holds: list[int]) -> None:
    pool = BlockPool(2)
    pool.allocate(1)
    with pytest.raises(RuntimeError, match="reference counts"):
        pool.check_integrity(holds)


def test_hashes_are_chained_and_salted() -> None:
    plain = hash_blocks([1, 2, 3, 4, 5, 6, 7], 2, b"")
    assert len(plain) == 3
    assert hash_blocks([1, 2, 3, 4, 5, 6], 2, b"voice")[0] != plain[0]
    other_start = hash_blocks([9, 2, 3, 4, 5, 6], 2, b"")
    assert all(a != b for a, b in zip(plain, other_start, strict=True))
    assert hash_blocks([1, 2, 3, 9], 2, b"")[:1] == plain[:1]
    assert hash_blocks([(1, 2), (3, 4)], 2, b"") != hash_blocks([(1, 2), (3, 5)], 2, b"")


class TestPrefixCache:
    """Full prompt blocks are shared, of equal keys and equal salts, never the whole prompt."""

    @pytest.mark.parametrize(("prompt", "hit"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8)])
    def test_only_full_blocks_and_never_the_whole_prompt(self, prompt: int, hit: int) -> None:
        scheduler = make_scheduler(block_size=4)
        keys = list(range(prompt))
        scheduler.add(make_sequence("a", keys=keys), 0.0)
        step(scheduler)
        scheduler.add(make_sequence("b", keys=keys), 0.0)
        output, _ = step(scheduler)
        item = next(i for i in output.scheduled if i.seq_id == "b")
        assert item.num_computed_tokens == hit
        looked_up = 2 * prompt if prompt >= 4 else 0  # shorter prompts have no full block
        assert (scheduler.prefix_cache_queries, scheduler.prefix_cache_hits) == (looked_up, hit)
        scheduler.check_integrity()
        run_until_idle(scheduler)

    def test_a_hit_outlives_the_sequence_that_made_it(self) -> None:
        scheduler = make_scheduler(block_size=4)
        scheduler.add(make_sequence("a", keys=range(9), frames=2), 0.0)
        run_until_idle(scheduler)
        assert scheduler.num_used_blocks == 0
        scheduler.add(make_sequence("b", keys=range(9), frames=2), 0.0)
        assert step(scheduler)[0].scheduled[0].num_computed_tokens == 8
        run_until_idle(scheduler)

    @pytest.mark.parametrize("caching", [True, False])
    def test_another_voice_or_no_caching_shares_nothing(self, caching: bool) -> None:
        scheduler = make_scheduler(block_size=4, enable_prefix_caching=caching)
        salts = (b"one", b"two" if caching else b"one")
        for seq_id, salt in zip("ab", salts, strict=True):
            scheduler.add(make_sequence(seq_id, keys=range(9), salt=salt), 0.0)
            output, _ = step(scheduler)
        assert {i.seq_id: i.num_computed_tokens for i in output.scheduled} == {"a": 9, "b": 0}
        run_until_idle(scheduler)

    def test_equal_prompts_that_arrive_together_are_computed_once(self) -> None:
        scheduler = make_scheduler(block_size=4)
        for i in range(4):
            scheduler.add(make_sequence(f"s{i}", keys=range(9)), 0.0)
        scheduler.add(make_sequence("other", prompt=9), 0.0)
        first, _ = step(scheduler)
        assert [i.seq_id for i in first.scheduled] == ["s0", "other"]
        second, _ = step(scheduler)
        fresh = {i.seq_id: i.num_computed_tokens for i in second.scheduled}
        assert fresh == {"s0": 9, "other": 9, "s1": 8, "s2": 8, "s3": 8}
        run_until_idle(scheduler)

    def test_a_prompt_in_chunks_is_waited_for(self) -> None:
        scheduler = make_scheduler(block_size=4, max_num_batched_tokens=8)
        for i in range(2):
            scheduler.add(make_sequence(f"s{i}", keys=range(17)), 0.0)
        seen = [
            [(i.seq_id, i.num_computed_tokens) for i in step(scheduler)[0].scheduled]
            for _ in range(3)
        ]
        assert seen == [[("s0", 0)], [("s0", 8)], [("s0", 16), ("s1", 16)]]
        run_until_idle(scheduler)

    def test_the_cache_gives_way_to_sequences(self) -> None:
        scheduler = make_scheduler(block_size=4, num_blocks=6)
        for i in range(12):
            scheduler.add(make_sequence(f"s{i}", prompt=13, frames=6), 0.0)
        assert len(run_until_idle(scheduler)) == 12
        scheduler.check_integrity()
