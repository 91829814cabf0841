"""`EngineProcessClient`: an `EngineClient` whose engine runs in another process.

A crash of the engine must not take the server with it: requests in flight end with an error, the
process is started again with growing pauses, and `is_ready` tells the truth meanwhile. Which
requests to let in, and whether to try one again, is the server's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from . import wire
from .config import EngineConfig
from .errors import EngineDeadError, StrettoError
from .interface import EngineStats, ModelInfo
from .output import AudioChunk, failure_chunk
from .request import SpeechRequest
from .requests import new_request_id

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.2, 30.0
STABLE_S = 60.0  # a process that lived so long is no part of a crash loop
_ANSWER_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 10.0
_LAST_WORDS_S = 0.3  # for messages that are on their way when the process has ended
_DEFAULT_BUILD = "stretto.engine.build:build_core"

_Event = AudioChunk | StrettoError


class EngineProcessClient:
    """Starts, watches and talks to one engine process. All methods are for one event loop.

    Args:
        config: settings of the engine.
        build: `module:function` that makes the core from them in the process.
    """

    def __init__(self, config: EngineConfig, *, build: str = _DEFAULT_BUILD) -> None:
        self.config = config
        self.num_restarts = 0
        self._build = build
        self._folder = tempfile.TemporaryDirectory(prefix="stretto-")
        self._addresses = itertools.count()
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._model_info: ModelInfo | None = None
        self._streams: dict[str, asyncio.Queue[_Event]] = {}
        self._calls: dict[int, asyncio.Future[wire.Answer]] = {}
        self._call_ids = itertools.count()
        self._watcher: asyncio.Task[None] | None = None
        self._is_ready = False
        self._closing = asyncio.Event()
        self._backoff_s = FIRST_BACKOFF_S

    @property
    def model_info(self) -> ModelInfo:
        """What is served; known once `start` has returned."""
        if self._model_info is None:
            raise EngineDeadError("the engine process has not started")
        return self._model_info

    @property
    def is_ready(self) -> bool:
        """True when requests would be served now."""
        return self._is_ready

    @property
    def process_id(self) -> int | None:
        """Of the engine process; None while there is none."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and return when its engine is warm.

        Raises:
            StrettoError: the engine could not start; the first start is not tried again.
        """
        if self._watcher is not None:
            return
        try:
            await self._launch()
        except BaseException:
            await self._end_process()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def stream(
        self, request: SpeechRequest, *, request_id: str | None = None
    ) -> AsyncIterator[AudioChunk]:
        """Speak; yields chunks, the last one terminal. See `EngineClient.stream`.

        Raises:
            RequestError: the request cannot be served.
            EngineDeadError: the engine is not up.
        """
        if not self._is_ready:
            raise EngineDeadError("the engine is not up; it is being started again")
        request_id = request_id or new_request_id()
        if request_id in self._streams:
            raise StrettoError(f"request id {request_id!r} is in use")
        events: asyncio.Queue[_Event] = asyncio.Queue()
        self._streams[request_id] = events
        is_over = False
        try:
            await self._send(wire.Submit(request_id, request))
            while not is_over:
                event = await events.get()
                if isinstance(event, StrettoError):
                    is_over = True
                    raise event
                is_over = event.is_last
                yield event
        finally:
            self._streams.pop(request_id, None)
            if not is_over:
                await self.abort(request_id)

    async def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; unknown ids are ignored."""
        if self._is_ready:
            await self._send(wire.Abort(request_id))

    async def stats(self) -> EngineStats:
        """A snapshot of the engine's load.

        Raises:
            EngineDeadError: the engine is not up, or does not answer.
        """
        answer = await self._ask("stats")
        return answer.stats or EngineStats()

    async def check_integrity(self) -> None:
        """Raise when blocks or slots leaked; meaningful when idle."""
        await self._ask("check_integrity")

    async def close(self) -> None:
        """End in-flight requests with `abort`, and the process."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._is_ready:
            await self._send(wire.Close())
        if self._watcher is not None:
            _, pending = await asyncio.wait([self._watcher], timeout=_CLOSE_TIMEOUT_S)
            for task in pending:
                task.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._end_process()
        self._context.term()
        self._folder.cleanup()

    # The process.

    async def _launch(self) -> None:
        """Start a process and wait until its engine is ready."""
        path = Path(self._folder.name) / str(next(self._addresses))
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.bind(f"ipc://{path}")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "stretto.engine.engine_process",
            f"ipc://{path}",
            self._build,
            stdin=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self.config) + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()
        message = await self._first_message(self._process, self._socket)
        if isinstance(message, wire.StartFailed):
            raise wire.revive(message.failure)
        assert isinstance(message, wire.Ready), "an engine process first says that it is ready"
        self._model_info = message.model_info
        self._is_ready = True

    @staticmethod
    async def _first_message(
        process: asyncio.subprocess.Process, socket: zmq.asyncio.Socket
    ) -> wire.FromEngine:
        """What the process says first, unless it ends without a word."""
        receiving = asyncio.ensure_future(socket.recv())
        ending = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait([receiving, ending], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                await asyncio.wait([receiving], timeout=_LAST_WORDS_S)
            if not receiving.done():
                code = process.returncode
                raise EngineDeadError(f"the engine process ended with exit code {code}")
            return wire.decode_from_engine(receiving.result())
        finally:
            receiving.cancel()
            ending.cancel()

    async def _watch(self) -> None:
        """Pass on messages; when the process ends, start it again."""
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            await self._receive_until_death()
            self._fail_in_flight()
            await self._end_process()
            if clock() - started > STABLE_S:
                self._backoff_s = FIRST_BACKOFF_S
            if self._closing.is_set() or not await self._restart():
                return

    async def _receive_until_death(self) -> None:
        assert self._process is not None
        receiving = asyncio.create_task(self._receive())
        ending = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait([receiving, ending], return_when=asyncio.FIRST_COMPLETED)
            self._is_ready = False
            if not receiving.done():
                # What it sent last may still be on its way when its end is seen.
                await asyncio.wait([receiving], timeout=_LAST_WORDS_S)
        finally:
            receiving.cancel()
            ending.cancel()
            outcomes = await asyncio.gather(receiving, ending, return_exceptions=True)
            if isinstance(outcomes[0], Exception):
                logger.error("the engine process sent nonsense", exc_info=outcomes[0])

    async def _restart(self) -> bool:
        """Try until the engine is up again; False when closed meanwhile."""
        while not await self._is_closed_within(self._backoff_s):
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)
            self.num_restarts += 1
            try:
                await self._launch()
            except Exception as error:
                logger.warning("restart failed: %s; next in %.1f s", error, self._backoff_s)
                await self._end_process()
            else:
                logger.warning("the engine process is up again")
                return True
        return False

    async def _is_closed_within(self, seconds: float) -> bool:
        """Wait so long, or until `close` is called; True in that case."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
        return self._closing.is_set()

    async def _end_process(self) -> None:
        """Kill the process if it still runs, and forget its socket."""
        if self._process is not None:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGKILL)
            if self._process.stdin is not None:
                self._process.stdin.close()
            await self._process.wait()
            self._process = None
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    # Messages.

    async def _receive(self) -> None:
        assert self._socket is not None
        while True:
            frames = await self._socket.recv_multipart()
            message = wire.decode_from_engine(frames[0])
            if isinstance(message, wire.ChunkHeader):
                self._pass_on(message.request_id, wire.decode_chunk(message, frames[1:]))
            elif isinstance(message, wire.Refused):
                self._pass_on(message.request_id, wire.revive(message.failure))
            elif isinstance(message, wire.Answer):
                call = self._calls.pop(message.call_id, None)
                if call is not None and not call.done():
                    call.set_result(message)

    def _pass_on(self, request_id: str, event: _Event) -> None:
        """To its stream; late chunks of an aborted request have none."""
        if events := self._streams.get(request_id):
            events.put_nowait(event)

    def _fail_in_flight(self) -> None:
        for request_id, events in self._streams.items():
            events.put_nowait(self._last_chunk(request_id))
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.done():
                call.set_exception(EngineDeadError("the engine process ended"))

    def _last_chunk(self, request_id: str) -> AudioChunk:
        rate = self.model_info.sample_rate
        error = EngineDeadError("the engine process ended while the request was in flight")
        return failure_chunk(request_id, rate, str(error), error.code)

    async def _ask(self, what: str) -> wire.Answer:
        if not self._is_ready:
            raise EngineDeadError("the engine is not up")
        call_id = next(self._call_ids)
        call: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = call
        try:
            await self._send(wire.Ask(call_id, what))
            answer = await asyncio.wait_for(call, _ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise EngineDeadError("the engine process does not answer") from None
        finally:
            self._calls.pop(call_id, None)
        if answer.failure is not None:
            raise wire.revive(answer.failure)
        return answer

    async def _send(self, message: wire.ToEngine) -> None:
        """Send if there is a process to take it; its death is noticed elsewhere."""
        if self._socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                await self._socket.send(wire.encode(message), zmq.NOBLOCK)
