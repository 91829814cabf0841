"""The WebSocket: text in pieces, audio as it is ready, cancel, errors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from stretto.server.app import drain
from stretto.server.sentence_stream import SentenceStream
from tests.server.support import Server, decode, pcm, serving

PATIENCE_S = 60.0
Socket = aiohttp.ClientWebSocketResponse


async def connect(server: Server, **config: Any) -> Socket:
    socket = await server.session.ws_connect(f"{server.url}/v1/audio/speech/stream")
    assert (await read(socket))["type"] == "session.created"
    await socket.send_json({"type": "session.config", "response_format": "pcm", **config})
    return socket


async def read(socket: Socket) -> dict[str, Any]:
    message = await socket.receive(timeout=PATIENCE_S)
    assert message.type == aiohttp.WSMsgType.TEXT, message
    value = message.json()
    assert isinstance(value, dict)
    return value


async def hear(socket: Socket) -> tuple[bytes, dict[str, Any]]:
    """All audio up to the next message that is not audio."""
    audio = b""
    while True:
        message = await socket.receive(timeout=PATIENCE_S)
        if message.type == aiohttp.WSMsgType.BINARY:
            audio += message.data
        elif message.type == aiohttp.WSMsgType.TEXT:
            value = message.json()
            if value["type"] != "audio.start":
                return audio, value
        else:
            raise AssertionError(message)


async def say(socket: Socket, *pieces: str) -> None:
    for piece in pieces:
        await socket.send_json({"type": "input.text", "text": piece})


async def test_text_in_pieces_becomes_one_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        socket = await connect(server, seed=3)
        await say(socket, "Hel", "lo the", "re. How ", "are you", "? Fi", "ne.")
        await socket.send_json({"type": "input.done"})
        audio, done = await hear(socket)
        texts = [request.text for request in server.engine.requests]
        assert texts == ["Hello there.", "How are you?", "Fine."]
        samples = sum(round(max(len(text) * 0.06, 0.08) * 24000) for text in texts)
        assert len(pcm(audio)) == samples
        assert done["type"] == "audio.done"
        assert done["audio_s"] == pytest.approx(samples / 24000)
        assert done["usage"]["input_tokens"] == sum(map(len, texts))


async def test_audio_comes_before_the_text_is_done(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        socket = await connect(server)
        await say(socket, "A first sentence. And ")
        assert (await read(socket))["type"] == "audio.start"
        assert (await socket.receive(timeout=PATIENCE_S)).type == aiohttp.WSMsgType.BINARY
        await say(socket, "the rest.")
        await socket.send_json({"type": "session.close"})
        _, done = await hear(socket)
        assert done["type"] == "audio.done"
        closed = await socket.receive(timeout=PATIENCE_S)
        assert closed.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_many_utterances_and_formats_in_one_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        socket = await connect(server, response_format="opus")
        for _ in range(2):
            await say(socket, "One utterance. ")
            await socket.send_json({"type": "input.done"})
            audio, done = await hear(socket)
            samples, _ = decode(audio)
            assert len(samples) / 48000 == pytest.approx(done["audio_s"], abs=0.001)


async def test_cancel_stops_at_once_and_tells_what_was_sent(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="hang", kind="hang", after_chunks=4),))
    async with serving(tmp_path, config) as server:
        socket = await connect(server)
        await say(socket, "Please hang on. Then more. And more. ")
        assert (await read(socket))["type"] == "audio.start"
        heard = 0
        while heard < 4 * 1920:
            message = await socket.receive(timeout=PATIENCE_S)
            heard += len(message.data) // 2
        await socket.send_json({"type": "cancel"})
        rest, answer = await hear(socket)
        assert rest == b""
        assert answer == {"type": "cancelled", "audio_s": pytest.approx(heard / 24000)}
        await settled(server)
        await say(socket, "Again. ")
        await socket.send_json({"type": "input.done"})
        audio, done = await hear(socket)
        assert done["type"] == "audio.done"
        assert np.any(pcm(audio))


async def settled(server: Server) -> None:
    async def poll() -> None:
        while server.engine.num_live:
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), PATIENCE_S)


async def test_a_client_that_vanishes_frees_everything(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="hang", kind="hang", after_chunks=1),))
    async with serving(tmp_path, config) as server:
        socket = await connect(server)
        await say(socket, "Please hang on. Then more. ")
        assert (await read(socket))["type"] == "audio.start"
        await socket.close()
        await settled(server)


async def test_errors_are_messages_and_the_session_goes_on(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="bad", kind="error", after_chunks=1),))
    async with serving(tmp_path, config) as server:
        socket = await connect(server)
        for sent, code in [
            ("nonsense", "invalid_json"),
            ('{"type": "what"}', "invalid_value"),
            ('{"type": "session.config", "voice": "nobody"}', "unknown_voice"),
            ('{"type": "session.config", "speed": 9}', "invalid_value"),
        ]:
            await socket.send_str(sent)
            answer = await read(socket)
            assert (answer["type"], answer["error"]["code"]) == ("speech.audio.error", code)
        await say(socket, "A bad thing. ")
        await socket.send_json({"type": "input.done"})
        _, failed = await hear(socket)
        assert failed["error"]["code"] == "internal_error"
        await say(socket, "A good thing. ")
        await socket.send_json({"type": "input.done"})
        assert (await hear(socket))[1]["type"] == "audio.done"


async def test_draining_lets_the_utterance_finish(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeEngineConfig(pace=8.0)) as server:
        idle, busy = await connect(server), await connect(server)
        await say(busy, "A sentence that is under way. And ")
        assert (await read(busy))["type"] == "audio.start"
        draining = asyncio.create_task(drain(server.services))
        assert (await idle.receive(timeout=PATIENCE_S)).data == 1001
        assert (await hear(busy))[1]["type"] == "audio.done"
        await busy.receive(timeout=PATIENCE_S)
        assert await draining


async def test_it_needs_the_key(tmp_path: Path) -> None:
    async with serving(tmp_path, api_key="secret") as server:
        url = f"{server.url}/v1/audio/speech/stream"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await server.session.ws_connect(url)
        headers = {"Authorization": "Bearer secret"}
        socket = await server.session.ws_connect(url, headers=headers)
        assert (await read(socket))["type"] == "session.created"
        await socket.close()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_sentences_do_not_depend_on_the_pieces(size: int) -> None:
    text = "Dr. Smith paid $5.00. It was 3 p.m. then! Was it? 你好。再见。"
    stream = SentenceStream()
    got = [s for i in range(0, len(text), size) for s in stream.add(text[i : i + size])]
    got += stream.finish()
    assert "".join("".join(got).split()) == "".join(text.split())
    assert got[0] == "Dr. Smith paid $5.00."
    assert stream.finish() == []
