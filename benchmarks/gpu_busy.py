"""How much of the time the GPU had something to do, as its driver counts it.

The driver's figure is the share of a short past in which any kernel ran; it says nothing of how
full the device was. Without a CUDA device, or without NVIDIA's bindings, there is no figure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from statistics import mean
from types import TracebackType

import torch

PERIOD_S = 0.05


def driver_percent() -> float | None:
    """The driver's figure of this moment."""
    if not torch.cuda.is_available():
        return None
    try:
        return float(torch.cuda.utilization())
    except (ImportError, RuntimeError):
        return None


class GpuBusy:
    """Samples while its block runs.

    Args:
        read: percent of this moment, or None where nothing can be said.

    Attributes:
        percent: mean of the samples; None without any.
    """

    def __init__(self, read: Callable[[], float | None] = driver_percent) -> None:
        self._read = read
        self._stop = threading.Event()
        self._samples: list[float] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def percent(self) -> float | None:
        """See the class."""
        return mean(self._samples) if self._samples else None

    def __enter__(self) -> GpuBusy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while (percent := self._read()) is not None:
            self._samples.append(percent)
            if self._stop.wait(PERIOD_S):
                return
