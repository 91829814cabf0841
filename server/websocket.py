"""`GET /v1/audio/speech/stream`, a WebSocket: text in as it is written, audio out as it is spoken.

One session speaks any number of utterances, one after the other. Text is cut into sentences, and a
few are spoken ahead so that none waits for the one before; their audio leaves as one stream through
one encoder. A cancel stops the engine within one step and is answered with the seconds sent.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import msgspec
from aiohttp import WSMsgType, web

from .answer import Answer
from .errors import ApiError, draining, log_failure, to_api_error
from .protocol import (
    AudioStarted,
    Cancel,
    Cancelled,
    ClientMessage,
    InputDone,
    InputText,
    ServerMessage,
    SessionClose,
    SessionConfig,
    SessionCreated,
    StreamError,
    UtteranceDone,
    decode_message,
)
from .services import SERVICES, Services
from .utterance import Utterance
from .write_guard import cut_after

_MAX_MESSAGE = 1 << 20
_HEARTBEAT_S = 30.0


async def speech_stream(request: web.Request) -> web.WebSocketResponse:
    """Handle one connection."""
    services = request.app[SERVICES]
    socket = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE, heartbeat=_HEARTBEAT_S)
    await socket.prepare(request)
    services.metrics.websockets.inc()
    session = Session(services, socket, request)
    services.sessions.add(session)
    try:
        with services.metrics.websockets_active.track_inprogress():
            await session.run()
    finally:
        services.sessions.discard(session)
        await session.stop()
    return socket


class Session:
    """One connection: its settings, and the utterance being spoken, if one is."""

    def __init__(
        self, services: Services, socket: web.WebSocketResponse, request: web.Request
    ) -> None:
        self._services = services
        self._socket = socket
        self._request = request
        self._options = SessionConfig()
        self._utterance: Utterance | None = None
        self._answer: Answer | None = None
        self._sent_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Take messages until the connection or the session is closed."""
        await self._send(SessionCreated())
        async for message in self._socket:
            if message.type != WSMsgType.TEXT:
                continue
            try:
                if not await self._take(decode_message(message.data)):
                    break
            except ConnectionError:
                break
            except Exception as error:
                await self._tell(error)
        await self._socket.close()

    async def stop(self) -> None:
        """Give up what is being spoken."""
        task, self._task, self._utterance = self._task, None, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def end_when_idle(self) -> None:
        """For shutting down: close now, or after the utterance under way."""
        if self._utterance is not None:
            self._utterance.end()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._socket.close(code=1001, message=b"the server is shutting down")

    async def _take(self, message: ClientMessage) -> bool:
        """Act on one message; False ends the session."""
        if isinstance(message, SessionConfig):
            self._configure(message)
        elif isinstance(message, InputText):
            self._add_text(message.text)
        elif isinstance(message, InputDone):
            if self._utterance is not None:
                self._utterance.end()
        elif isinstance(message, Cancel):
            await self._cancel()
        elif isinstance(message, SessionClose):
            await self._finish()
            return False
        return True

    def _configure(self, options: SessionConfig) -> None:
        if self._utterance is not None:
            raise ApiError(409, "an utterance is under way", code="utterance_in_progress")
        self._services.catalog.template(options)  # tells at once what would fail later
        self._options = options

    def _add_text(self, text: str) -> None:
        if self._utterance is None:
            self._begin()
        if self._utterance is not None:
            self._utterance.add(text)

    def _begin(self) -> None:
        if self._services.draining:
            raise draining()
        template = self._services.catalog.template(self._options)
        config = self._services.config
        self._utterance = Utterance(
            template.request, self._services.synthesizer, config.max_input_chars
        )
        self._answer = self._services.answer(self._utterance.chunks(), template.output)
        self._sent_s = 0.0
        started = AudioStarted(
            content_type=template.output.content_type, sample_rate=template.output.sample_rate
        )
        self._task = asyncio.create_task(self._speak(self._answer, started))

    async def _speak(self, answer: Answer, started: AudioStarted) -> None:
        """Send one utterance's audio, then how it ended."""
        try:
            await self._send(started)
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    with cut_after(self._request.transport, self._services.config.write_timeout_s):
                        await self._socket.send_bytes(piece)
                    self._sent_s = answer.audio_s
            await self._send(UtteranceDone(audio_s=answer.audio_s, usage=answer.usage))
        except ConnectionError:
            self._services.metrics.aborted.labels("client_disconnect").inc()
        except Exception as error:
            self._services.metrics.aborted.labels("error").inc()
            with suppress(ConnectionError):
                await self._tell(error)
        finally:
            self._utterance = self._task = None

    async def _cancel(self) -> None:
        if self._task is None:
            await self._send(Cancelled(audio_s=0.0))
            return
        await self.stop()
        self._services.metrics.aborted.labels("client_cancel").inc()
        await self._send(Cancelled(audio_s=self._sent_s))

    async def _finish(self) -> None:
        if self._utterance is not None:
            self._utterance.end()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _tell(self, error: Exception) -> None:
        failure = to_api_error(error)
        log_failure(failure, error)
        await self._send(StreamError(error=failure.detail))

    async def _send(self, message: ServerMessage) -> None:
        with cut_after(self._request.transport, self._services.config.write_timeout_s):
            await self._socket.send_str(msgspec.json.encode(message).decode())
