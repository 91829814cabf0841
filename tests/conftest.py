"""What every test shares: one CPU thread, skipping of GPU tests, and a second try for slow ones.

Slow tests drive real processes, browsers and sockets; on a shared machine one of them can starve.
They get another try, so that a red run means a defect. Everything else must pass at once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


def pytest_configure() -> None:
    """Two test threads on two shared cores are slower than one, and less repeatable.

    Without a GPU, Triton kernels run in Triton's interpreter, which must be said before its import.
    """
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; let slow tests try twice more."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))
