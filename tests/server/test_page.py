"""The web page in a real browser: type, press, hear audio arrive. Skipped without chromium."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stretto.engine.fake_engine import FakeEngineConfig
from tests.server.support import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 90.0
LOADED = "document.title === 'Stretto' && document.readyState === 'complete'"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


class Tab:
    """One browser tab over the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._next = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command."""
        self._next += 1
        await self._socket.send_json({"id": self._next, "method": method, "params": params})
        while True:
            answer = json.loads((await self._socket.receive(timeout=PATIENCE_S)).data)
            if answer.get("id") == self._next:
                assert "error" not in answer, answer
                result = answer["result"]
                assert isinstance(result, dict)
                return result

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression evaluates to in the page."""
        result = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""

        async def poll() -> None:
            while not await self.value(expression):
                await asyncio.sleep(0.05)

        await asyncio.wait_for(poll(), PATIENCE_S)


@asynccontextmanager
async def browsing(url: str, profile: Path) -> AsyncIterator[Tab]:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--mute-audio",
        "--autoplay-policy=no-user-gesture-required",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        host = await asyncio.wait_for(_debugger(process.stderr), PATIENCE_S)
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://{host}/json/new?{url}") as response:
                target = await response.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.kill()
        await process.communicate()


async def _debugger(stderr: asyncio.StreamReader) -> str:
    while line := (await stderr.readline()).decode(errors="replace"):
        if found := re.search(r"DevTools listening on ws://([^/]+)/", line):
            return found.group(1)
    raise AssertionError("chromium did not open its DevTools port")


async def test_a_person_types_presses_and_hears(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, FakeEngineConfig(pace=8.0)) as server,
        browsing(f"{server.url}/", tmp_path / "profile") as tab,
    ):
        await tab.until(LOADED)
        await tab.until("document.querySelectorAll('#voice option').length === 2")
        await tab.value("document.getElementById('text').value = 'Typed by a person.'")
        await tab.value("document.getElementById('voice').value = 'second'")
        await tab.value("document.getElementById('speak').click()")
        await tab.until("!document.getElementById('download').hidden")
        assert await tab.value("current.samples") == round(18 * 0.06 * 24000)
        assert await tab.value("Math.max(...current.pieces[0]) > 0.1"), "it must be audible"
        assert await tab.value("current.playhead > 0"), "it must have been scheduled to play"
        assert await tab.value("current.peaks.length") == 18 * 6
        painted = "waveform.getContext('2d').getImageData(0, 0, 1200, 160).data.some((x) => x > 0)"
        assert await tab.value(painted), "its waveform must be drawn"
        assert re.fullmatch(
            r"\d+ ms", await tab.value("document.getElementById('ttfa').textContent")
        )
        assert float(await tab.value("document.getElementById('rtf').textContent")) > 0
        size = await tab.value("current.wav().size")
        assert size == 44 + 2 * round(18 * 0.06 * 24000)
        await tab.until("document.getElementById('state').textContent === 'ready'")
        spoken = server.engine.requests[-1]
        assert (spoken.text, spoken.voice) == ("Typed by a person.", "second")


async def test_the_page_shows_errors_and_asks_for_the_key(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, api_key="secret") as server,
        browsing(f"{server.url}/", tmp_path / "profile") as tab,
    ):
        await tab.until(LOADED)
        await tab.until("!document.getElementById('key-field').hidden")
        await tab.value("document.getElementById('speak').click()")
        await tab.until("document.getElementById('error').textContent.includes('API key')")
        await tab.value("document.getElementById('key').value = 'secret'")
        await tab.value("document.getElementById('speak').click()")
        await tab.until("!document.getElementById('download').hidden")
        assert await tab.value("document.getElementById('error').hidden")
