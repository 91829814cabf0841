"""`Admission`: which requests are taken on, judged by the present load.

A bounded number may wait beyond those that run; and a request whose first audio would predictably
come after its deadline is refused at once, because late speech costs the same and helps nobody.
Predictions come from what recent requests took. Time is passed in; nothing here sleeps or queues,
the engine's scheduler does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from ..engine.errors import OverloadedError

_WEIGHT = 0.2  # of the newest request in the running means


@dataclass(slots=True)
class _Mean:
    """A running mean that forgets exponentially."""

    value: float = 0.0
    seen: bool = False

    def add(self, sample: float) -> None:
        """Take one more sample into account."""
        self.value = self.value + _WEIGHT * (sample - self.value) if self.seen else sample
        self.seen = True


class Admission:
    """Counts requests in flight and refuses those that would wait too long.

    Args:
        max_running: requests the engine runs at once.
        max_waiting: requests that may wait beyond those.
        clock: seconds, monotonic.
    """

    def __init__(
        self, max_running: int, max_waiting: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._clock = clock
        self._service = _Mean()  # seconds one request occupied its place
        self._first_audio = _Mean()  # seconds to first audio of requests that did not wait
        self.in_flight = 0

    def predicted_wait_s(self) -> float:
        """Seconds a request that came now would wait for a place."""
        ahead = self.in_flight - self._max_running + 1
        return max(0, ahead) * self._service.value / self._max_running

    def retry_after_s(self) -> float:
        """Seconds until a place in the queue should be free."""
        return max(1.0, self._service.value / self._max_running)

    @contextmanager
    def admit(self, deadline_s: float | None) -> Iterator[Ticket]:
        """Hold a place for the time of the block.

        Raises:
            OverloadedError: the queue is full, or first audio is predicted after `deadline_s`.
        """
        if self.in_flight >= self._max_running + self._max_waiting:
            raise OverloadedError(
                f"{self.in_flight} requests are in flight and the queue is full",
                retry_after_s=self.retry_after_s(),
            )
        expected = self.predicted_wait_s() + self._first_audio.value
        if deadline_s is not None and expected > deadline_s:
            raise OverloadedError(
                f"first audio would take about {expected:.1f} s, longer than {deadline_s:g} s",
                retry_after_s=expected - deadline_s,
            )
        ticket = Ticket(self, self._clock(), waits=self.in_flight >= self._max_running)
        self.in_flight += 1
        try:
            yield ticket
        finally:
            self.in_flight -= 1

    def record_first_audio(self, seconds: float) -> None:
        """Learn how long first audio takes without waiting."""
        self._first_audio.add(seconds)

    def record_service(self, seconds: float) -> None:
        """Learn how long a request occupies its place."""
        self._service.add(seconds)

    def now(self) -> float:
        """The clock's time."""
        return self._clock()


class Ticket:
    """One admitted request's place; tells the admission how the request fared."""

    def __init__(self, admission: Admission, admitted_at: float, *, waits: bool) -> None:
        self._admission = admission
        self._admitted_at = admitted_at
        self._waits = waits
        self._first_at: float | None = None

    def first_audio(self) -> None:
        """The first audio has come; later calls change nothing."""
        if self._first_at is None:
            self._first_at = self._admission.now()
            if not self._waits:
                self._admission.record_first_audio(self._first_at - self._admitted_at)

    def finished(self) -> None:
        """The request has run to its end."""
        now = self._admission.now()
        start = self._admitted_at if not self._waits or self._first_at is None else self._first_at
        self._admission.record_service(now - start)
