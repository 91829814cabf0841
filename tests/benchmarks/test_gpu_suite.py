"""The GPU suite in its dry run: every command it would give on a GPU, at tiny sizes on CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_suite.sh"
PARTS = "weights step offline engine attention vocoder"
TABLES = ("step", "offline", "attention", "vocoder_whole", "vocoder_streamed")


def run(tmp_path: Path, parts: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """With random weights of its own, in `tmp_path`."""
    settings = {"DEVICE": "cpu", "PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **settings, **variables}
    command = ["bash", str(SCRIPT), str(tmp_path / "out"), *parts.split()]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_answers(tmp_path: Path) -> None:
    done = run(tmp_path, PARTS)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    for name in TABLES:
        assert json.loads((out / f"{name}.json").read_text())["rows"], name
    steps = json.loads((out / "step.json").read_text())["rows"]
    assert all(row["times_floor"] > 0 for row in steps)
    engine = json.loads((out / "engine.json").read_text())
    assert engine["one_by_one"]["first_over_later"] > 0
    assert engine["at_once"]["mean_over_alone"] > 0
    assert engine["load"]["completed"] == 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_server_part_asks_a_server(tmp_path: Path) -> None:
    """Random weights may end a speech before it began, so requests without audio are no error."""
    done = run(tmp_path, "serve")
    assert (tmp_path / "out" / "server.txt").exists(), done.stdout + done.stderr
    for name, count in (("serve_ten", 4), ("serve_one", 2)):
        report = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert report["completed"] + report["failed"] == count, name
        assert set(report["errors_by_kind"]) <= {"no_audio"}, name


def test_a_part_without_time_is_left_out_and_the_rest_is_kept(tmp_path: Path) -> None:
    done = run(tmp_path, "weights step", BUDGET="0")
    assert done.returncode == 1
    assert "weights: left out" in done.stdout
    assert "step: left out" in done.stdout
    assert (tmp_path / "out" / "machine.txt").read_text().startswith("torch")


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "nonsense")
    assert done.returncode == 2
    assert "no part nonsense" in done.stderr
