"""Soak: a server under random traffic for minutes, then a hard look at what is left behind.

Random arrivals mix whole and streamed requests in every format, bad requests, clients that leave,
slow readers, WebSockets with cancels, and kills of the engine. Traffic comes in equal rounds; after
each, everything must end by itself, no block may have leaked, and what is left in memory is noted.
It must be flat from round to round: while requests run, it follows them. It drives the fake engine,
so that everything above the engine is soaked fast; it says nothing about models or GPUs.

    python -m stretto.benchmarks.soak --seconds 900
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic

import aiohttp
import psutil
from aiohttp import web

from ..engine.fake_engine import FakeEngine, FakeEngineConfig, FakeFailure
from ..server.app import make_app, make_runner
from ..server.config import ServerConfig
from ..server.memory import return_freed_memory
from ..server.services import SERVICES, Services

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
MIB = 1 << 20
_FAILURES = (
    FakeFailure(text="breaks", kind="error", after_chunks=3),
    FakeFailure(text="raises", kind="raise", after_chunks=2),
    FakeFailure(text="hangs", kind="hang", after_chunks=2),
)
_EXPECTED = frozenset({200, 400, 404, 429, 500, 503, 504})
_PATIENCE_S = 300.0  # a request that takes longer is stuck
_SAMPLE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakConfig:
    """What the soak does.

    Attributes:
        seconds: how long traffic arrives.
        rate: mean arrivals per second.
        max_in_flight: arrivals beyond so many are left out, so that a busy machine is not judged
            for being slow.
        kill_every_s: mean seconds between deaths of the engine, at least one in each round.
        rounds: parts of equal traffic; the first warms up, so that at least three can be judged.
        max_growth_mib: resident memory that may be added between the ends of two rounds, the first
            left out. It leaves room for the result cache to fill and for the allocator's noise.
        max_growth_objects: Python objects that may be added likewise.
        seed: of the traffic.
    """

    seconds: float = 900.0
    rate: float = 10.0
    max_in_flight: int = 32
    kill_every_s: float = 20.0
    rounds: int = 6
    max_growth_mib: float = 64.0
    max_growth_objects: int = 10_000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleLevel:
    """What is in memory when a round has ended and nothing runs."""

    rss_mib: float
    objects: int


@dataclass(slots=True)
class SoakReport:
    """What was seen; `problems` is empty when all is well."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    peak_rss_mib: float = 0.0
    idle: list[IdleLevel] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Soak:
    """One run against one server."""

    def __init__(
        self, config: SoakConfig, url: str, engine: FakeEngine, services: Services
    ) -> None:
        self._config = config
        self._url = url
        self._engine = engine
        self._services = services
        self._random = random.Random(config.seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.report = SoakReport()

    async def run(self) -> SoakReport:
        """Send the traffic, wait for it, judge what is left."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            self._session = session
            for _ in range(self._config.rounds):
                await self._round()
        self.report.problems += judge_memory(self.report.idle, self._config)
        return self.report

    async def _round(self) -> None:
        side = [asyncio.create_task(self._kill()), asyncio.create_task(self._sample())]
        await self._arrive()
        for task in side:
            task.cancel()
        await asyncio.gather(*side, return_exceptions=True)
        self._engine.revive()
        await self._settle()
        self._engine.requests.clear()  # the fake's record of them all is no leak of the server's
        gc.collect()
        level = IdleLevel(rss_mib=_rss_mib(), objects=len(gc.get_objects()))
        self.report.idle.append(level)

    async def _arrive(self) -> None:
        end = monotonic() + self._config.seconds / self._config.rounds
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._whole, self._streamed, self._streamed, self._leave, self._bad,
            self._slow, self._websocket, self._failing,
        ]  # fmt: skip
        while monotonic() < end:
            kind = self._random.choice(kinds)
            if len(self._tasks) < self._config.max_in_flight:
                task = asyncio.create_task(self._one(kind))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._random.expovariate(self._config.rate))

    async def _one(self, kind: Callable[[], Awaitable[None]]) -> None:
        self.report.requests += 1
        try:
            await kind()
        except (aiohttp.ClientError, ConnectionError):
            self.report.statuses["broken off"] += 1
        except asyncio.TimeoutError:
            self.report.problems.append(f"{kind} got no answer within its time limit")
        except Exception as error:
            self.report.problems.append(f"{kind}: {error!r}")

    def _body(self, text: str | None = None) -> dict[str, object]:
        draw = self._random
        return {
            "input": text or "word " * draw.randint(1, 60) + str(draw.randint(0, 50)),
            "response_format": draw.choice(FORMATS),
            "stream_format": draw.choice(("audio", "sse")),
            "speed": draw.choice((None, 1.0, 0.5, 1.7)),
            "seed": draw.choice((None, 1, 2)),
            "voice": draw.choice((None, "default", "second", "alloy")),
        }

    async def _post(self, body: object) -> aiohttp.ClientResponse:
        response = await self._session.post(f"{self._url}/v1/audio/speech", json=body)
        self.report.statuses[str(response.status)] += 1
        if response.status not in _EXPECTED:
            self.report.problems.append(f"status {response.status} for {body}")
        return response

    async def _whole(self) -> None:
        response = await self._post({**self._body(), "stream": False, "stream_format": "audio"})
        await response.read()

    async def _streamed(self) -> None:
        await (await self._post(self._body())).read()

    async def _leave(self) -> None:
        response = await self._post(self._body("word " * 60))
        await response.content.readany()
        response.close()

    async def _slow(self) -> None:
        response = await self._post(self._body("word " * 100))
        for _ in range(5):
            await response.content.readany()
            await asyncio.sleep(self._random.random())
        response.close()

    async def _bad(self) -> None:
        bad: list[object] = [
            {}, [], {"input": ""}, {"input": "x", "speed": 99}, {"input": "x", "voice": "?"},
            {"input": "x", "model": "?"}, {"input": "x" * 30_000}, {"input": "x", "ref_audio": "?"},
        ]  # fmt: skip
        response = await self._post(self._random.choice(bad))
        if response.status not in (400, 404):
            self.report.problems.append(f"a bad request got {response.status}")
        await response.read()

    async def _failing(self) -> None:
        word = self._random.choice(("breaks", "raises", "hangs"))
        await (await self._post(self._body(f"this one {word} {self._random.random()}"))).read()

    async def _websocket(self) -> None:
        url = f"{self._url}/v1/audio/speech/stream"
        async with self._session.ws_connect(url) as socket:
            for _ in range(self._random.randint(1, 5)):
                await socket.send_json({"type": "input.text", "text": "Some more words. "})
            end = self._random.choice(("input.done", "cancel", None))
            if end is None:
                return
            await socket.send_json({"type": end})
            while (message := await socket.receive(timeout=_PATIENCE_S)).type in (
                aiohttp.WSMsgType.TEXT,
                aiohttp.WSMsgType.BINARY,
            ):
                if message.type == aiohttp.WSMsgType.TEXT and message.json()["type"] in (
                    "audio.done", "cancelled", "speech.audio.error",
                ):  # fmt: skip
                    self.report.statuses[message.json()["type"]] += 1
                    return

    async def _kill(self) -> None:
        mean_s = min(self._config.kill_every_s, self._config.seconds / self._config.rounds / 2)
        while True:
            await asyncio.sleep(mean_s * self._random.uniform(0.5, 1.5))
            self._engine.kill()
            self.report.kills += 1

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            self.report.peak_rss_mib = max(self.report.peak_rss_mib, _rss_mib())

    async def _settle(self) -> None:
        """Everything must end by itself; what does not is stuck."""
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=_PATIENCE_S)
            if stuck:
                self.report.problems.append(f"{len(stuck)} requests are stuck")
        end = monotonic() + _PATIENCE_S
        while self._left_behind() and monotonic() < end:
            await asyncio.sleep(0.05)
        if left := self._left_behind():
            self.report.problems.append(f"left behind: {left}")
        try:
            await self._engine.check_integrity()
        except AssertionError as error:
            self.report.problems.append(f"blocks leaked: {error}")

    def _left_behind(self) -> dict[str, int]:
        counts = {
            "requests in the engine": self._engine.num_live,
            "admitted": self._services.admission.in_flight,
            "answering": self._services.answering,
            "buffered bytes": self._services.synthesizer.budget.used,
        }
        return {name: count for name, count in counts.items() if count}


def _rss_mib() -> float:
    return float(psutil.Process().memory_info().rss / MIB)


def judge_memory(idle: Sequence[IdleLevel], config: SoakConfig) -> list[str]:
    """What memory says of leaks: growth between the second round's end and the last's."""
    if len(idle) < 3:
        return []
    first, last = idle[1], idle[-1]
    problems = []
    if (grown := last.rss_mib - first.rss_mib) > config.max_growth_mib:
        problems.append(f"memory at rest grew by {grown:.0f} MiB")
    if (more := last.objects - first.objects) > config.max_growth_objects:
        problems.append(f"{more} more objects are left at rest")
    return problems


async def soak(config: SoakConfig) -> SoakReport:
    """Serve a fake engine on a free port and soak it."""
    engine = FakeEngine(
        FakeEngineConfig(pace=40.0, max_num_seqs=64, restart_s=0.5, failures=_FAILURES)
    )
    await engine.start()
    return_freed_memory()  # as `serve` does; the soak stands for a server's process
    with tempfile.TemporaryDirectory() as folder:
        server = ServerConfig(voices_dir=folder, cache_mib=16, stall_timeout_s=5.0)
        app = make_app(server, engine, max_num_seqs=64)
        runner = make_runner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            return await Soak(config, f"http://{host}:{port}", engine, app[SERVICES]).run()
        finally:
            await runner.cleanup()


def main() -> None:
    """Run from the command line; exit status 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    defaults = SoakConfig()
    parser.add_argument("--seconds", type=float, default=defaults.seconds)
    parser.add_argument("--rate", type=float, default=defaults.rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    options = parser.parse_args()
    logging.getLogger("stretto.server").setLevel(logging.CRITICAL)  # failures are scripted here
    config = SoakConfig(seconds=options.seconds, rate=options.rate, seed=options.seed)
    report = asyncio.run(soak(config))
    summary = {**asdict(report), "statuses": dict(report.statuses)}
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
