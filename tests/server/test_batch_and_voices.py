"""The batch call, uploaded voices, and the small GET endpoints."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from stretto.engine.request import Voice
from tests.server.support import TEXT, Server, decode, serving


def recording(seconds: float = 1.0, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tone = np.sin(np.arange(round(16000 * seconds)) / 20)
    soundfile.write(buffer, tone, 16000, **{"format": "WAV", **options})
    return buffer.getvalue()


def form(audio: bytes = b"", **texts: str) -> aiohttp.FormData:
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in texts.items():
        data.add_field(name, value)
    if audio:
        data.add_field(
            "audio_sample", io.BytesIO(audio), filename="a.wav", content_type="audio/wav"
        )
    return data


async def upload(server: Server, data: aiohttp.FormData) -> tuple[int, dict[str, Any]]:
    url = f"{server.url}/v1/audio/voices"
    async with server.session.post(url, data=data) as response:
        return response.status, await response.json()


async def get(server: Server, path: str) -> Any:
    async with server.session.get(server.url + path) as response:
        assert response.status == 200
        assert response.headers["x-request-id"]
        return await response.json()


WHOLE = {"name": "mine", "consent": "I agree.", "ref_text": "what I said"}


async def test_batch(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="bad", kind="error", after_chunks=1),))
    items = [
        {"input": "first text", "response_format": "wav"},
        {"input": "a bad text"},
        {"input": "third", "voice": "nobody"},
        {"input": "fourth text", "seed": 9},
    ]
    async with serving(tmp_path, config) as server:
        url = f"{server.url}/v1/audio/speech/batch"
        body = {"items": items, "response_format": "flac", "seed": 4, "voice": "second"}
        async with server.session.post(url, json=body) as response:
            assert response.status == 200
            results = (await response.json())["results"]
        requests = {request.text: request for request in server.engine.requests}
    assert [r["index"] for r in results] == [0, 1, 2, 3]
    assert [r["status"] for r in results] == [200, 500, 400, 200]
    assert [r.get("content_type") for r in results] == ["audio/wav", None, None, "audio/flac"]
    assert results[2]["error"]["code"] == "unknown_voice"
    samples, rate = decode(base64.b64decode(results[0]["audio"]))
    assert len(samples) / rate == pytest.approx(results[0]["duration_s"]) == pytest.approx(0.6)
    assert requests["fourth text"].seed == 9
    assert requests["first text"].seed == 4
    assert requests["first text"].voice == "second"
    assert {request.priority for request in requests.values()} == {"bulk"}


@pytest.mark.parametrize("items", [None, [], [{}], [{"input": ""}, 3], [{"input": "x"}] * 9])
async def test_bad_batches(items: Any, tmp_path: Path) -> None:
    async with serving(tmp_path, max_batch_items=8) as server:
        url = f"{server.url}/v1/audio/speech/batch"
        async with server.session.post(url, json={"items": items}) as response:
            assert response.status == 400


async def test_an_uploaded_voice_speaks_and_goes(tmp_path: Path) -> None:
    audio = recording()
    async with serving(tmp_path) as server:
        status, voice = await upload(server, form(audio, **WHOLE))
        assert (status, voice["id"], voice["uploaded"]) == (201, "mine", True)
        listed = (await get(server, "/v1/audio/voices"))["voices"]
        assert [(v["id"], v["name"]) for v in listed][-1] == ("mine", "mine")
        assert (await server.speak(voice="mine"))[0] == 200
        spoken = server.engine.requests[-1].voice
        assert spoken == Voice(audio=audio, transcript="what I said")
        assert (await upload(server, form(audio, **WHOLE)))[0] == 409
    async with serving(tmp_path) as server:  # another process sees it too
        assert (await server.speak(voice="mine"))[0] == 200
        url = f"{server.url}/v1/audio/voices/mine"
        async with server.session.delete(url) as response:
            assert (await response.json())["deleted"] is True
        async with server.session.delete(url) as response:
            assert response.status == 404
        assert (await server.speak(voice="mine"))[0] == 400


async def test_bad_uploads(tmp_path: Path) -> None:
    good = recording()
    cases: list[tuple[aiohttp.FormData, int, str | None]] = [
        (form(good, **{**WHOLE, "name": "../up"}), 400, "name"),
        (form(good, **{**WHOLE, "name": "default"}), 409, "name"),
        (form(good, **{**WHOLE, "name": "alloy"}), 409, "name"),
        (form(good, name="mine", ref_text="x"), 400, "consent"),
        (form(good, name="mine", consent="x"), 400, "ref_text"),
        (form(b"no audio at all", **WHOLE), 400, "audio_sample"),
        (form(b"", **WHOLE), 400, "audio_sample"),
        (form(recording(0.1), **WHOLE), 400, "audio_sample"),
        (form(recording(70, format="FLAC"), **WHOLE), 400, "audio_sample"),
        (form(recording(35), **WHOLE), 413, "audio_sample"),
    ]
    async with serving(tmp_path, max_reference_mib=1) as server:
        for data, status, param in cases:
            got, body = await upload(server, data)
            assert (got, body["error"]["param"]) == (status, param), body
        url = f"{server.url}/v1/audio/voices"
        async with server.session.post(url, json=WHOLE) as response:
            assert response.status == 400
        bad_headers = {"Content-Type": "multipart/form-data"}
        async with server.session.post(url, data=b"x", headers=bad_headers) as response:
            assert response.status == 400
        assert len((await get(server, "/v1/audio/voices"))["voices"]) == 2
    assert not list((tmp_path / "voices").glob("*"))


async def test_reference_audio_in_the_request(tmp_path: Path) -> None:
    encoded = base64.b64encode(recording()).decode()
    async with serving(tmp_path) as server:
        for ref in (encoded, f"data:audio/wav;base64,{encoded}"):
            assert (await server.speak(ref_audio=ref, ref_text="said"))[0] == 200
            voice = server.engine.requests[-1].voice
            assert isinstance(voice, Voice)
            assert (voice.audio, voice.transcript) == (recording(), "said")
        status, body = await server.speak(ref_audio=encoded)
        assert (status, json.loads(body)["error"]["param"]) == (400, "ref_text")


async def test_configured_aliases_and_names(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "voice_aliases": "alloy=second, boss=default",
        "served_model_name": "speech-1",
    }
    async with serving(tmp_path, **fields) as server:
        await server.speak(voice="alloy", model="speech-1")
        await server.speak(TEXT + "!", voice="boss", model="fake")
        assert [r.voice for r in server.engine.requests] == ["second", "default"]
        assert (await get(server, "/v1/models"))["data"][0]["id"] == "speech-1"
        assert (await get(server, "/v1/audio/models"))["models"] == [{"id": "speech-1"}]


async def test_health_ready_and_page(tmp_path: Path) -> None:
    async with serving(tmp_path, api_key="secret") as server:
        assert await get(server, "/health") == {"status": "ok"}
        assert await get(server, "/ready") == {"status": "ready"}
        async with server.session.get(server.url + "/") as response:
            assert response.content_type == "text/html"
            page = await response.text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


async def test_openapi_describes_what_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        document = await get(server, "/openapi.json")
    properties = document["components"]["schemas"]["SpeechBody"]["properties"]
    assert {"input", "voice", "response_format", "speed", "stream_format"} <= set(properties)
    assert document["components"]["schemas"]["SpeechBody"]["required"] == ["input"]
    for path in document["paths"].values():
        assert path
