"""The frame store: pages are given, grown, and taken back."""

from __future__ import annotations

import pytest
import torch

from stretto.model_executor.frame_store import PAGE_SIZE, FrameStore

CPU = torch.device("cpu")


def filled(store: FrameStore, seq_id: str, count: int, first: int) -> torch.Tensor:
    """Write `count` frames that count up from `first`."""
    store.add(seq_id)
    store.reserve(seq_id, count)
    codes = torch.arange(first, first + count * 2).reshape(count, 2)
    rows = torch.from_numpy(store.rows(seq_id, 0, count))
    store.write(rows, codes, codes.float() / 2)
    return codes


def test_frames_survive_growth() -> None:
    store = FrameStore(2, 2, CPU)
    before = len(store.codes)
    wanted = {name: filled(store, name, 1500, 10_000 * at) for at, name in enumerate("abc")}
    assert len(store.codes) > before
    for name, codes in wanted.items():
        rows = torch.from_numpy(store.rows(name, 0, 1500))
        assert torch.equal(store.codes[rows], codes)
        assert torch.equal(store.hidden[rows], codes.float() / 2)
        assert store.row(name, 77) == int(rows[77])
    store.check_integrity()


def test_pages_come_back() -> None:
    store = FrameStore(2, 0, CPU)
    size = len(store.codes)
    for turn in range(50):
        filled(store, f"{turn}", 5 * PAGE_SIZE + 1, 0)
        store.remove(f"{turn}")
        store.check_integrity()
    assert len(store.codes) == size
    assert store.num_sequences == 0


def test_reserving_twice_takes_nothing_more() -> None:
    store = FrameStore(2, 0, CPU)
    filled(store, "a", PAGE_SIZE, 0)
    rows = store.rows("a", 0, PAGE_SIZE).tolist()
    store.reserve("a", PAGE_SIZE)
    store.reserve("a", PAGE_SIZE + 1)
    assert store.rows("a", 0, PAGE_SIZE).tolist() == rows
    assert len(set(store.rows("a", 0, PAGE_SIZE + 1).tolist())) == PAGE_SIZE + 1


def test_a_page_with_two_owners_is_found() -> None:
    store = FrameStore(2, 0, CPU)
    filled(store, "a", 3, 0)
    store._free.append(store._pages["a"][0])
    with pytest.raises(AssertionError):
        store.check_integrity()
