"""The engine in a process of its own: the same streams, and what happens when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from stretto.engine import wire
from stretto.engine.config import EngineConfig
from stretto.engine.engine_process_client import FIRST_BACKOFF_S, EngineProcessClient
from stretto.engine.errors import (
    CheckpointError,
    EngineDeadError,
    OverloadedError,
    RequestError,
    StrettoError,
    UnknownVoiceError,
)
from stretto.engine.output import AudioChunk, RequestMetrics
from stretto.engine.request import SamplingParams, SpeechRequest, Voice
from tests.fake_executor import ENDLESS, decode

ROOT = Path(__file__).parents[2]
BUILD = "tests.fake_executor:build_fake_core"
TIMEOUT_S = 200

# Every start of a process imports the engine anew, which takes long on a starved machine.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineProcessClient]:
    client = make_client(monkeypatch, model="slow")
    await client.start()
    yield client
    await client.close()


def make_client(monkeypatch: pytest.MonkeyPatch, **fields: object) -> EngineProcessClient:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = EngineConfig(**fields)  # type: ignore[arg-type]
    return EngineProcessClient(config, build=BUILD)


async def collect(stream: AsyncIterator[AudioChunk]) -> list[AudioChunk]:
    return [chunk async for chunk in stream]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.05)

    await asyncio.wait_for(poll(), TIMEOUT_S)


@pytest.mark.slow
async def test_it_serves_like_an_engine_here(client: EngineProcessClient) -> None:
    assert client.is_ready
    assert client.model_info.name == "fake"
    request = SpeechRequest(text="one @50|two @20", seed=3, voice=Voice(seed=1))
    chunks = await collect(client.stream(request))
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    metrics = chunks[-1].metrics
    assert metrics is not None
    assert (metrics.frames, metrics.seed) == (70, 3)
    assert sum(len(chunk.audio) for chunk in chunks) == len(decode([0] * 50)) * 1 + 40 + len(
        decode([0] * 20)
    )
    again = await collect(client.stream(request))
    np.testing.assert_array_equal(
        np.concatenate([chunk.audio for chunk in chunks]),
        np.concatenate([chunk.audio for chunk in again]),
    )
    with pytest.raises(UnknownVoiceError) as caught:
        await collect(client.stream(SpeechRequest(text="text", voice="nobody")))
    assert caught.value.param == "voice"
    assert (await client.stats()).frames_generated == 140
    await client.check_integrity()


@pytest.mark.slow
async def test_abort_and_leaving_free_the_request(client: EngineProcessClient) -> None:
    stream = client.stream(ENDLESS, request_id="r")
    await anext(stream)
    await client.abort("r")
    assert (await collect(stream))[-1].finish_reason == "abort"
    left = client.stream(ENDLESS)
    await anext(left)
    await left.aclose()  # type: ignore[attr-defined]
    assert (await client.stats()).num_requests_running == 0
    await client.check_integrity()


@pytest.mark.slow
async def test_a_killed_engine_ends_requests_and_comes_back(client: EngineProcessClient) -> None:
    streams = [client.stream(ENDLESS) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    assert client.process_id is not None
    os.kill(client.process_id, signal.SIGKILL)
    for stream in streams:
        last = (await asyncio.wait_for(collect(stream), TIMEOUT_S))[-1]
        assert (last.finish_reason, last.error_code) == ("error", "engine_dead")
    if not client.is_ready:
        with pytest.raises(EngineDeadError):
            await collect(client.stream(SpeechRequest(text="text")))
    await until(lambda: client.is_ready)
    assert client.num_restarts >= 1
    chunks = await collect(client.stream(SpeechRequest(text="text @9")))
    assert chunks[-1].finish_reason == "stop"
    await client.check_integrity()


@pytest.mark.slow
async def test_a_restart_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "broken"
    client = make_client(monkeypatch, model=f"fail-until:{marker}")
    await client.start()
    try:
        marker.touch()
        assert client.process_id is not None
        os.kill(client.process_id, signal.SIGKILL)
        await until(lambda: client.num_restarts >= 2)
        assert not client.is_ready
        assert client._backoff_s > FIRST_BACKOFF_S
        marker.unlink()
        await until(lambda: client.is_ready)
    finally:
        await client.close()


@pytest.mark.slow
async def test_close_does_not_wait_for_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "broken"
    client = make_client(monkeypatch, model=f"fail-until:{marker}")
    await client.start()
    client._backoff_s = 1000.0
    assert client.process_id is not None
    os.kill(client.process_id, signal.SIGKILL)
    await until(lambda: not client.is_ready)
    await asyncio.wait_for(client.close(), TIMEOUT_S)
    assert client.num_restarts == 0


@pytest.mark.slow
async def test_a_start_that_fails_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    marker = tmp_path / "broken"
    marker.touch()
    client = make_client(monkeypatch, model=f"fail-until:{marker}")
    with pytest.raises(StrettoError, match="RuntimeError: not yet"):
        await client.start()
    await client.close()


@pytest.mark.slow
async def test_close_ends_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client(monkeypatch, model="slow")
    await client.start()
    stream = client.stream(ENDLESS)
    await anext(stream)
    await client.close()
    await client.close()
    assert (await collect(stream))[-1].finish_reason in ("abort", "error")
    with pytest.raises(EngineDeadError):
        await collect(client.stream(SpeechRequest(text="text")))


# The wire.


def test_messages_survive() -> None:
    request = SpeechRequest(
        text="text",
        voice=Voice(audio=b"\x00\xff", transcript="words"),
        sampling=SamplingParams(temperature=(0.1, 0.2)),
    )
    message = wire.Submit("id", request)
    assert wire.decode_to_engine(wire.encode(message)) == message


def test_chunks_survive() -> None:
    chunk = AudioChunk(
        request_id="id",
        audio=np.arange(5, dtype=np.float32),
        sample_rate=24000,
        index=2,
        is_last=True,
        finish_reason="length",
        metrics=RequestMetrics(seed=9),
    )
    frames = wire.encode_chunk(chunk)
    header = wire.decode_from_engine(frames[0])
    assert isinstance(header, wire.ChunkHeader)
    back = wire.decode_chunk(header, frames[1:])
    np.testing.assert_array_equal(back.audio, chunk.audio)
    assert (back.finish_reason, back.metrics) == (chunk.finish_reason, chunk.metrics)


@pytest.mark.parametrize(
    "error",
    [
        RequestError("bad", param="text", code="odd"),
        UnknownVoiceError("who", param="voice"),
        OverloadedError("full", retry_after_s=2.5),
        CheckpointError("missing file"),
    ],
)
def test_errors_survive(error: StrettoError) -> None:
    back = wire.revive(wire.describe(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert wire.describe(back) == wire.describe(error)


def test_an_unknown_error_keeps_its_name() -> None:
    assert str(wire.revive(wire.describe(KeyError("x")))) == "KeyError: 'x'"
