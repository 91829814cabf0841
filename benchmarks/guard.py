"""Is the client itself the bottleneck? Its own CPU and event-loop lag while a run goes on.

A harness that is too busy to read its sockets reports the server's audio as late. This guard
measures the process it lives in; a run whose guard warns is not to be trusted.
"""

from __future__ import annotations

import asyncio
from time import perf_counter, process_time
from types import TracebackType

import numpy as np

CPU_LIMIT = 0.7
LAG_LIMIT_S = 0.03
_TICK_S = 0.05


class ClientGuard:
    """Async context manager around a run; `report` is valid after it.

    Attributes:
        cpu_fraction: CPU seconds of this process per second of wall clock.
        loop_lag_p99_s: how late a sleeping task of this event loop woke.
    """

    def __init__(self) -> None:
        self.cpu_fraction = 0.0
        self.loop_lag_p99_s = 0.0
        self._lags: list[float] = []

    async def __aenter__(self) -> ClientGuard:
        self._wall, self._cpu = perf_counter(), process_time()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        wall = max(perf_counter() - self._wall, 1e-9)
        self.cpu_fraction = (process_time() - self._cpu) / wall
        self.loop_lag_p99_s = float(np.percentile(self._lags, 99)) if self._lags else 0.0

    async def _watch(self) -> None:
        while True:
            before = perf_counter()
            await asyncio.sleep(_TICK_S)
            self._lags.append(max(perf_counter() - before - _TICK_S, 0.0))

    def report(self) -> dict[str, float | bool]:
        """Numbers for the result file; `client_is_bottleneck` says not to trust the run."""
        overloaded = self.cpu_fraction > CPU_LIMIT or self.loop_lag_p99_s > LAG_LIMIT_S
        return {
            "client_cpu_fraction": self.cpu_fraction,
            "client_loop_lag_p99_ms": self.loop_lag_p99_s * 1000,
            "client_is_bottleneck": overloaded,
        }
