"""From records of requests to the numbers of a run.

Key names are those of `vllm bench serve` and of vLLM-Omni's speech backend wherever they have one
(`completed`, `request_throughput`, `p99_e2el_ms`, `mean_audio_ttfp_ms`, ...), so their tools read
our files; what they lack (audible TTFA, stalls by pre-buffer, goodput with underruns) has names of
the same pattern. Percentiles are over completed requests; failures are counted, never averaged in.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .playback import play
from .record import RequestRecord
from .slo import Slo

PREBUFFERS_S = (0.0, 0.1, 0.3)
PERCENTILES = (50, 90, 95, 99)
CONTINUITY_OK_S = 0.1
"""vLLM-Omni counts a stream as continuous when it stalls for no longer than this in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plausibility:
    """Seconds of audio per character of text outside of which a request is suspect.

    A Chinese character counts as three. Clean but early ends show only here.
    """

    min_s_per_char: float = 0.02
    max_s_per_char: float = 0.5
    slack_s: float = 1.0

    def verdict(self, text: str, audio_s: float) -> str | None:
        """`too_short`, `too_long`, or None when the length is plausible."""
        chars = sum(3 if "\u4e00" <= char <= "\u9fff" else 1 for char in text if char.isalnum())
        if audio_s < chars * self.min_s_per_char:
            return "too_short"
        if audio_s > chars * self.max_s_per_char + self.slack_s:
            return "too_long"
        return None


def statistics(name: str, values: Iterable[float], unit: str = "ms") -> dict[str, float | None]:
    """mean, median, std, max and percentiles of `values` (seconds; `ms` keys hold milliseconds)."""
    scale = 1000.0 if unit == "ms" else 1.0
    suffix = f"{name}_{unit}" if unit else name
    array = np.array(list(values), dtype=np.float64) * scale
    keys = ["mean", "median", "std", "max", *(f"p{p}" for p in PERCENTILES)]
    if array.size == 0:
        return {f"{key}_{suffix}": None for key in keys}
    numbers = [array.mean(), np.median(array), array.std(), array.max()]
    numbers += list(np.percentile(array, PERCENTILES))
    return {f"{key}_{suffix}": float(v) for key, v in zip(keys, numbers, strict=True)}


def inter_chunk_gaps(record: RequestRecord) -> list[float]:
    """Seconds between successive pieces of audio."""
    times = [chunk.at_s for chunk in record.chunks]
    return [b - a for a, b in itertools.pairwise(times)]


def _playback(done: Sequence[RequestRecord]) -> dict[str, Any]:
    """Underruns and stalls for each pre-buffer."""
    report: dict[str, Any] = {}
    for prebuffer_s in PREBUFFERS_S:
        plays = [play(record.chunks, prebuffer_s=prebuffer_s) for record in done]
        tag = f"prebuffer_{round(prebuffer_s * 1000)}ms"
        stalled = sum(one.underruns > 0 for one in plays)
        report[f"underruns_{tag}"] = sum(one.underruns for one in plays)
        report[f"underrun_rate_{tag}"] = stalled / len(plays) if plays else None
        report[f"stall_s_{tag}"] = sum(one.stall_s for one in plays)
        report |= statistics(f"stall_{tag}", (one.stall_s for one in plays), "s")
    stalls = [play(record.chunks).stall_s for record in done]
    report |= statistics("audio_underrun", stalls, "s")
    continuous = sum(stall <= CONTINUITY_OK_S for stall in stalls)
    report["audio_continuity_ok_rate"] = continuous / len(stalls) if stalls else None
    report["underrun_rate"] = report["underrun_rate_prebuffer_0ms"]
    return report


def error_kind(record: RequestRecord) -> str | None:
    """What ended a request that was not completed; None when it was."""
    if record.ok:
        return None
    if record.error_kind is not None:
        return record.error_kind
    return "truncated" if record.truncated else "no_audio"


def _faults(records: Sequence[RequestRecord], plausibility: Plausibility) -> dict[str, Any]:
    kinds = Counter(kind for kind in map(error_kind, records) if kind is not None)
    verdicts = Counter(plausibility.verdict(r.text, r.audio_s) for r in records if r.ok)
    return {
        "errors_by_kind": dict(sorted(kinds.items())),
        "error_rate": sum(kinds.values()) / len(records) if records else None,
        "truncated_audio": sum(record.truncated for record in records),
        "silent_audio": sum(record.silent for record in records),
        "too_short_audio": verdicts["too_short"],
        "too_long_audio": verdicts["too_long"],
    }


def peak_concurrency(records: Sequence[RequestRecord]) -> int:
    """The most requests in flight at one time."""
    return max((level for _, level in concurrency(records)), default=0)


def concurrency(records: Sequence[RequestRecord]) -> list[tuple[float, int]]:
    """Requests in flight over time, as steps (time, requests from then on)."""
    edges = [(record.sent_s, 1) for record in records]
    edges += [(record.sent_s + record.e2e_s, -1) for record in records]
    level, steps = 0, []
    for time, change in sorted(edges):
        level += change
        steps.append((time, level))
    return steps


def _latencies(done: Sequence[RequestRecord]) -> dict[str, Any]:
    ttfa = [record.ttfa_s for record in done if record.ttfa_s is not None]
    heard = [r.ttfa_audible_s for r in done if r.ttfa_audible_s is not None]
    first_byte = [record.first_byte_s for record in done if record.first_byte_s is not None]
    return {
        **statistics("ttft", first_byte),
        **statistics("audio_ttfp", ttfa),
        **statistics("audio_ttfa_audible", heard),
        **statistics("inter_chunk", (gap for r in done for gap in inter_chunk_gaps(r))),
        **statistics("e2el", (record.e2e_s for record in done)),
        **statistics("audio_rtf", (r.rtf for r in done if r.rtf is not None), ""),
        **statistics("audio_duration", (record.audio_s for record in done), "s"),
        **statistics("client_delay", (max(r.sent_s - r.arrival_s, 0.0) for r in done)),
    }


def summarize(
    records: Sequence[RequestRecord],
    duration_s: float,
    *,
    slo: Slo | None = None,
    plausibility: Plausibility | None = None,
) -> dict[str, Any]:
    """The numbers of one run.

    Args:
        records: every request sent.
        duration_s: from the first arrival's zero to the last end.
        slo: for `request_goodput` and `slo_met`.
        plausibility: of the audio's length.
    """
    done = [record for record in records if record.ok]
    audio_s = sum(record.audio_s for record in done)
    span = max(duration_s, 1e-9)
    report: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(done),
        "failed": len(records) - len(done),
        "total_input": sum(len(record.text) for record in records),
        "total_audio_s": audio_s,
        "request_throughput": len(done) / span,
        "audio_throughput": audio_s / span,
        "rtfx": audio_s / span,
        "max_concurrent_requests": peak_concurrency(records),
        **_faults(records, plausibility or Plausibility()),
        **_latencies(done),
        **_playback(done),
    }
    good = None if slo is None else sum(slo.is_good(record) for record in done)
    report["request_goodput"] = None if good is None else good / span
    report["good_requests"] = good
    violations = None if slo is None else slo.violations(report)
    report["slo_violations"] = violations
    report["slo_met"] = None if violations is None else not violations
    return report
