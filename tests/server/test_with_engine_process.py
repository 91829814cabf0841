"""The server over a real engine process, on the tiny checkpoint: speech, death, return."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from stretto.engine.config import EngineConfig
from stretto.engine.engine_process_client import EngineProcessClient
from stretto.server.app import make_app, make_runner
from stretto.server.config import ServerConfig
from tests.server.support import decode

TINY = Path(__file__).parents[1] / "assets" / "chattts_tiny" / "ckpt"
PATIENCE_S = 300.0
WORDS = "the small brown fox reads a long letter"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@asynccontextmanager
async def real_server(tmp_path: Path) -> AsyncIterator[tuple[str, EngineProcessClient]]:
    config = EngineConfig(model=str(TINY), dtype="float32", device="cpu", warmup=False)
    engine = EngineProcessClient(config)
    await engine.start()
    app = make_app(ServerConfig(voices_dir=str(tmp_path)), engine)
    runner = make_runner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", engine
    finally:
        await runner.cleanup()
        await engine.close()


def body(**fields: Any) -> dict[str, Any]:
    return {"input": WORDS, "seed": 5, "max_new_tokens": 20, "response_format": "wav", **fields}


async def speak(session: aiohttp.ClientSession, url: str, **fields: Any) -> bytes:
    async with session.post(f"{url}/v1/audio/speech", json=body(**fields)) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(f"{url}/ready") as response:
        return response.status == 200


async def test_equal_audio_in_any_company_and_errors_as_worded(tmp_path: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with (
        real_server(tmp_path) as (url, engine),
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        alone = await speak(session, url)
        company = await asyncio.gather(
            speak(session, url),
            speak(session, url, stream=False),
            *(speak(session, url, seed=seed) for seed in range(10, 16)),
        )
        first, rate = decode(alone)
        assert rate == 24000
        assert len(first) > 0
        for again in company[:2]:
            samples, _ = decode(again)
            # 16-bit samples of waveforms within 1e-5 of each other differ by a step at most.
            assert abs(samples - first).max() <= 1.5 / 32768
        url = f"{url}/v1/audio/speech"
        async with session.post(url, json=body(voice="nobody")) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "unknown_voice"
        await engine.check_integrity()


async def test_a_killed_engine_is_told_and_comes_back(tmp_path: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with (
        real_server(tmp_path) as (url, engine),
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        endless = body(input=WORDS * 20, max_new_tokens=100_000, response_format="pcm")
        running = await session.post(f"{url}/v1/audio/speech", json=endless)
        await running.content.readany()
        assert engine.process_id is not None
        os.kill(engine.process_id, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await running.read()
        assert running.status == 200

        async def until_ready() -> None:
            while not await is_ready(session, url):
                async with session.post(f"{url}/v1/audio/speech", json=body()) as response:
                    error = json.loads(await response.read()) if response.status != 200 else None
                    assert error is None or error["error"]["code"] == "engine_dead"
                await asyncio.sleep(0.05)

        await asyncio.wait_for(until_ready(), PATIENCE_S)
        assert decode(await speak(session, url))[1] == 24000
        await engine.check_integrity()
