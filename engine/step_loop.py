"""`StepLoop`: the one thread in which an `EngineCore` steps, offline and online alike.

Others hand it calls; it hands chunks to the sinks of their requests. While there is no work it
sleeps on its queue. It decides nothing about requests: the core does.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from .core import EngineCore
from .errors import EngineDeadError, describe_error
from .input_processor import ProcessedRequest
from .output import AudioChunk, failure_chunk

logger = logging.getLogger(__name__)

Sink = Callable[[AudioChunk], None]
T = TypeVar("T")


class StepLoop:
    """Runs a core in a thread of its own.

    Args:
        core: used by that thread alone from now on.
    """

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._sinks: dict[str, Sink] = {}
        self._closing = False
        self._lock = threading.Lock()  # no call may be queued after the thread's last look
        self._is_running = True
        self._thread = threading.Thread(target=self._run, name="stretto-step-loop", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """False after `close` or a failure that nothing could be saved from."""
        return self._is_running

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function between two steps.

        Raises:
            EngineDeadError: the loop has ended.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                if not self._is_running:
                    raise EngineDeadError("the engine has ended")
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            if not self._is_running:
                raise EngineDeadError("the engine has ended")
            self._calls.put(run)
        return future

    def submit(
        self, request_id: str, processed: ProcessedRequest, sink: Sink, *, submitted: float
    ) -> Future[None]:
        """Begin a request; its chunks go to `sink`, called in the loop's thread.

        Args:
            request_id: unique among requests in flight.
            processed: what to speak.
            sink: must not block.
            submitted: when its times began to count, on the core's clock.
        """

        def begin() -> None:
            self._core.add_request(request_id, processed, submitted)
            self._sinks[request_id] = sink

        return self.call(begin)

    def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; after the loop's end there is none."""
        with contextlib.suppress(EngineDeadError):
            self.call(lambda: self._core.abort(request_id))

    def close(self) -> None:
        """End all requests with `abort`, and the thread."""

        def begin_closing() -> None:
            self._closing = True

        with contextlib.suppress(EngineDeadError):
            self.call(begin_closing)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._run_calls(wait=not self._core.has_work)
                self._step()
            for request_id in list(self._sinks):
                self._core.abort(request_id)
            self._step()
        except Exception as error:
            logger.exception("the step loop ended")
            self._end_sinks(error)
        finally:
            self._stop()

    def _run_calls(self, *, wait: bool) -> None:
        """Run what others asked for; with `wait`, sleep until there is something."""
        while True:
            try:
                self._calls.get(block=wait)()
            except queue.Empty:
                return
            wait = False

    def _step(self) -> None:
        """One step; if the core's own bookkeeping fails, all requests end.

        It goes on only when nothing leaked by that.
        """
        if not self._core.has_work:
            return
        try:
            chunks = self._core.step()
        except Exception as error:
            logger.exception("a step failed")
            chunks = self._core.fail_all(error)
            self._hand_out(chunks)
            self._core.check_integrity()
        else:
            self._hand_out(chunks)

    def _hand_out(self, chunks: list[AudioChunk]) -> None:
        for chunk in chunks:
            sink = self._sinks[chunk.request_id]
            if chunk.is_last:
                del self._sinks[chunk.request_id]
            try:
                sink(chunk)
            except Exception:
                logger.exception("the reader of request %s failed", chunk.request_id)
                self._core.abort(chunk.request_id)

    def _stop(self) -> None:
        """Answer the calls that are still queued; they find that it is too late."""
        with self._lock:
            self._is_running = False
        self._run_calls(wait=False)

    def _end_sinks(self, error: Exception) -> None:
        """Even when the core is beyond repair, every request gets its terminal chunk."""
        message, code = describe_error(error)
        rate = self._core.executor.vocoder_spec.sample_rate
        sinks, self._sinks = self._sinks, {}
        for request_id, sink in sinks.items():
            sink(failure_chunk(request_id, rate, message, code))
