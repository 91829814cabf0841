"""When requests arrive: the schedules of the load harness and of the simulator.

A schedule is drawn before the run from a seeded generator, so that two runs of one seed offer the
same load and nothing of the client's own speed leaks into it. This module knows no clock and sends
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np

Arrival = Literal["poisson", "constant", "burst", "gamma"]
RampStrategy = Literal["linear", "exponential"]
ARRIVALS: tuple[str, ...] = get_args(Arrival)
RAMPS: tuple[str, ...] = get_args(RampStrategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A rate that moves from `start` to `end` requests/s over the run, then stays."""

    strategy: RampStrategy
    start: float
    end: float

    def rate_at(self, progress: float) -> float:
        """Requests/s when `progress` (0 to 1) of the run has passed."""
        progress = min(max(progress, 0.0), 1.0)
        if self.strategy == "linear":
            return self.start + (self.end - self.start) * progress
        return self.start * math.pow(self.end / self.start, progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalConfig:
    """How requests arrive.

    Attributes:
        rate: requests/s; infinite means all at once (with a concurrency cap: a closed loop).
        pattern: `poisson`, `constant`, `gamma` (shape `burstiness`; below 1 is burstier than
            Poisson, above 1 more regular), or `burst`: groups of `burst_size` at one instant.
        burstiness: shape of the gamma gaps.
        burst_size: requests in a burst.
        ramp: replaces `rate` by one that moves.
    """

    rate: float = math.inf
    pattern: Arrival = "poisson"
    burstiness: float = 1.0
    burst_size: int = 8
    ramp: Ramp | None = None

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ValueError(f"request rate must be above 0 or inf, got {self.rate}")
        if not self.burstiness > 0:
            raise ValueError(f"burstiness must be above 0, got {self.burstiness}")
        if self.burst_size < 1:
            raise ValueError(f"burst size must be 1 or more, got {self.burst_size}")
        if self.ramp is not None and not (self.ramp.start > 0 and self.ramp.end > 0):
            raise ValueError("a ramp needs a start and an end above 0")


def _unit_gaps(config: ArrivalConfig, rng: np.random.Generator) -> Iterator[float]:
    """Gaps of mean 1 between arrivals, without end."""
    while True:
        if config.pattern == "constant":
            yield 1.0
        elif config.pattern == "burst":
            yield float(config.burst_size)
            yield from (0.0 for _ in range(config.burst_size - 1))
        else:
            shape = 1.0 if config.pattern == "poisson" else config.burstiness
            yield float(rng.gamma(shape, 1.0 / shape))


def _times(
    config: ArrivalConfig, rng: np.random.Generator, num_requests: int | None, span_s: float
) -> Iterator[float]:
    now = 0.0
    for sent, gap in enumerate(_unit_gaps(config, rng)):
        rate = config.rate
        if config.ramp is not None:
            progress = sent / num_requests if num_requests else now / span_s
            rate = config.ramp.rate_at(progress)
        now += gap / rate
        yield now


def arrival_times(
    config: ArrivalConfig,
    *,
    seed: int,
    num_requests: int | None = None,
    duration_s: float | None = None,
) -> list[float]:
    """Draw the arrivals of one run: ascending seconds from its start.

    Args:
        config: the process.
        seed: of the draw.
        num_requests: how many; together with `duration_s`, whichever ends first.
        duration_s: the span arrivals fall into.

    Raises:
        ValueError: neither limit is given, or an infinite rate has no `num_requests`.
    """
    if num_requests is None and duration_s is None:
        raise ValueError("give a number of requests or a duration")
    if math.isinf(config.rate) and config.ramp is None:
        if num_requests is None:
            raise ValueError("an infinite rate needs a number of requests")
        return [0.0] * num_requests
    times = _times(config, np.random.default_rng(seed), num_requests, duration_s or math.inf)
    drawn: list[float] = []
    for time in islice(times, num_requests):
        if duration_s is not None and time > duration_s:
            break
        drawn.append(time)
    return drawn
