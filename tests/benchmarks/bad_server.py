"""A speech server with planted faults, chosen by the words of the text it is asked to speak."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer

RATE = 24000
CHUNK_S = 0.25
LATE_S = 2.0


def tone(seconds: float, level: float = 0.5) -> bytes:
    """16-bit samples of a 200 Hz tone."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 200 * t + 0.5) * 32767).astype("<i2").tobytes()


def chunks_of(text: str) -> list[bytes]:
    """Four chunks of a quarter second; their sound follows from the words of `text`."""
    if "silent" in text:
        return [tone(CHUNK_S, 0.0)] * 4
    if "quiet start" in text:
        return [tone(CHUNK_S, 0.0)] * 2 + [tone(CHUNK_S)] * 2
    return [tone(CHUNK_S)] * 4


class BadServer:
    """What it was asked, and the answers it gives."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.in_flight = 0
        self.peak = 0

    async def speak(self, request: web.Request) -> web.StreamResponse:
        """Answer one speech request with the faults its text names."""
        body = await request.json()
        self.bodies.append(body)
        text = body["input"]
        if "overload" in text:
            return web.json_response({"error": {"message": "busy"}}, status=429)
        if "broken" in text:
            return web.json_response({"error": {"message": "oops"}}, status=500)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._stream(request, text, body["stream_format"] == "sse")
        finally:
            self.in_flight -= 1

    async def _stream(self, request: web.Request, text: str, sse: bool) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/event-stream" if sse else "audio/pcm"
        response.enable_chunked_encoding()
        await response.prepare(request)
        for index, chunk in enumerate([] if "nothing" in text else chunks_of(text)):
            if index == 2:
                await self._fault(request, response, text)
                if "cut" in text:
                    return response
            await response.write(_delta(chunk) if sse else chunk)
        if sse and "undone" not in text:
            await response.write(_event({"type": "speech.audio.done", "usage": {}}))
        await response.write_eof()
        return response

    async def _fault(self, request: web.Request, response: web.StreamResponse, text: str) -> None:
        if "late" in text:
            await asyncio.sleep(LATE_S)
        if "error event" in text:
            await response.write(_event({"type": "speech.audio.error", "error": "planted"}))
        if "hang" in text:
            await asyncio.sleep(60)
        if "cut" in text and request.transport is not None:
            request.transport.close()


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _delta(chunk: bytes) -> bytes:
    return _event({"type": "speech.audio.delta", "audio": base64.b64encode(chunk).decode()})


@asynccontextmanager
async def running_server() -> AsyncIterator[tuple[str, BadServer]]:
    """The server on a free port of this machine: its base URL, and itself."""
    bad = BadServer()
    application = web.Application()
    application.router.add_post("/v1/audio/speech", bad.speak)
    async with TestServer(application) as server:
        yield str(server.make_url("")).rstrip("/"), bad
