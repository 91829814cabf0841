"""Service-level objectives: what a run must keep, underruns included.

`--slo ttfa_p95_ms=300,underrun_rate=0.01` is read once into an `Slo`. Each limit holds for a run as
a whole; for goodput the same limits are put to each request by itself (a p95 of 300 ms asks 300 ms
of every request that is to count, an underrun rate asks for none).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .playback import play
from .record import RequestRecord

_KEYS = {
    "ttfa": "audio_ttfp",
    "ttfa_audible": "audio_ttfa_audible",
    "e2e": "e2el",
    "gap": "inter_chunk",
    "rtf": "audio_rtf",
    "stall": "audio_underrun",
}
_UNITS = {"ttfa": "ms", "ttfa_audible": "ms", "e2e": "ms", "gap": "ms", "rtf": "", "stall": "s"}
_RATES = {"underrun_rate": "underrun_rate", "error_rate": "error_rate"}
_LIMIT = re.compile(r"(?P<metric>[a-z_]+?)_(?P<stat>mean|max|p50|p90|p95|p99)(_(?P<unit>ms|s))?")


@dataclass(frozen=True, slots=True)
class Limit:
    """One objective: `report[key]` must not exceed `value`.

    Attributes:
        name: as the user wrote it.
        key: of the run's report.
        metric: what it bounds in one request (`ttfa`, `underrun_rate`, ...).
        value: in the report's unit.
    """

    name: str
    key: str
    metric: str
    value: float

    def holds_for(self, record: RequestRecord) -> bool:
        """Whether one request by itself keeps the limit."""
        measured = _measure(self.metric, record)
        return measured is not None and measured <= self.value


def _measure(metric: str, record: RequestRecord) -> float | None:
    if metric == "ttfa":
        return None if record.ttfa_s is None else record.ttfa_s * 1000
    if metric == "ttfa_audible":
        return None if record.ttfa_audible_s is None else record.ttfa_audible_s * 1000
    if metric == "e2e":
        return record.e2e_s * 1000
    if metric == "rtf":
        return record.rtf
    if metric == "gap":
        times = [chunk.at_s for chunk in record.chunks]
        return 1000 * max((b - a for a, b in itertools.pairwise(times)), default=0.0)
    if metric == "stall":
        return play(record.chunks).stall_s
    if metric == "underrun_rate":
        return float(play(record.chunks).underruns > 0)
    return 0.0 if record.ok else 1.0


def _parse_limit(item: str) -> Limit:
    name, separator, value = (part.strip() for part in item.partition("="))
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"SLO {item!r} is not of the form metric=number") from None
    if not separator or not number >= 0:
        raise ValueError(f"SLO {item!r} needs a number of 0 or more")
    if name in _RATES:
        return Limit(name, _RATES[name], name, number)
    match = _LIMIT.fullmatch(name)
    if match is None or match["metric"] not in _KEYS:
        known = ", ".join([*_KEYS, *_RATES])
        raise ValueError(f"unknown SLO {name!r}: metrics are {known}, as in ttfa_p95_ms=300")
    metric, unit = match["metric"], _UNITS[match["metric"]]
    if (match["unit"] or "") != unit:
        raise ValueError(f"SLO {name!r} must end in {'_' + unit if unit else 'no unit'}")
    suffix = f"_{unit}" if unit else ""
    return Limit(name, f"{match['stat']}_{_KEYS[metric]}{suffix}", metric, number)


@dataclass(frozen=True, slots=True)
class Slo:
    """The limits of a run. A failed request never counts as good."""

    limits: tuple[Limit, ...]

    @classmethod
    def parse(cls, text: str) -> Slo:
        """Read `metric_stat_unit=number,...`.

        Raises:
            ValueError: an entry is malformed or names no known metric.
        """
        items = [item for item in text.split(",") if item.strip()]
        if not items:
            raise ValueError("the SLO is empty")
        return cls(tuple(_parse_limit(item) for item in items))

    def is_good(self, record: RequestRecord) -> bool:
        """Whether one request was completed within every limit."""
        return record.ok and all(limit.holds_for(record) for limit in self.limits)

    def violations(self, report: Mapping[str, Any]) -> list[str]:
        """The limits a run's report breaks, in words; a missing number breaks its limit."""
        broken = []
        for limit in self.limits:
            measured = report.get(limit.key)
            if measured is None or measured > limit.value:
                shown = "not measured" if measured is None else f"{measured:.4g}"
                broken.append(f"{limit.name}: {shown} > {limit.value:g}")
        return broken
