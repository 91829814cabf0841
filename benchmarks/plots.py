"""PNG plots of a run and of a sweep. Needs matplotlib (`pip install "stretto[bench]"`).

One figure per question: how TTFA is distributed, how full the players' buffers were, how many
requests were in flight, and how TTFA and underruns grow with the rate. No numbers are computed
here that `metrics` does not report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .metrics import concurrency
from .playback import buffer_levels
from .record import RequestRecord

_MAX_BUFFER_LINES = 40


class MissingPlotLibraryError(RuntimeError):
    """matplotlib is not installed."""


def _figure(draw: Callable[[Any], None], path: Path) -> Path:
    """Draw on fresh axes and save; no display and no global state of pyplot is touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPlotLibraryError(
            'plots need matplotlib: pip install "stretto[bench]", or leave --plot away'
        ) from error
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _ttfa(records: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for title, name in (("first sample", "ttfa_s"), ("first audible", "ttfa_audible_s")):
            values = [getattr(r, name) for r in records if r.ok and getattr(r, name) is not None]
            times = np.sort(np.array(values)) * 1000
            if times.size:
                axes.step(times, np.arange(1, times.size + 1) / times.size, label=title)
        axes.set(xlabel="time to first audio, ms", ylabel="share of requests", ylim=(0, 1.02))
        axes.legend(*axes.get_legend_handles_labels())

    return draw


def _buffers(records: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        done = [record for record in records if record.ok]
        for record in done[:: max(len(done) // _MAX_BUFFER_LINES, 1)]:
            corners = buffer_levels(record.chunks)
            axes.plot([t for t, _ in corners], [level for _, level in corners], lw=0.8, alpha=0.6)
        axes.set(xlabel="seconds since the request was sent", ylabel="unplayed audio, s")

    return draw


def _in_flight(records: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        steps = concurrency(records)
        axes.step([t for t, _ in steps], [n for _, n in steps], where="post")
        axes.set(xlabel="seconds since the run began", ylabel="requests in flight")

    return draw


def plot_run(records: Sequence[RequestRecord], stem: Path) -> list[Path]:
    """TTFA distribution, playback buffers and concurrency of one run.

    Raises:
        MissingPlotLibraryError: matplotlib is not installed.
    """
    drawings = {"ttfa": _ttfa, "buffers": _buffers, "concurrency": _in_flight}
    return [
        _figure(drawing(records), stem.with_name(f"{stem.name}_{name}.png"))
        for name, drawing in drawings.items()
    ]


def plot_sweep(
    reports: Sequence[Mapping[str, Any]], stem: Path, *, over: str = "request_rate"
) -> Path:
    """TTFA (left axis) and share of streams that ran dry (right axis) against load.

    Raises:
        MissingPlotLibraryError: matplotlib is not installed.
    """

    def draw(axes: Any) -> None:
        loads = [report[over] for report in reports]
        for stat in ("p50", "p95", "p99"):
            values = [report[f"{stat}_audio_ttfp_ms"] for report in reports]
            axes.plot(loads, [np.nan if v is None else v for v in values], "o-", label=stat)
        axes.set(xlabel=over.replace("_", " "), ylabel="TTFA, ms", yscale="log")
        axes.legend()
        right = axes.twinx()
        rates = [report["underrun_rate"] for report in reports]
        right.plot(loads, [np.nan if v is None else 100 * v for v in rates], "k--", lw=1)
        right.set(ylabel="streams that ran dry, % (dashed)", ylim=(0, None))

    return _figure(draw, stem.with_name(f"{stem.name}_sweep.png"))
