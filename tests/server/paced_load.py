"""Many paced streams against a server, judged by a playback clock; shared by test and measurement.

python -m tests.server.paced_load mp3      (from the repository root)
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter, process_time

import aiohttp
import numpy as np
from aiohttp import web

from stretto.engine.fake_engine import FakeEngine, FakeEngineConfig
from stretto.server.app import make_app, make_runner
from stretto.server.config import ServerConfig

STREAMS = 100
CHARS = 100  # 6 s of audio
SECONDS = CHARS * 0.06


@dataclass(slots=True)
class Stream:
    """What one client saw: arrival time and bytes of each piece."""

    status: int = 0
    started: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Bytes received."""
        return sum(size for _, size in self.arrivals)

    def largest_stall_s(self, bytes_per_s: float) -> float:
        """How long a player that starts with the first piece would at most have run dry."""
        first = self.arrivals[0][0]
        received, worst = 0, 0.0
        for at, size in self.arrivals:
            worst = max(worst, at - first - received / bytes_per_s)
            received += size
        return worst


async def listen(session: aiohttp.ClientSession, url: str, index: int, form: str) -> Stream:
    """One client."""
    await asyncio.sleep(index * 0.01)
    body = {"input": f"{index:03d} ".ljust(CHARS, "x"), "response_format": form, "seed": index}
    stream = Stream(started=perf_counter())
    async with session.post(f"{url}/v1/audio/speech", json=body) as response:
        stream.status = response.status
        async for piece in response.content.iter_any():
            stream.arrivals.append((perf_counter(), len(piece)))
    return stream


async def load(url: str, form: str, streams: int = STREAMS) -> list[Stream]:
    """All clients at once."""
    timeout = aiohttp.ClientTimeout(total=400)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        calls = [listen(session, url, index, form) for index in range(streams)]
        return list(await asyncio.gather(*calls))


def serve_paced(pipe: Connection) -> None:
    """A server process over a fake engine at exactly real time; tells its port and CPU time."""

    async def serve() -> None:
        engine = FakeEngine(FakeEngineConfig(pace=1.0, max_num_seqs=2 * STREAMS))
        await engine.start()
        app = make_app(ServerConfig(voices_dir="/nonexistent"), engine, max_num_seqs=2 * STREAMS)
        runner = make_runner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
        started = process_time()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        await engine.check_integrity()
        pipe.send((process_time() - started, engine.num_live))
        await runner.cleanup()

    asyncio.run(serve())


def measure(form: str, streams: int = STREAMS) -> tuple[list[Stream], float]:
    """Serve and load in two processes; returns the streams and the server's CPU seconds.

    They count from when it listened, and include what the fake engine takes.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_paced, args=(theirs,))
    server.start()
    try:
        assert ours.poll(120), "the server did not start"
        port = ours.recv()
        seen = asyncio.run(load(f"http://127.0.0.1:{port}", form, streams))
        ours.send(None)
        assert ours.poll(60)
        cpu_s, num_live = ours.recv()
        assert num_live == 0
        server.join(60)
    finally:
        if server.is_alive():
            server.terminate()
    return seen, cpu_s


def main() -> None:
    """Print what `STREAMS` paced streams of one format look like from outside."""
    form = sys.argv[1]
    seen, cpu_s = measure(form)
    # Where packets differ in size, the mean rate stands for all of them.
    rate = {"pcm": 48000.0, "mp3": 8000.0}.get(form, seen[0].num_bytes / SECONDS)
    stalls = np.array([stream.largest_stall_s(rate) for stream in seen]) * 1e3
    gaps = np.concatenate([np.diff([at for at, _ in stream.arrivals]) for stream in seen]) * 1e3
    first = np.array([stream.arrivals[0][0] - stream.started for stream in seen]) * 1e3
    figures = {
        "ttfa_ms": np.percentile(first, [50, 95, 100]).round(1).tolist(),
        "gap_ms": np.percentile(gaps, [50, 95, 99, 100]).round(1).tolist(),
        "stall_ms_per_stream": np.percentile(stalls, [50, 95, 100]).round(1).tolist(),
    }
    whole = sum(stream.status == 200 for stream in seen)
    cpu = {"server_cpu_s": round(cpu_s, 2), "server_cores": round(cpu_s / SECONDS, 3)}
    print(json.dumps({"format": form, "streams": whole, **cpu, **figures}))


if __name__ == "__main__":
    main()
