"""How the server behaves under load, failures, impatient and slow clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from stretto.server.app import drain
from tests.server.support import TEXT, Server, pcm, serving

HANG = FakeEngineConfig(failures=(FakeFailure(text="hang", kind="hang", after_chunks=3),))
PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something another task brings about."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), PATIENCE_S)


async def open_stream(server: Server, text: str, **fields: object) -> aiohttp.ClientResponse:
    body = {"input": text, "response_format": "pcm", **fields}
    return await server.session.post(f"{server.url}/v1/audio/speech", json=body)


async def collect(response: aiohttp.ClientResponse, into: bytearray) -> None:
    async for piece in response.content.iter_any():
        into += piece


async def test_a_client_that_leaves_frees_its_sequence(tmp_path: Path) -> None:
    async with serving(tmp_path, HANG) as server:
        response = await open_stream(server, "hang on")
        assert await response.content.readexactly(100)
        assert server.engine.num_live == 1
        response.close()
        await until(lambda: server.engine.num_live == 0)
        await server.engine.check_integrity()


async def test_a_client_that_leaves_before_any_audio(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="hang", kind="hang"),))
    async with serving(tmp_path, config) as server:
        task = asyncio.create_task(open_stream(server, "hang on"))
        await until(lambda: server.engine.num_live == 1)
        task.cancel()
        await until(lambda: server.engine.num_live == 0)


@pytest.mark.parametrize("kind", ["error", "raise", "kill"])
async def test_a_failure_on_the_way_breaks_the_connection(kind: str, tmp_path: Path) -> None:
    failure = FakeFailure(text="quick", kind=kind, after_chunks=5)  # type: ignore[arg-type]
    async with serving(tmp_path, FakeEngineConfig(failures=(failure,))) as server:
        response = await open_stream(server, TEXT)
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_an_error_event_comes_before_the_break(tmp_path: Path) -> None:
    failure = FakeFailure(text="quick", kind="error", after_chunks=5)
    async with serving(tmp_path, FakeEngineConfig(failures=(failure,))) as server:
        response = await open_stream(server, TEXT, stream_format="sse")
        received = bytearray()
        with pytest.raises(aiohttp.ClientError):
            await collect(response, received)
    last = json.loads(received.decode().strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["type"] == "speech.audio.error"
    assert last["error"]["code"] == "internal_error"
    assert b"speech.audio.done" not in received


async def test_engine_silence_is_bounded(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="hang", kind="hang"),))
    async with serving(tmp_path, config, stall_timeout_s=0.05) as server:
        status, body = await server.speak("hang on")
    assert (status, json.loads(body)["error"]["code"]) == (504, "engine_stalled")


async def test_a_slow_reader_stops_nobody_and_is_let_go(tmp_path: Path) -> None:
    long_text = "word " * 2_000  # 10 minutes, 58 MB of samples
    async with serving(
        tmp_path, max_input_chars=100_000, max_buffered_mib=4, write_timeout_s=PATIENCE_S
    ) as server:
        slow = await open_stream(server, long_text)
        status, body = await server.speak(TEXT, response_format="pcm")
        assert status == 200
        assert len(body) == round(len(TEXT) * 0.06 * 24000) * 2
        await until(lambda: server.engine.num_live == 0)
        assert server.services.synthesizer.budget.used <= 4 << 20
        with pytest.raises(aiohttp.ClientError):
            await slow.read()


async def test_a_reader_that_takes_nothing_is_cut(tmp_path: Path) -> None:
    long_text = "word " * 2_000  # 29 MB as pcm, far more than sockets hold
    async with serving(tmp_path, max_input_chars=100_000, write_timeout_s=0.2) as server:
        stuck = await open_stream(server, long_text)
        await until(lambda: server.services.answering == 0)
        with pytest.raises(aiohttp.ClientError):
            await stuck.read()


async def test_equal_requests_are_computed_once(tmp_path: Path) -> None:
    async with serving(tmp_path, HANG) as server:
        streams = [await open_stream(server, "hang on") for _ in range(10)]
        server.engine.release()
        bodies = {await stream.read() for stream in streams}
        assert len(bodies) == 1
        assert len(pcm(bodies.pop())) == round(7 * 0.06 * 24000)
        assert len(server.engine.requests) == 1
        await server.speak("something else")
        assert len(server.engine.requests) == 2


async def test_one_of_many_listeners_may_leave(tmp_path: Path) -> None:
    async with serving(tmp_path, HANG) as server:
        leaver = await open_stream(server, "hang on")
        stayer = await open_stream(server, "hang on")
        await leaver.content.readexactly(100)
        leaver.close()
        await until(lambda: server.services.answering == 1)
        server.engine.release()
        body = await stayer.read()
        assert len(server.engine.requests) == 1
    assert len(pcm(body)) == round(7 * 0.06 * 24000)


async def test_different_formats_share_one_synthesis(tmp_path: Path) -> None:
    async with serving(tmp_path, HANG) as server:
        streams = [
            await open_stream(server, "hang on", response_format=form) for form in ("pcm", "wav")
        ]
        server.engine.release()
        raw, wav = [await stream.read() for stream in streams]
        assert wav[44:] == raw
        assert len(server.engine.requests) == 1


async def test_single_flight_can_be_off(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeEngineConfig(pace=8.0), single_flight=False) as server:
        await asyncio.gather(server.speak(), server.speak())
        assert len(server.engine.requests) == 2


async def test_result_cache_keeps_seeded_requests_only(tmp_path: Path) -> None:
    async with serving(tmp_path, cache_mib=1) as server:
        first = await server.speak(seed=1, response_format="pcm")
        assert await server.speak(seed=1, response_format="pcm", priority="bulk") == first
        assert len(server.engine.requests) == 1
        await server.speak(response_format="pcm")
        await server.speak(response_format="pcm")
        await server.speak(seed=1, response_format="pcm", voice="second")
        assert len(server.engine.requests) == 4


async def test_a_failed_request_is_not_cached(tmp_path: Path) -> None:
    failure = FakeFailure(text="quick", kind="error", after_chunks=1)
    async with serving(tmp_path, FakeEngineConfig(failures=(failure,)), cache_mib=8) as server:
        for _ in range(2):
            await server.speak(seed=1, stream=False)
        assert len(server.engine.requests) == 2


async def test_overload_is_refused_with_retry_after(tmp_path: Path) -> None:
    async with serving(tmp_path, HANG, max_num_seqs=2, max_queue_size=1) as server:
        held = [await open_stream(server, f"hang {i}") for i in range(3)]
        response = await open_stream(server, "one more")
        error = (await response.json())["error"]
        assert (response.status, error["type"]) == (429, "rate_limit_error")
        assert int(response.headers["Retry-After"]) >= 1
        for stream in held:
            stream.close()
        await until(lambda: server.engine.num_live == 0)
        assert (await server.speak("one more"))[0] == 200


async def test_draining_finishes_streams_and_refuses_new_ones(tmp_path: Path) -> None:
    config = FakeEngineConfig(pace=4.0)
    async with serving(tmp_path, config) as server:
        running = await open_stream(server, TEXT)
        draining = asyncio.create_task(drain(server.services))
        await until(lambda: server.services.draining)
        status, body = await server.speak()
        assert (status, json.loads(body)["error"]["code"]) == (503, "shutting_down")
        async with server.session.get(f"{server.url}/ready") as response:
            assert response.status == 503
        assert len(pcm(await running.read())) == round(len(TEXT) * 0.06 * 24000)
        assert await draining


async def test_an_engine_that_died_is_told_and_serves_again(tmp_path: Path) -> None:
    async with serving(tmp_path, HANG) as server:
        running = await open_stream(server, "hang on")
        server.engine.kill()
        with pytest.raises(aiohttp.ClientError):
            await running.read()
        async with server.session.get(f"{server.url}/ready") as response:
            assert response.status == 503
        async with server.session.get(f"{server.url}/health") as response:
            assert response.status == 200
        status, body = await server.speak()
        assert (status, json.loads(body)["error"]["code"]) == (503, "engine_dead")
        server.engine.revive()
        assert (await server.speak())[0] == 200


async def test_http_1_0_clients_get_the_whole_file(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"input": TEXT, "response_format": "wav"}).encode()
        head = f"POST /v1/audio/speech HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
    headers, _, content = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in headers
    assert f"Content-Length: {len(content)}".encode() in headers
    assert len(content) == 44 + round(len(TEXT) * 0.06 * 24000) * 2


async def test_cors_is_off_unless_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        response = await server.session.get(f"{server.url}/health")
        assert "Access-Control-Allow-Origin" not in response.headers
    async with serving(tmp_path, cors_origin="https://example.org", api_key="k") as server:
        asked = {"Access-Control-Request-Headers": "authorization, x-stainless-lang"}
        response = await server.session.options(f"{server.url}/v1/audio/speech", headers=asked)
        assert response.status == 204
        allowed = response.headers["Access-Control-Allow-Headers"]
        assert allowed == "authorization, x-stainless-lang"
        assert response.headers["Access-Control-Allow-Origin"] == "https://example.org"


async def test_listings_may_be_open_while_speech_is_not(tmp_path: Path) -> None:
    for listed, status in ((True, 200), (False, 401)):
        async with serving(tmp_path, api_key="k", open_listing=listed) as server:
            async with server.session.get(f"{server.url}/v1/audio/voices") as response:
                assert response.status == status
            assert (await server.speak())[0] == 401
            assert (await server.speak(headers={"Authorization": "Bearer k"}))[0] == 200
