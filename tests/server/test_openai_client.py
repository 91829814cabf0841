"""OpenAI's own Python client, unchanged: synchronous, asynchronous, streaming, and its errors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from tests.server.support import TEXT, Server, decode, pcm, serving

SECONDS = len(TEXT) * 0.06


def client_of(server: Server, key: str = "key", retries: int = 0) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=retries)


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav"])
async def test_async_client(
    audio_format: Literal["mp3", "opus", "aac", "flac", "wav"], tmp_path: Path
) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        answer = await client.audio.speech.create(
            model="tts-1", voice="alloy", input=TEXT, response_format=audio_format
        )
    samples, rate = decode(answer.content)
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.1)


async def test_sync_client_in_a_thread(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:

        def call() -> bytes:
            with OpenAI(base_url=f"{server.url}/v1", api_key="key") as client:
                return client.audio.speech.create(
                    model="tts-1", voice="nova", input=TEXT, speed=1.5
                ).content

        samples, rate = decode(await asyncio.to_thread(call))
    assert len(samples) / rate == pytest.approx(SECONDS / 1.5, abs=0.15)


async def test_streaming_client_gets_audio_before_it_is_all_made(tmp_path: Path) -> None:
    hang = FakeEngineConfig(failures=(FakeFailure(text="quick", kind="hang", after_chunks=5),))
    async with serving(tmp_path, hang) as server, client_of(server) as client:
        async with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="pcm"
        ) as answer:
            assert answer.headers["content-type"].startswith("audio/pcm")
            got = b""
            async for piece in answer.iter_bytes():
                got += piece
                if len(got) == 5 * 1920 * 2:
                    break
        assert len(pcm(got)) == 5 * 1920


async def test_stream_to_file(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    async with (
        serving(tmp_path) as server,
        client_of(server) as client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="wav"
        ) as answer,
    ):
        await answer.stream_to_file(path)
    assert len(decode(path.read_bytes())[0]) / 24000 == pytest.approx(SECONDS)


async def test_its_errors_are_typed(tmp_path: Path) -> None:
    failure = FakeFailure(text="busy", kind="overload")
    config = FakeEngineConfig(failures=(failure,))
    async with serving(tmp_path, config, api_key="right") as server:
        async with client_of(server, "right") as client:
            with pytest.raises(openai.BadRequestError) as bad:
                await client.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)
            assert bad.value.code == "unknown_voice"
            assert bad.value.param == "voice"
            assert bad.value.request_id
            with pytest.raises(openai.NotFoundError):
                await client.audio.speech.create(model="nothing", voice="alloy", input=TEXT)
            with pytest.raises(openai.RateLimitError):
                await client.audio.speech.create(model="tts-1", voice="alloy", input="busy")
        async with client_of(server, "wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()


async def test_models(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        models = await client.models.list()
        assert [model.id for model in models.data] == ["fake"]
        assert (await client.models.retrieve("fake")).object == "model"


async def test_a_failure_on_the_way_is_no_whole_file(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="quick", kind="error", after_chunks=8),))
    async with serving(tmp_path, config) as server, client_of(server) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)


async def test_sampling_extras_pass_through_extra_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        answers = [
            await client.audio.speech.create(
                model="tts-1",
                voice="alloy",
                input=TEXT,
                response_format="pcm",
                extra_body={"seed": seed, "temperature": 0.3},
            )
            for seed in (1, 1, 2)
        ]
        assert server.engine.requests[0].sampling.temperature == 0.3
    first, again, other = (pcm(answer.content) for answer in answers)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
