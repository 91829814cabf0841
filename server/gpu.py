"""`read_gpus`: load, memory and power of NVIDIA GPUs, where NVML's Python package is installed.

Silent without a GPU or without the package: metrics must never keep a server from starting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU now: `utilization` 0 to 1, bytes, watts."""

    index: int
    utilization: float
    memory_used_bytes: int
    power_watts: float


@lru_cache(maxsize=1)
def _nvml() -> Any | None:
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, no driver, no GPU: all mean the same here
        return None
    return nvml


def read_gpus() -> list[GpuReading]:
    """One reading per GPU; empty where there is none."""
    nvml = _nvml()
    if nvml is None:
        return []
    return [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]


def _read(nvml: Any, index: int) -> GpuReading:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return GpuReading(
        index=index,
        utilization=nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        memory_used_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).used,
        power_watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    )
