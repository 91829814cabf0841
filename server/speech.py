"""`POST /v1/audio/speech`: one text in, audio out, as it is made or as one finished file.

Until the first bytes are encoded every failure is an ordinary JSON error. After that the answer is
under way and a failure breaks the connection (behind an error event, for server-sent events), so
that no client takes a truncated file for a whole one.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import HttpVersion10, web

from .answer import Answer
from .errors import log_failure, to_api_error
from .parse import SpeechJob
from .protocol import AudioDelta, AudioDone, SpeechBody, StreamError, decode
from .services import SERVICES, Services
from .write_guard import cut_after

_FLUSH_S = 5.0  # how long the error event may take to leave before the connection is broken
_SMALL_BODY = 64 << 10  # bytes that are parsed at once, on the event loop
_LONGEST_S = 1e9  # what a deadline may be


async def speech(request: web.Request) -> web.StreamResponse:
    """Handle the call. HTTP/1.0 clients know no chunks and get the finished file."""
    services = request.app[SERVICES]
    job = await _read_job(request, services)
    answer = services.speak(job)
    if job.stream and request.version > HttpVersion10:
        return await _stream(request, services, job, answer)
    if job.sse:
        events = [event async for event in _events(answer)]
        return _finished(b"".join(events), "text/event-stream")
    return _finished(await answer.whole(), job.output.content_type)


async def _read_job(request: web.Request, services: Services) -> SpeechJob:
    """What the body asks for; a large one, with a recording in it, is read in a thread."""
    data = await request.read()
    read_timeout_s = _read_timeout_s(request)

    def parse() -> SpeechJob:
        body = decode(data, SpeechBody)
        if body.deadline_s is None:
            body = msgspec.structs.replace(body, deadline_s=read_timeout_s)
        return services.catalog.job(body)

    return parse() if len(data) <= _SMALL_BODY else await asyncio.to_thread(parse)


def _read_timeout_s(request: web.Request) -> float | None:
    """For how long OpenAI's clients, which say so, wait for the first bytes."""
    try:
        seconds = float(request.headers.get("x-stainless-read-timeout", ""))
    except ValueError:
        return None
    return seconds if 0 < seconds <= _LONGEST_S else None


def _finished(body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
    return web.Response(body=body, headers=headers)


async def _stream(
    request: web.Request, services: Services, job: SpeechJob, answer: Answer
) -> web.StreamResponse:
    pieces = _events(answer) if job.sse else answer.pieces()
    async with aclosing(pieces):
        first = await anext(pieces, b"")
        content_type = "text/event-stream" if job.sse else job.output.content_type
        headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            await _write(request, response, services, first)
            async for piece in pieces:
                await _write(request, response, services, piece)
            await response.write_eof()
        except ConnectionError:  # nobody is left to answer, so there is nothing more to raise
            services.metrics.aborted.labels("client_disconnect").inc()
        except asyncio.CancelledError:
            services.metrics.aborted.labels("client_disconnect").inc()
            raise
        except Exception as error:
            services.metrics.aborted.labels("error").inc()
            await _break_off(request, response, error, job.sse)
    return response


async def _events(answer: Answer) -> AsyncGenerator[bytes, None]:
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            yield _event(AudioDelta(audio=base64.b64encode(piece).decode()))
    yield _event(AudioDone(usage=answer.usage))


def _event(event: AudioDelta | AudioDone | StreamError) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


async def _write(
    request: web.Request, response: web.StreamResponse, services: Services, data: bytes
) -> None:
    """Write, and cut a client that takes nothing for `write_timeout_s`."""
    with cut_after(request.transport, services.config.write_timeout_s):
        await response.write(data)


async def _break_off(
    request: web.Request, response: web.StreamResponse, error: Exception, sse: bool
) -> None:
    """Tell what happened where the format can, then break the connection."""
    failure = to_api_error(error)
    log_failure(failure, error)
    transport = request.transport
    if transport is None:
        return
    if sse:
        # With a high-water mark of 0, draining waits until everything has gone to the kernel.
        transport.set_write_buffer_limits(high=0)
        try:
            with cut_after(transport, _FLUSH_S):
                await response.write(_event(StreamError(error=failure.detail)))
        except ConnectionError:
            return
    transport.abort()
