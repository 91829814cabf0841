"""The speech call: formats, modes, fields, errors."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure, tone
from stretto.engine.request import SpeechRequest
from tests.server.support import FORMATS, TEXT, Server, decode, pcm, serving

SECONDS = len(TEXT) * 0.06
# Samples an encoder puts around the speech without a way to say so in a stream: the last frame's
# padding for MP3 (576 at 24 kHz), one frame of AAC (1024) at the start, and padding.
SLACK_S = {"mp3": 576 / 24000, "aac": 2 * 1024 / 24000}


def events(body: bytes) -> list[dict[str, object]]:
    lines = [line for line in body.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def spoken(server: Server, **fields: Any) -> bytes:
    status, body = await server.speak(seed=7, **fields)
    assert status == 200, body
    return body


@pytest.mark.parametrize("audio_format", FORMATS)
async def test_every_format_streams_in_both_modes(audio_format: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        audio = await spoken(server, response_format=audio_format)
        sse = events(await spoken(server, response_format=audio_format, stream_format="sse"))
    assert [e["type"] for e in sse[:-1]] == ["speech.audio.delta"] * (len(sse) - 1)
    assert len(sse) > 3, "it must have come in pieces"
    usage = sse[-1]["usage"]
    assert isinstance(usage, dict)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    joined = b"".join(base64.b64decode(str(e["audio"])) for e in sse[:-1])
    if audio_format != "opus":  # an Ogg stream carries a random serial number
        assert joined == audio
    samples, rate = (pcm(audio), 24000) if audio_format == "pcm" else decode(audio)
    assert rate == (48000 if audio_format == "opus" else 24000)
    excess = len(samples) / rate - SECONDS
    assert -0.001 <= excess <= SLACK_S.get(audio_format, 0.001)


async def test_pcm_is_the_engines_audio_without_a_gap(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        got = pcm(await spoken(server, response_format="pcm"))
    wanted = tone(SpeechRequest(text=TEXT), 7, 24000, SECONDS)
    np.testing.assert_allclose(got, wanted, atol=1 / 32767)


@pytest.mark.parametrize("audio_format", FORMATS)
async def test_streamed_equals_whole(audio_format: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        streamed = await spoken(server, response_format=audio_format)
        whole = await spoken(server, response_format=audio_format, stream=False)
    if audio_format == "pcm":
        assert streamed == whole
    else:
        want = decode(whole)[0]  # a finished mp3 knows where its padding begins
        got = decode(streamed)[0][: len(want) if audio_format == "mp3" else None]
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3"])
async def test_a_finished_file_knows_its_length(audio_format: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        body = await spoken(server, response_format=audio_format, stream=False)
    info = soundfile.info(io.BytesIO(body))
    assert info.samplerate == 24000
    assert info.duration == pytest.approx(SECONDS, abs=0.001)


async def test_streamed_wav_declares_no_size(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        body = await spoken(server, response_format="wav")
    assert body[4:8] == body[40:44] == b"\xff\xff\xff\xff"


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 4.0])
async def test_speed_changes_duration_and_not_pitch(speed: float, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        plain = pcm(await spoken(server, response_format="pcm"))
        fast = pcm(await spoken(server, response_format="pcm", speed=speed))
    assert len(fast) / 24000 == pytest.approx(SECONDS / speed, rel=0.05)
    assert peak_hertz(fast) == pytest.approx(peak_hertz(plain), rel=0.03)


def peak_hertz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(np.argmax(spectrum)) * 24000 / (1 << 18)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
async def test_sample_rate(rate: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        body = await spoken(server, response_format="wav", sample_rate=rate)
    samples, got = decode(body)
    assert got == rate
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.002)


async def test_pcm_is_24_khz_whatever_the_model(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeEngineConfig(sample_rate=32000)) as server:
        body = await spoken(server, response_format="pcm")
    assert len(pcm(body)) / 24000 == pytest.approx(SECONDS, abs=0.002)


async def test_every_client_shape_is_understood(tmp_path: Path) -> None:
    shapes: list[dict[str, Any]] = [
        {"model": "tts-1", "voice": "alloy"},
        {"model": "gpt-4o-mini-tts", "voice": {"id": "second"}, "instructions": "softly"},
        {"model": None, "voice": None, "speed": None, "stream_format": None},
        {"speaker": "second", "user": "someone", "extra": {"deep": [1, 2]}},
        {"stream": True, "response_format": "pcm", "stream_format": "audio"},
        {"temperature": 0.3, "top_p": 0.7, "top_k": 20, "repetition_penalty": 1.05, "seed": 1},
        {"language": "en", "normalize": False, "priority": "bulk", "max_new_tokens": 100},
    ]
    async with serving(tmp_path) as server:
        for shape in shapes:
            status, body = await server.speak(**shape)
            assert status == 200, (shape, body)
        requests = server.engine.requests
    assert [r.voice for r in requests[:4]] == ["default", "second", None, "second"]
    assert requests[5].sampling.top_k == 20
    assert requests[5].seed == 1
    assert requests[6].priority == "bulk"
    assert not requests[6].normalize


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"voice": "nobody"}, 400, "unknown_voice", "voice"),
    ({"model": "nothing"}, 404, "model_not_found", "model"),
    ({"speed": 5}, 400, "invalid_value", "speed"),
    ({"speed": "fast"}, 400, "invalid_value", "speed"),
    ({"response_format": "ogg"}, 400, "invalid_value", "response_format"),
    ({"stream_format": "chunks"}, 400, "invalid_value", "stream_format"),
    ({"seed": -1}, 400, "invalid_value", "seed"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"sample_rate": 11025}, 400, "invalid_value", "sample_rate"),
    ({"sample_rate": 22050, "response_format": "opus"}, 400, "unsupported_value", "sample_rate"),
    ({"ref_audio": "/etc/passwd", "ref_text": "x"}, 400, "invalid_value", "ref_audio"),
    ({"ref_audio": "file:///etc/passwd", "ref_text": "x"}, 400, "invalid_value", "ref_audio"),
    ({"ref_audio": "http://127.0.0.1/x", "ref_text": "x"}, 400, "invalid_value", "ref_audio"),
    ({"ref_audio": "aGVsbG8=", "ref_text": "x"}, 400, "unsupported_audio", "ref_audio"),
]


@pytest.mark.parametrize(("fields", "status", "code", "param"), BAD)
async def test_bad_fields(
    fields: dict[str, Any], status: int, code: str, param: str | None, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        got, body = await server.speak(**fields)
        assert not server.engine.requests, "bad input must cost nothing"
    error = json.loads(body)["error"]
    assert (got, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "invalid_value"), ("   ", "invalid_value"), ("a" * 99, "string_too_long")],
)
async def test_bad_text(text: str, code: str, tmp_path: Path) -> None:
    async with serving(tmp_path, max_input_chars=98) as server:
        status, body = await server.speak(text)
    error = json.loads(body)["error"]
    assert (status, error["code"], error["param"]) == (400, code, "input")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"voice": "a"}']
)
async def test_bad_bodies(body: bytes, tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        server.session.post(f"{server.url}/v1/audio/speech", data=body) as response,
    ):
        assert response.status == 400
        assert response.headers["x-request-id"]
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_errors_outside_the_handlers_are_json_too(tmp_path: Path) -> None:
    async with serving(tmp_path, max_body_mib=1) as server:
        async with server.session.get(f"{server.url}/v1/nothing") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
            assert response.headers["x-request-id"]
        async with server.session.get(f"{server.url}/v1/audio/speech") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
            assert (await response.json())["error"]["code"] == "method_not_allowed"
        large = io.BytesIO(b'{"input": "%s"}' % (b"a" * (2 << 20)))
        async with server.session.post(f"{server.url}/v1/audio/speech", data=large) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("refuse", 400, "invalid_value"),
        ("overload", 429, "overloaded"),
        ("error", 500, "internal_error"),
        ("raise", 500, "internal_error"),
        ("kill", 503, "engine_dead"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_failures_before_audio_are_json(
    kind: str, status: int, code: str, stream: bool, tmp_path: Path
) -> None:
    failure = FakeFailure(text="quick", kind=kind)  # type: ignore[arg-type]
    config = FakeEngineConfig(failures=(failure,))
    async with (
        serving(tmp_path, config) as server,
        server.session.post(
            f"{server.url}/v1/audio/speech", json={"input": TEXT, "stream": stream}
        ) as response,
    ):
        got = response.status
        error = (await response.json())["error"]
        assert ("Retry-After" in response.headers) == (status in (429, 503))
    assert (got, error["code"]) == (status, code)
    assert "scripted" not in error["message"] or kind != "raise", "internals must not leak"
