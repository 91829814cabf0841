"""The vocoder beside the speech model on a CPU: one thread of its own, batches in order.

A small speech model runs on one core (see `executor`), so the vocoder takes another instead of
standing between two steps. Steps are done where they are launched. Frames are copied out of the
frame store before a batch goes to the thread, so the two stages share no tensor. All that touches
the vocoder's states runs on that thread, in the order in which it was asked for. A small batch with
a stream's beginning may be waited for (`vocoder_wait`). This module decides no order: the engine
launches and collects.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch

from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from .interfaces import FloatArray
from .vocoder_runner import VocoderRunner
from .vocoder_wait import is_waited_for


@dataclass(frozen=True, slots=True)
class AnsweredStep:
    """A step that is done; see `Pending`."""

    output: ModelRunnerOutput
    is_done: bool = True

    def wait(self) -> ModelRunnerOutput:
        """The step's answer."""
        return self.output


@dataclass(frozen=True, slots=True, eq=False)
class ThreadedAudio:
    """A vocoder batch on the thread; see `Pending`."""

    future: Future[list[FloatArray]]

    @property
    def is_done(self) -> bool:
        """True when `wait` would return at once."""
        return self.future.done()

    def wait(self) -> list[FloatArray]:
        """Waveforms [samples], in the order of the jobs."""
        return self.future.result()


class ThreadQueue:
    """Implements `WorkQueue` for CPU.

    Args:
        execute_model: runs a step.
        gather: copies the windows of a batch's jobs out of the frame store.
        vocoder: used by the thread alone from now on.
    """

    depth = 0
    max_batches = 1  # a step is short beside a batch, so the thread does not wait long

    def __init__(
        self,
        execute_model: Callable[[SchedulerOutput], ModelRunnerOutput],
        gather: Callable[[VocoderBatch], list[torch.Tensor]],
        vocoder: VocoderRunner,
    ) -> None:
        self._execute_model, self._gather = execute_model, gather
        self._vocoder = vocoder
        self._num_seqs = 0  # of the last step
        # OpenMP's number of threads is each thread's own, torch's default is the process's: a
        # number of the vocoder's own would become that of every thread that starts later.
        same_threads = (torch.get_num_threads(),)
        self._thread = ThreadPoolExecutor(
            1, "stretto-vocoder", initializer=torch.set_num_threads, initargs=same_threads
        )

    def launch_model(self, output: SchedulerOutput) -> AnsweredStep:
        """See `WorkQueue`."""
        self._num_seqs = len(output.scheduled)
        return AnsweredStep(self._execute_model(output))

    def launch_vocoder(self, batch: VocoderBatch) -> ThreadedAudio:
        """See `WorkQueue`; what is waited for is done on return, or has failed."""
        windows = self._gather(batch)
        future = self._thread.submit(self._vocoder.decode, windows, batch.jobs)
        if is_waited_for(batch, self._num_seqs):
            wait([future])
        return ThreadedAudio(future)

    def warmup(self) -> None:
        """See `VocoderRunner.warmup`."""
        self._thread.submit(self._vocoder.warmup).result()

    def forget(self, seq_id: str) -> None:
        """Drop a sequence's state after the batches that were launched before."""
        self._thread.submit(self._vocoder.forget, seq_id)

    @property
    def num_streams(self) -> int:
        """Sequences with a state, once all that was launched is done."""
        return self._thread.submit(lambda: self._vocoder.num_streams).result()

    def close(self) -> None:
        """End the thread, after the batch that it is at."""
        self._thread.shutdown(cancel_futures=True)
