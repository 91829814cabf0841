"""SIGTERM on a real process: running streams finish, new speech is refused, exit code 0."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
TEXT = "x" * 50  # 3 seconds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(signum: signal.Signals, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.server.fake_server", str(tmp_path),
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode()
        url = re.findall(r"http://\S+", line)[0]
        speech = f"{url}/v1/audio/speech"
        async with aiohttp.ClientSession() as session:
            body = {"input": TEXT, "response_format": "pcm"}
            running = await session.post(speech, json=body)
            head = await running.content.readexactly(100)
            process.send_signal(signum)
            await refused(session, speech)
            rest = await asyncio.wait_for(running.read(), PATIENCE_S)
        assert len(head) + len(rest) == 3 * 24000 * 2
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 0
        assert b"drained" in output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def refused(session: aiohttp.ClientSession, speech: str) -> None:
    """Wait until new speech is answered with 503."""

    async def poll() -> None:
        while True:
            async with session.post(speech, json={"input": "more", "stream": False}) as response:
                if response.status == 503:
                    assert (await response.json())["error"]["code"] == "shutting_down"
                    return

    await asyncio.wait_for(poll(), PATIENCE_S)
