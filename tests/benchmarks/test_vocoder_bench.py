"""The vocoder benchmark runs and counts what it says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from stretto.benchmarks import vocoder_bench

TINY = Path(__file__).parents[1] / "assets" / "chattts_tiny" / "ckpt"


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    vocoder_bench.add_arguments(parser)
    options = ["--model", str(TINY), "--rows", "1,3", "--frames", "4", "--repeats", "5"]
    assert vocoder_bench.run(parser.parse_args([*options, *arguments])) == 0


@pytest.mark.parametrize("kind", ["hidden", "codes"])
def test_streamed_windows_have_the_declared_context(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--streamed", "--input", kind, "--json")
    timings = json.loads(capsys.readouterr().out)
    assert [(t["rows"], t["frames"], t["window_frames"]) for t in timings] == [
        (1, 4, 13 + 4 + 13),
        (3, 4, 13 + 4 + 13),
    ]
    assert timings[1]["audio_s"] == pytest.approx(3 * 4 * 512 / 24_000)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    run("--matmul-dtype", "bfloat16")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["rows", "frames", "window"]
