"""OpenAI's Node client and Vercel's AI SDK. Skipped without node, or where npm cannot install."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from tests.server.support import TEXT, decode, pcm, serving

PACKAGES = ("openai", "ai", "@ai-sdk/openai")
SCRIPT = Path(__file__).with_name("node_clients.mjs")
SECONDS = len(TEXT) * 0.06

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]


@pytest.fixture
def node_project(tmp_path: Path) -> Path:
    """A folder with the clients installed and the script in it."""
    project = tmp_path / "node"
    project.mkdir()
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", *PACKAGES]
    try:
        subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"npm cannot install: {error}")
    shutil.copy(SCRIPT, project)
    return project


async def test_node_clients(node_project: Path, tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="breaks", kind="error", after_chunks=9),))
    async with serving(tmp_path, config) as server:
        process = await asyncio.create_subprocess_exec(
            "node",
            SCRIPT.name,
            cwd=node_project,
            env={**os.environ, "BASE_URL": f"{server.url}/v1", "TEXT": TEXT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, errors.decode()
    result = json.loads(output)
    for encoded in (result["openai"], result["sdk"]["base64"]):
        samples, rate = decode(base64.b64decode(encoded))
        assert len(samples) / rate == pytest.approx(SECONDS, abs=0.1)
    assert result["sdk"]["type"] == "audio/mpeg"
    assert len(pcm(base64.b64decode(result["streamed"]))) == round(SECONDS * 24000)
    assert result["pieces"] >= 1
    assert result["error"] == {"name": "BadRequestError", "status": 400, "code": "unknown_voice"}
    assert result["broken"] == "failed"
