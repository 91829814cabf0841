"""The HTTP side of the harness: send one speech request, keep what came and when.

It speaks OpenAI's `POST /v1/audio/speech` to any server, plain or as server-sent events. Errors are
data: whatever goes wrong becomes the record's `error_kind`, never an exception. It judges nothing;
`metrics` does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import aiohttp

from .playback import time_heard
from .record import RequestRecord
from .timeline import Piece, Timeline, read_timeline

RESPONSE_FORMATS = ("pcm", "wav", "mp3", "opus", "aac", "flac")
STREAM_FORMATS = ("audio", "sse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server under test and the form of every request.

    Attributes:
        url: of the speech endpoint.
        model: sent as `model`.
        voice: sent as `voice`; None sends none.
        response_format: one of `RESPONSE_FORMATS`.
        stream_format: `audio` (raw body) or `sse` (server-sent events).
        extra_body: more fields of the JSON body.
        headers: such as an `Authorization`.
        timeout_s: of one whole request.
    """

    url: str
    model: str
    voice: str | None = None
    response_format: str = "pcm"
    stream_format: str = "audio"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0

    def body(self, text: str) -> dict[str, Any]:
        """The JSON body of a request; `stream` is for servers that stream only when asked."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": text,
            "response_format": self.response_format,
            "stream_format": self.stream_format,
            "stream": True,
        }
        if self.voice is not None:
            body["voice"] = self.voice
        return {**body, **self.extra_body}


@dataclass(slots=True)
class _Reception:
    """What a response has delivered so far."""

    started: float
    status: int | None = None
    first_byte_s: float | None = None
    pieces: list[Piece] = field(default_factory=list)
    error_kind: str | None = None
    error: str | None = None
    complete: bool = False

    def add(self, at_s: float, data: bytes) -> None:
        if data:
            self.pieces.append(Piece(at_s, data))

    def fail(self, kind: str, message: str) -> None:
        self.error_kind, self.error = kind, message[:500]


async def _receive_raw(response: aiohttp.ClientResponse, got: _Reception) -> None:
    async for data in response.content.iter_any():
        now = perf_counter() - got.started
        got.first_byte_s = now if got.first_byte_s is None else got.first_byte_s
        got.add(now, data)
    got.complete = True


async def _receive_events(response: aiohttp.ClientResponse, got: _Reception) -> None:
    """Server-sent events: `speech.audio.delta` ... `speech.audio.done`."""
    buffer = b""
    async for data in response.content.iter_any():
        now = perf_counter() - got.started
        got.first_byte_s = now if got.first_byte_s is None else got.first_byte_s
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                _take_event(line[5:].strip(), now, got)


def _take_event(data: bytes, now: float, got: _Reception) -> None:
    if not data or data == b"[DONE]":
        return
    try:
        event = json.loads(data)
        kind = event["type"]
        if kind == "speech.audio.delta":
            got.add(now, base64.b64decode(event["audio"], validate=True))
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        got.fail("bad_stream", f"not a speech event: {error!r}")
        return
    if kind == "speech.audio.done":
        got.complete = True
    elif kind.endswith("error"):
        message = event.get("error")
        got.fail("stream_error", message if isinstance(message, str) else json.dumps(message))


async def _exchange(
    session: aiohttp.ClientSession, target: Target, text: str, got: _Reception
) -> None:
    timeout = aiohttp.ClientTimeout(total=target.timeout_s)
    request = session.post(
        target.url, json=target.body(text), headers=dict(target.headers), timeout=timeout
    )
    async with request as response:
        got.status = response.status
        if response.status != 200:
            got.fail(f"http_{response.status}", await response.text())
        elif (response.content_type or "") == "text/event-stream":
            await _receive_events(response, got)
        else:
            await _receive_raw(response, got)


async def send(
    session: aiohttp.ClientSession,
    target: Target,
    text: str,
    *,
    index: int = 0,
    arrival_s: float = 0.0,
    run_started: float | None = None,
) -> RequestRecord:
    """Send one request and receive its answer; never raises for what the server does."""
    got = _Reception(started=perf_counter())
    try:
        await _exchange(session, target, text, got)
    except asyncio.TimeoutError:
        got.fail("timeout", f"no end within {target.timeout_s} s")
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
        got.fail("connect", str(error))
    except (aiohttp.ClientError, ConnectionError) as error:
        got.fail("disconnect", str(error) or type(error).__name__)
    ended = perf_counter()
    return _record(
        got,
        target,
        index=index,
        text=text,
        arrival_s=arrival_s,
        sent_s=got.started - (got.started if run_started is None else run_started),
        e2e_s=ended - got.started,
    )


def _record(got: _Reception, target: Target, **when: Any) -> RequestRecord:
    timeline = None
    try:
        timeline = read_timeline(got.pieces, target.response_format)
    except ValueError as error:
        if got.error_kind is None:
            got.fail("bad_audio", str(error))
    return RequestRecord(
        **when,
        status=got.status,
        error_kind=got.error_kind,
        error=got.error,
        truncated=_is_truncated(got, timeline),
        first_byte_s=got.first_byte_s,
        num_bytes=sum(len(piece.data) for piece in got.pieces),
        **(_audio_facts(timeline) if timeline is not None and timeline.chunks else {}),
    )


def _is_truncated(got: _Reception, timeline: Timeline | None) -> bool:
    """Audio began and its end is missing."""
    if not got.pieces:
        return False
    return not got.complete or (timeline is not None and timeline.cut_short)


def _audio_facts(timeline: Timeline) -> dict[str, Any]:
    silence_s = timeline.leading_silence_s
    heard = None if silence_s is None else time_heard(timeline.chunks, silence_s)
    return {
        "chunks": timeline.chunks,
        "audio_s": timeline.audio_s,
        "ttfa_s": timeline.chunks[0].at_s,
        "ttfa_audible_s": heard,
        "silent": silence_s is None,
    }
