"""Result files and the summary a person reads.

`<name>.json` holds the numbers, `<name>.jsonl` every request with its chunk timeline. Both are
plain data; plots are made from them elsewhere.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from .record import RequestRecord


def environment() -> dict[str, Any]:
    """Machine, versions and commit, for every result file."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {_cpu_name()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> str | None:
    """The commit of the checkout this runs from; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return None
    return done.stdout.strip() or None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write one result, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def record_line(record: RequestRecord) -> dict[str, Any]:
    """One request as JSON; `chunks` is a list of [arrival seconds, audio seconds]."""
    data = asdict(record)
    data["chunks"] = [[round(c.at_s, 6), round(c.audio_s, 6)] for c in record.chunks]
    return {**data, "ok": record.ok, "rtf": record.rtf}


def write_jsonl(path: Path, records: Sequence[RequestRecord]) -> None:
    """Write every request, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record_line(record), ensure_ascii=False) + "\n")


def _number(value: Any, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _row(report: Mapping[str, Any], title: str, name: str, unit: str, digits: int = 1) -> str:
    suffix = f"{name}_{unit}" if unit else name
    cells = [report.get(f"{stat}_{suffix}") for stat in ("mean", "p50", "p90", "p95", "p99", "max")]
    return f"{title:<28}" + "".join(f"{_number(cell, digits):>10}" for cell in cells)


def summary(report: Mapping[str, Any]) -> str:
    """The numbers of one run as a table of plain text."""
    header = "".join(f"{stat:>10}" for stat in ("mean", "p50", "p90", "p95", "p99", "max"))
    lines = [
        f"requests          {report['completed']} completed, {report['failed']} failed"
        f" in {report['duration']:.1f} s; at most {report['max_concurrent_requests']} at once",
        f"throughput        {report['request_throughput']:.2f} requests/s,"
        f" {report['audio_throughput']:.2f} s of audio per second",
        f"{'':<28}{header}",
        _row(report, "TTFA ms", "audio_ttfp", "ms"),
        _row(report, "TTFA audible ms", "audio_ttfa_audible", "ms"),
        _row(report, "gap between chunks ms", "inter_chunk", "ms"),
        _row(report, "end to end ms", "e2el", "ms"),
        _row(report, "RTF", "audio_rtf", "", 3),
        _row(report, "audio s", "audio_duration", "s", 2),
        *_playback_lines(report),
        *_fault_lines(report),
    ]
    return "\n".join(lines)


def _playback_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for tag in ("0ms", "100ms", "300ms"):
        rate = report[f"underrun_rate_prebuffer_{tag}"]
        share = "-" if rate is None else f"{100 * rate:.2f} %"
        lines.append(
            f"pre-buffer {tag:<6} {share} of streams ran dry, "
            f"{report[f'underruns_prebuffer_{tag}']} underruns, "
            f"{report[f'stall_s_prebuffer_{tag}']:.2f} s of stalls"
        )
    return lines


def _fault_lines(report: Mapping[str, Any]) -> list[str]:
    kinds = report["errors_by_kind"]
    lines = []
    if kinds:
        lines.append("errors            " + ", ".join(f"{k}: {n}" for k, n in kinds.items()))
    suspects = ("truncated", "silent", "too_short", "too_long")
    found = [f"{report[f'{k}_audio']} {k}" for k in suspects if report[f"{k}_audio"]]
    if found:
        lines.append("suspect audio     " + ", ".join(found))
    if report["request_goodput"] is not None:
        broken = report["slo_violations"]
        verdict = "SLO met" if not broken else "SLO broken: " + "; ".join(broken)
        lines.append(f"goodput           {report['request_goodput']:.2f} requests/s, {verdict}")
    if report.get("client_is_bottleneck"):
        lines.append(
            f"WARNING: this client was too busy (CPU {report['client_cpu_fraction']:.0%}, event "
            f"loop {report['client_loop_lag_p99_ms']:.0f} ms late): do not trust these latencies"
        )
    return lines
