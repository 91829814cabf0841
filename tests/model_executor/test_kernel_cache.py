"""Kernels on disk live as long as the sources they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from stretto.model_executor.layers import kernel_cache
from stretto.model_executor.layers.kernel_cache import forget_old_kernels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one kernel, whose sources are those of now."""
    forget_old_kernels(tmp_path)
    (tmp_path / "kernel.nbi").write_bytes(b"index")
    forget_old_kernels.cache_clear()  # as in a new process
    return tmp_path


def test_kernels_of_the_same_sources_stay(folder: Path) -> None:
    forget_old_kernels(folder)
    assert (folder / "kernel.nbi").exists()


def test_kernels_of_other_sources_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "fingerprint", lambda: "of later sources")
    forget_old_kernels(folder)
    assert not (folder / "kernel.nbi").exists()
    (folder / "kernel.nbi").write_bytes(b"a new index")
    forget_old_kernels.cache_clear()
    forget_old_kernels(folder)
    assert (folder / "kernel.nbi").exists()


def test_kernels_without_a_stamp_go(tmp_path: Path) -> None:
    (tmp_path / "kernel.nbi").write_bytes(b"of an unknown age")
    forget_old_kernels(tmp_path)
    assert not (tmp_path / "kernel.nbi").exists()


def test_the_fingerprint_is_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "_SOURCES", tmp_path)
    seen = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "kernel.py").write_text(text, encoding="utf-8")
        seen.add(kernel_cache.fingerprint.__wrapped__())
    assert len(seen) == 2


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    forget_old_kernels(tmp_path / "file" / "folder")
