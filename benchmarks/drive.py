"""Feed an engine core arrivals on a clock, simulated or real, and record what listeners got.

One driver for both, so that a simulation and a run of the real engine differ in the executor and
the clock alone. Several replicas stand behind a router; each has a clock of its own and is moved up
to every arrival before the router chooses.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from ..engine.core import EngineCore
from ..engine.input_processor import ProcessedRequest
from ..engine.output import AudioChunk
from ..engine.request import Priority, SamplingParams, SpeechRequest
from .playback import ChunkArrival, play
from .record import RequestRecord

Router = Literal["round-robin", "least-loaded"]
ROUTERS: tuple[str, ...] = get_args(Router)


class Clock(Protocol):
    """Seconds that pass by themselves (real) or by work (simulated)."""

    def restart(self) -> None:
        """Count from zero again."""

    def read(self) -> float:
        """The time."""

    def wait_until(self, time: float) -> None:
        """Return at `time` or later."""


class WallClock:
    """Real seconds since it was made."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from zero again."""
        self._origin = time.perf_counter()

    def read(self) -> float:
        """The time."""
        return time.perf_counter() - self._origin

    def wait_until(self, time_s: float) -> None:
        """Sleep until then."""
        time.sleep(max(time_s - self.read(), 0.0))


class CpuClock:
    """Seconds of CPU of this process; waiting takes none and passes at once.

    With one compute thread that is the time a machine with a core to itself would take, whatever
    else runs on this one.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from zero again."""
        self._origin = time.process_time()

    def read(self) -> float:
        """The time."""
        return time.process_time() - self._origin

    def wait_until(self, time_s: float) -> None:
        """Let the time be `time_s`, if it has not come yet."""
        self._origin -= max(time_s - self.read(), 0.0)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the load."""

    index: int
    at_s: float
    text: str
    priority: Priority = "interactive"
    frames: int | None = None  # exactly so many per segment; None leaves it to the model


@dataclass(slots=True)
class _Heard:
    """A request in flight, with the audio its listener has so far."""

    arrival: Arrival
    chunks: list[ChunkArrival] = field(default_factory=list)


class Replica:
    """One engine with its clock.

    Args:
        core: reads the same clock.
        clock: its time.
        static_batch: None for continuous batching. A number holds requests back until the engine
            is idle, then starts so many at once: the batching of engines without a scheduler.
    """

    def __init__(self, core: EngineCore, clock: Clock, static_batch: int | None = None) -> None:
        self.core = core
        self.clock = clock
        self.prepared: Mapping[int, ProcessedRequest] = {}
        self.records: list[RequestRecord] = []
        self._static_batch = static_batch
        self._held: deque[Arrival] = deque()
        self._live: dict[str, _Heard] = {}

    @property
    def load(self) -> int:
        """Requests that are not finished."""
        return len(self._live) + len(self._held)

    def add(self, arrival: Arrival) -> None:
        """Take a request that arrived just now, or while the last step was running."""
        self._held.append(arrival)
        if self._static_batch is None:
            self._start_held(1)

    def run_until(self, time_s: float) -> None:
        """Step until `time_s` or until there is nothing to do; a step may end later."""
        while self.clock.read() < time_s and self._step():
            pass
        if not math.isinf(time_s):
            self.clock.wait_until(time_s)

    def _step(self) -> bool:
        if not self.core.has_work:
            self._start_held(self._static_batch or 1)
        if not self.core.has_work:
            return False
        for chunk in self.core.step():
            self._hear(chunk)
        return True

    def _start_held(self, count: int) -> None:
        for _ in range(min(count, len(self._held))):
            arrival = self._held.popleft()
            request_id = str(arrival.index)
            self._live[request_id] = _Heard(arrival)
            self.core.add_request(request_id, self.prepared[arrival.index], arrival.at_s)

    def _hear(self, chunk: AudioChunk) -> None:
        heard = self._live[chunk.request_id]
        since = self.clock.read() - heard.arrival.at_s
        if len(chunk.audio):
            heard.chunks.append(ChunkArrival(since, len(chunk.audio) / chunk.sample_rate))
        if chunk.is_last:
            del self._live[chunk.request_id]
            self.records.append(_record(heard, chunk, since))


def _prepare(core: EngineCore, arrival: Arrival) -> ProcessedRequest:
    """Text to prompts: the caller's work, done before the clock starts."""
    sampling = SamplingParams(min_new_tokens=arrival.frames, max_new_tokens=arrival.frames)
    request = SpeechRequest(
        text=arrival.text, seed=arrival.index, priority=arrival.priority, sampling=sampling
    )
    return core.processor.process(request)


def _record(heard: _Heard, last: AudioChunk, e2e_s: float) -> RequestRecord:
    failed = last.finish_reason in ("error", "abort")
    start = play(heard.chunks).start_s
    return RequestRecord(
        index=heard.arrival.index,
        text=heard.arrival.text,
        arrival_s=heard.arrival.at_s,
        sent_s=heard.arrival.at_s,
        e2e_s=e2e_s,
        error_kind=str(last.finish_reason) if failed else None,
        error=last.error,
        first_byte_s=start,
        chunks=tuple(heard.chunks),
        audio_s=sum(chunk.audio_s for chunk in heard.chunks),
        ttfa_s=start,
        ttfa_audible_s=start,
    )


def _choose(replicas: Sequence[Replica], router: Router, turn: int) -> Replica:
    if router == "round-robin":
        return replicas[turn % len(replicas)]
    return min(replicas, key=lambda replica: replica.load)


def drive(
    replicas: Sequence[Replica], arrivals: Sequence[Arrival], router: Router = "least-loaded"
) -> tuple[list[RequestRecord], float]:
    """Run a load to its end.

    Args:
        replicas: at least one, of one model; more than one only with simulated clocks.
        arrivals: in order of time.
        router: `round-robin`, or `least-loaded`: the fewest unfinished requests.

    Returns:
        The records in order of arrival, and the seconds until the last of them ended.
    """
    prepared = {arrival.index: _prepare(replicas[0].core, arrival) for arrival in arrivals}
    for replica in replicas:
        replica.prepared = prepared
        replica.clock.restart()
    for turn, arrival in enumerate(arrivals):
        for replica in replicas:
            replica.run_until(arrival.at_s)
        _choose(replicas, router, turn).add(arrival)
    for replica in replicas:
        replica.run_until(math.inf)
    records = [record for replica in replicas for record in replica.records]
    records.sort(key=lambda record: record.index)
    return records, max((r.sent_s + r.e2e_s for r in records), default=0.0)
