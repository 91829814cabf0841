"""Steps and vocoder batches in flight: launched, collected in order, errors and all.

An executor that queues work (`WorkQueue`) is a step ahead of its answers; any other is called and
answers at once. `EngineCore` is written once, for both. This module does not know what the work is
about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..model_executor.interfaces import Executor, FloatArray, Pending, WorkQueue
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch

J = TypeVar("J")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """Work that is done already; a `Pending`."""

    result: T
    is_done: bool = True

    def wait(self) -> T:
        """The result."""
        return self.result


class DirectQueue:
    """A `WorkQueue` over an executor that has none: launching is doing."""

    depth = 0
    max_batches = 1

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def launch_model(self, output: SchedulerOutput) -> Pending[ModelRunnerOutput]:
        """See `WorkQueue`."""
        return Done(self._executor.execute_model(output))

    def launch_vocoder(self, batch: VocoderBatch) -> Pending[list[FloatArray]]:
        """See `WorkQueue`."""
        return Done(self._executor.execute_vocoder(batch))


def queue_of(executor: Executor) -> WorkQueue:
    """The executor's own queue, or a direct one."""
    queue: WorkQueue | None = getattr(executor, "work_queue", None)
    return DirectQueue(executor) if queue is None else queue


class InFlight(Generic[J, T]):
    """Jobs of one kind in flight, oldest first.

    Args:
        launch: queues a job.
    """

    def __init__(self, launch: Callable[[J], Pending[T]]) -> None:
        self._launch = launch
        self._jobs: deque[tuple[J, Pending[T]]] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def is_oldest_done(self) -> bool:
        """True when `collect` would return at once; False when nothing is in flight."""
        return bool(self._jobs) and self._jobs[0][1].is_done

    def launch(self, job: J) -> None:
        """Queue a job; its errors may raise here, and then it is not in flight."""
        self._jobs.append((job, self._launch(job)))

    def collect(self) -> tuple[J, T | Exception]:
        """Wait for the oldest job: its result, or the error that it failed with."""
        job, pending = self._jobs.popleft()
        try:
            return job, pending.wait()
        except Exception as error:
            return job, error
