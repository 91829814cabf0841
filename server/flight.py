"""`Flight`: one synthesis and all who listen to it.

Equal requests that arrive together share a flight. Each listener has its own queue, so a slow
reader delays nobody; what all queues hold together is bounded by a `BufferBudget`, and the reader
that would exceed it is let go with an error. When the last listener leaves, or the source falls
silent, the synthesis is cancelled. Admission and the engine are the caller's: a flight only pumps
chunks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from ..engine.output import AudioChunk
from .errors import ApiError

_JOIN_BYTES = 3 << 20  # of samples already made, up to which a newcomer may join and catch up


class BufferBudget:
    """Bytes of samples that may wait for readers, all together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used = 0

    def take(self, num_bytes: int) -> bool:
        """Reserve; False when that would exceed the budget."""
        if self.used + num_bytes > self._max_bytes:
            return False
        self.used += num_bytes
        return True

    def give(self, num_bytes: int) -> None:
        """Return what was reserved."""
        self.used -= num_bytes


class Listener:
    """One reader's queue of chunks; iterate it once."""

    def __init__(self, budget: BufferBudget) -> None:
        self._budget = budget
        self._chunks: deque[AudioChunk] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    def push(self, chunk: AudioChunk) -> None:
        """Queue a chunk, or end in an error when the budget is spent."""
        if self._ended:
            return
        if self._budget.take(chunk.audio.nbytes):
            self._chunks.append(chunk)
            self._ended = chunk.is_last
            self._arrived.set()
        else:
            message = "the client reads too slowly and too much audio waits for readers"
            self.fail(ApiError(503, message, code="slow_reader"))

    def fail(self, error: BaseException) -> None:
        """End in an error, after what is queued."""
        if not self._ended:
            self._error, self._ended = error, True
            self._arrived.set()

    def close(self) -> None:
        """Stop taking chunks and return what they held of the budget."""
        self._ended = True
        while self._chunks:
            self._budget.give(self._chunks.popleft().audio.nbytes)

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        while True:
            while not self._chunks:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            chunk = self._chunks.popleft()
            self._budget.give(chunk.audio.nbytes)
            yield chunk


class Flight:
    """A synthesis under way.

    Args:
        source: makes the stream of chunks; called once, in the flight's own task.
        budget: bounds what the listeners hold.
        stall_s: seconds without a chunk after which it fails.
        keep_bytes: history kept beyond what newcomers may need (for the result cache).
        on_end: called once with the flight when it is over, however it ended.
    """

    def __init__(
        self,
        source: Callable[[], AsyncGenerator[AudioChunk, None]],
        budget: BufferBudget,
        stall_s: float,
        keep_bytes: int,
        on_end: Callable[[Flight], None],
    ) -> None:
        self._source = source
        self._budget = budget
        self._stall_s = stall_s
        self._silent = False
        self._keep_bytes = keep_bytes
        self._on_end = on_end
        self._listeners: set[Listener] = set()
        self._history: list[AudioChunk] | None = []
        self._history_bytes = 0
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self.task = asyncio.create_task(self._pump())

    @property
    def is_joinable(self) -> bool:
        """Whether a newcomer would still hear everything from the start."""
        return not self._over and self._history is not None and self._history_bytes <= _JOIN_BYTES

    @property
    def finished_chunks(self) -> list[AudioChunk] | None:
        """All chunks, if it ended well and they were kept."""
        history = self._history
        if history and history[-1].finish_reason in ("stop", "length"):
            return history
        return None

    def join(self) -> Listener:
        """A new listener that hears everything from the start; call only when joinable."""
        listener = Listener(self._budget)
        for chunk in self._history or ():
            listener.push(chunk)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Stop listening; the last to leave cancels the synthesis."""
        listener.close()
        self._listeners.discard(listener)
        if not self._listeners and not self._over:
            self.task.cancel()
            self._end()  # here too: a task cancelled before its first step runs no `finally`

    async def _pump(self) -> None:
        self._look_later()
        try:
            async with aclosing(self._source()) as source:
                async for chunk in source:
                    self._heard_at = self._loop.time()
                    self._remember(chunk)
                    for listener in self._listeners:
                        listener.push(chunk)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._fail(ApiError(500, "the engine ended early", code="internal_error"))
        finally:
            self._alarm.cancel()
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._on_end(self)

    def _watch(self) -> None:
        """Cancel the task when it has been silent; `asyncio.wait_for` may swallow a cancellation.

        One timer that looks again, because a new one for every chunk costs more than the rest.
        """
        if self._loop.time() < self._heard_at + self._stall_s:
            self._look_later()
        else:
            self._silent = True
            self.task.cancel()

    def _look_later(self) -> None:
        self._alarm = self._loop.call_at(self._heard_at + self._stall_s, self._watch)

    def _fail(self, error: BaseException) -> None:
        if self._silent:
            message = f"the engine made no audio for {self._stall_s:g} s"
            error = ApiError(504, message, code="engine_stalled")
        elif isinstance(error, asyncio.CancelledError):
            error = ApiError(503, "the server is shutting down", code="shutting_down")
        for listener in self._listeners:
            listener.fail(error)

    def _remember(self, chunk: AudioChunk) -> None:
        if self._history is None:
            return
        self._history.append(chunk)
        self._history_bytes += chunk.audio.nbytes
        if self._history_bytes > max(_JOIN_BYTES, self._keep_bytes):
            self._history = None
