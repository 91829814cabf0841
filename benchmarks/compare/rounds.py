"""Alternating rounds: each side is a process that waits while the other one works.

Numbers of a shared machine drift by the minute; ratios of runs that take turns do not. This module
knows neither engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

_BOOT = (
    "import importlib, sys, types\n"
    "package = types.ModuleType('sides')\n"
    "package.__path__ = [sys.argv[1]]\n"
    "sys.modules['sides'] = package\n"
    "importlib.import_module('sides.' + sys.argv[2]).main()\n"
)


_RUNTIMES = ("OMP_", "GOMP_", "KMP_")  # prefixes of what OpenMP libraries read


def our_environment(threads: int) -> dict[str, str]:
    """This process's variables, with the default that our command line sets."""
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}
    return passive | {**os.environ, "OMP_NUM_THREADS": str(threads)}


def their_environment(threads: int, changes: Mapping[str, str]) -> dict[str, str]:
    """This process's variables without its OpenMP settings: a peer runs with its own defaults.

    Args:
        threads: compute threads.
        changes: further variables, such as a peer's manual recommends.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_RUNTIMES)}
    return {**kept, "OMP_NUM_THREADS": str(threads), **changes}


class SideError(RuntimeError):
    """A side ended before it answered."""


class Side:
    """A side's process; a context manager that ends it.

    Args:
        name: shown in tables.
        module: of `sides`.
        python: interpreter of its environment.
        options: its first line of input.
        environ: all variables of the process.
    """

    def __init__(
        self,
        name: str,
        module: str,
        python: Path,
        options: dict[str, Any],
        environ: Mapping[str, str],
    ) -> None:
        self.name = name
        self._options = options
        folder = str(Path(__file__).parent / "sides")
        self._process = subprocess.Popen(
            [str(python), "-c", _BOOT, folder, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def load(self) -> dict[str, Any]:
        """Load the engine; what the side says about it."""
        ready = self._ask(self._options)
        about: dict[str, Any] = ready["ready"]
        return about

    def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """Run one case."""
        return self._ask(case)

    def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideError(f"{self.name} ended early; its output says why") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise SideError(f"{self.name} ended early; its output says why")
        result: dict[str, Any] = json.loads(answer)
        return result


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case on both sides.

    Attributes:
        title: shown in the table.
        ours: our side's case.
        theirs: the other's.
        unit: what is made: `audio_s` or `tokens`.
    """

    title: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    unit: str


@dataclass(slots=True)
class Outcome:
    """Medians of a comparison over its rounds; rates are units per second."""

    title: str
    ours: list[dict[str, Any]] = field(default_factory=list)
    theirs: list[dict[str, Any]] = field(default_factory=list)
    unit: str = ""

    def row(self) -> dict[str, Any]:
        """One row of the table. `ratio` above one means ours is faster; so for `cpu_ratio`."""
        ours, theirs = (_rate(side, self.unit, "seconds") for side in (self.ours, self.theirs))
        cpu = [_rate(side, self.unit, "cpu_s") for side in (self.ours, self.theirs)]
        return {
            "case": self.title,
            "unit": self.unit,
            "ours_per_s": ours,
            "theirs_per_s": theirs,
            "ratio": ours / theirs,
            "cpu_ratio": cpu[0] / cpu[1],
            "ours_latency_s": _latency(self.ours),
            "theirs_latency_s": _latency(self.theirs),
            "rounds": len(self.ours),
        }


def _rate(results: Sequence[dict[str, Any]], unit: str, per: str) -> float:
    return float(median(result[unit] / max(result[per], 1e-9) for result in results))


def _latency(results: Sequence[dict[str, Any]]) -> float | None:
    values = [result["mean_latency_s"] for result in results if "mean_latency_s" in result]
    return float(median(values)) if values else None


def compare(
    ours: Side, theirs: Side, comparisons: Sequence[Comparison], rounds: int
) -> list[dict[str, Any]]:
    """Run every comparison: once each unmeasured, then `rounds` rounds that take turns at first."""
    rows = []
    for comparison in comparisons:
        outcome = Outcome(comparison.title, unit=comparison.unit)
        sides = [(ours, comparison.ours, outcome.ours), (theirs, comparison.theirs, outcome.theirs)]
        for number in range(rounds + 1):
            for side, case, results in sides if number % 2 else reversed(sides):
                result = side.run(case)
                if number:
                    results.append(result)
        rows.append(outcome.row())
        print(format_row(rows[-1]), file=sys.stderr)
    return rows


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    latency = ""
    if row["ours_latency_s"] is not None and row["theirs_latency_s"] is not None:
        latency = f"{row['ours_latency_s']:>9.2f}{row['theirs_latency_s']:>9.2f}"
    return (
        f"{row['case']:<28}{row['ours_per_s']:>10.2f}{row['theirs_per_s']:>10.2f}"
        f"{row['ratio']:>8.2f}{row['cpu_ratio']:>8.2f}{latency}"
    )


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table as plain text."""
    units = {"audio_s": "seconds of audio per second", "tokens": "frames (tokens) per second"}
    title = units.get(rows[0]["unit"], rows[0]["unit"]) if rows else ""
    head = f"{'case':<28}{'ours':>10}{'theirs':>10}{'ratio':>8}{'by CPU':>8}"
    if rows and rows[0]["ours_latency_s"] is not None:
        head += f"{'lat. s':>9}{'theirs':>9}"
    return "\n".join([title, head, *(format_row(row) for row in rows)])
