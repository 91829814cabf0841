"""The engine in a process of its own: an `AsyncSpeechEngine` behind a socket.

Run by `EngineProcessClient` as `python -m stretto.engine.engine_process ADDRESS BUILD`, with the
settings as JSON on standard input, which stays open: its end means that the client is gone, and the
process exits. Signals meant for the whole process group are the client's to handle.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from . import wire
from .async_engine import AsyncSpeechEngine
from .config import EngineConfig
from .core import EngineCore
from .errors import StrettoError

logger = logging.getLogger(__name__)

_EXIT_START_FAILED, _EXIT_ENGINE_DIED = 3, 4
_WATCH_S = 0.5


class EngineProcess:
    """Serves one client over one socket.

    Args:
        engine: started already.
        socket: connected to the client.
    """

    def __init__(self, engine: AsyncSpeechEngine, socket: zmq.asyncio.Socket) -> None:
        self._engine = engine
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> int:
        """Answer messages until told to close or the engine dies; returns the exit code."""
        await self._send([wire.encode(wire.Ready(self._engine.model_info))])
        receiving = asyncio.create_task(self._receive())
        while not receiving.done():
            await asyncio.wait([receiving], timeout=_WATCH_S)
            if not self._engine.is_ready:
                receiving.cancel()
                return _EXIT_ENGINE_DIED
        await self._engine.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return 0

    async def _receive(self) -> None:
        while True:
            message = wire.decode_to_engine(await self._socket.recv())
            if isinstance(message, wire.Close):
                return
            if isinstance(message, wire.Abort):
                await self._engine.abort(message.request_id)
            elif isinstance(message, wire.Submit):
                self._spawn(self._stream(message))
            else:
                self._spawn(self._answer(message))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, message: wire.Submit) -> None:
        request_id = message.request_id
        try:
            async for chunk in self._engine.stream(message.request, request_id=request_id):
                await self._send(wire.encode_chunk(chunk))
        except Exception as error:
            if not isinstance(error, StrettoError):
                logger.exception("request %s failed", request_id)
            await self._send([wire.encode(wire.Refused(request_id, wire.describe(error)))])

    async def _answer(self, ask: wire.Ask) -> None:
        try:
            if ask.what == "stats":
                answer = wire.Answer(ask.call_id, stats=await self._engine.stats())
            else:
                await self._engine.check_integrity()
                answer = wire.Answer(ask.call_id)
        except Exception as error:
            answer = wire.Answer(ask.call_id, failure=wire.describe(error))
        await self._send([wire.encode(answer)])

    async def _send(self, frames: list[wire.Frame]) -> None:
        await self._socket.send_multipart(frames, copy=False)


async def run(address: str, build: Callable[[EngineConfig], EngineCore], settings: bytes) -> int:
    """Load the engine, tell the client, serve; returns the exit code."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.PAIR)
    socket.set_hwm(0)
    socket.connect(address)
    try:
        engine = AsyncSpeechEngine(
            config=msgspec.json.decode(settings, type=EngineConfig), build=build
        )
        try:
            await engine.start()
        except Exception as error:
            logger.exception("the engine did not start")
            await socket.send(wire.encode(wire.StartFailed(wire.describe(error))))
            return _EXIT_START_FAILED
        return await EngineProcess(engine, socket).serve()
    finally:
        socket.close(linger=1000)
        context.term()


def load_build(path: str) -> Callable[[EngineConfig], EngineCore]:
    """The function named `module:function`."""
    module, _, name = path.partition(":")
    build: Callable[[EngineConfig], EngineCore] = getattr(import_module(module), name)
    return build


def exit_with_parent() -> None:
    """End the process when standard input ends, whatever else it is doing."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> int:
    """Entry of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=os.environ.get("STRETTO_LOG_LEVEL", "WARNING"))
    settings = sys.stdin.buffer.readline()
    threading.Thread(target=exit_with_parent, daemon=True).start()
    address, build = sys.argv[1:]
    return asyncio.run(run(address, load_build(build), settings))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that reads standard input cannot be joined
