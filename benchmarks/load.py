"""Run one load against one server: send on schedule, at most so many at once, collect records.

Open loop: requests are sent when their arrival time comes, whether or not earlier ones are done.
Closed loop: with an infinite rate and a concurrency cap, each of N users sends its next request as
soon as the last one ended. Numbers are drawn from the records elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import aiohttp

from .arrivals import ArrivalConfig, arrival_times
from .client import Target, send
from .guard import ClientGuard
from .record import RequestRecord
from .workload import load_texts

Progress = Callable[[RequestRecord], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """One load.

    Attributes:
        target: the server.
        arrivals: the arrival process.
        texts: name of a text set, or a file.
        num_requests: to send; None leaves it to `duration_s`.
        duration_s: no request is sent after it; None leaves it to `num_requests`.
        max_concurrency: cap on requests in flight; None is none.
        warmup: requests sent one after the other and forgotten.
        seed: of arrivals and texts.
    """

    target: Target
    arrivals: ArrivalConfig = field(default_factory=ArrivalConfig)
    texts: str = "en-medium"
    num_requests: int | None = None
    duration_s: float | None = None
    max_concurrency: int | None = None
    warmup: int = 0
    seed: int = 0

    @property
    def is_closed_loop(self) -> bool:
        """Whether users send their next request as the last one ends."""
        return self.arrivals.ramp is None and self.arrivals.rate == float("inf")

    def with_rate(self, rate: float) -> LoadConfig:
        """The same load at another rate."""
        return replace(self, arrivals=replace(self.arrivals, rate=rate, ramp=None))


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of one load: records in order of sending, seconds it took, the client's guard."""

    records: tuple[RequestRecord, ...]
    duration_s: float
    guard: dict[str, float | bool]


def open_session() -> aiohttp.ClientSession:
    """A session without a limit on connections; each request of a load has its own."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, read_bufsize=2**18, trust_env=False)


async def run_load(config: LoadConfig, progress: Progress | None = None) -> LoadResult:
    """Warm up, send the load, wait for every answer."""
    async with open_session() as session:
        for text in load_texts(config.texts, config.warmup, config.seed + 1_000_003):
            await send(session, config.target, text)
        async with ClientGuard() as guard:
            started = perf_counter()
            sender = _Sender(session, config, started, progress)
            records = await (sender.closed() if config.is_closed_loop else sender.open())
            duration_s = perf_counter() - started
    ordered = tuple(sorted(records, key=lambda record: record.index))
    return LoadResult(ordered, duration_s, guard.report())


class _Sender:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        config: LoadConfig,
        started: float,
        progress: Progress | None,
    ) -> None:
        self._session = session
        self._config = config
        self._started = started
        self._progress = progress

    async def _send(self, text: str, index: int, arrival_s: float) -> RequestRecord:
        record = await send(
            self._session,
            self._config.target,
            text,
            index=index,
            arrival_s=arrival_s,
            run_started=self._started,
        )
        if self._progress is not None:
            self._progress(record)
        return record

    async def open(self) -> list[RequestRecord]:
        config = self._config
        times = arrival_times(
            config.arrivals,
            seed=config.seed,
            num_requests=config.num_requests,
            duration_s=config.duration_s,
        )
        texts = load_texts(config.texts, len(times), config.seed)
        slots = asyncio.Semaphore(config.max_concurrency or len(times) or 1)

        async def one(index: int, text: str, arrival_s: float) -> RequestRecord:
            await asyncio.sleep(max(self._started + arrival_s - perf_counter(), 0.0))
            async with slots:
                return await self._send(text, index, arrival_s)

        jobs = zip(range(len(times)), texts, times, strict=True)
        return list(await asyncio.gather(*(one(*job) for job in jobs)))

    async def closed(self) -> list[RequestRecord]:
        config = self._config
        jobs = self._endless_jobs()
        users = config.max_concurrency or config.num_requests or 1
        records: list[RequestRecord] = []

        async def user() -> None:
            for index, text in jobs:
                now = perf_counter() - self._started
                if config.duration_s is not None and now > config.duration_s:
                    return
                records.append(await self._send(text, index, now))

        await asyncio.gather(*(user() for _ in range(users)))
        return records

    def _endless_jobs(self) -> Iterator[tuple[int, str]]:
        config = self._config
        batch, index = config.num_requests or 256, 0
        while config.num_requests is None or index < config.num_requests:
            for text in load_texts(config.texts, batch, config.seed + index):
                yield index, text
                index += 1


def merge(results: Sequence[LoadResult]) -> LoadResult:
    """Runs of several seeds as one, laid end to end; the worst guard counts."""
    records: list[RequestRecord] = []
    offset = 0.0
    for result in results:
        for record in result.records:
            records.append(
                replace(
                    record,
                    index=len(records),
                    arrival_s=record.arrival_s + offset,
                    sent_s=record.sent_s + offset,
                )
            )
        offset += result.duration_s
    guard: dict[str, Any] = {
        key: max(result.guard[key] for result in results) for key in results[0].guard
    }
    return LoadResult(tuple(records), offset, guard)
