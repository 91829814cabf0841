"""What the server's tests share: a server on a free port over a fake engine, and decoding."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
from aiohttp import web

from stretto.engine.fake_engine import FakeEngine, FakeEngineConfig
from stretto.engine.output import FloatArray
from stretto.server.app import make_app, make_runner
from stretto.server.config import ServerConfig
from stretto.server.services import SERVICES, Services

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
TEXT = "The quick brown fox jumps over the lazy dog."


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `url` has no slash at its end."""

    url: str
    engine: FakeEngine
    services: Services
    session: aiohttp.ClientSession

    async def speak(
        self, text: str = TEXT, headers: dict[str, str] | None = None, **fields: Any
    ) -> tuple[int, bytes]:
        """Status and body of one speech call."""
        body = {"input": text, **fields}
        url = f"{self.url}/v1/audio/speech"
        async with self.session.post(url, json=body, headers=headers) as response:
            return response.status, await response.read()


@asynccontextmanager
async def serving(
    tmp_path: Path,
    engine_config: FakeEngineConfig | None = None,
    *,
    max_num_seqs: int = 64,
    **fields: Any,
) -> AsyncIterator[Server]:
    """Serve a fake engine; at the end nothing may be in flight and nothing leaked."""
    engine = FakeEngine(engine_config)
    await engine.start()
    config = ServerConfig(voices_dir=str(tmp_path / "voices"), **fields)
    app = make_app(config, engine, max_num_seqs=max_num_seqs)
    runner = make_runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    timeout = aiohttp.ClientTimeout(total=120)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Server(f"http://127.0.0.1:{port}", engine, app[SERVICES], session)
    finally:
        await runner.cleanup()
        await engine.check_integrity()
        assert engine.num_live == 0
        assert app[SERVICES].admission.in_flight == 0
        assert app[SERVICES].synthesizer.budget.used == 0


def decode(data: bytes) -> tuple[FloatArray, int]:
    """Samples (float32, mono) and rate of an encoded file."""
    pieces = []
    rate = 0
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float32)
            mono = samples.reshape(frame.layout.nb_channels, -1)[0]
            pieces.append(mono / 32768 if frame.format.name.startswith("s16") else mono)
            rate = frame.sample_rate
    return np.concatenate(pieces), rate


def pcm(data: bytes) -> FloatArray:
    """Samples of headerless 16-bit audio."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32767)
