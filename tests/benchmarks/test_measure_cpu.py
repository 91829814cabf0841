"""RESULTS.md can be regenerated: the script prints its commands, and they are commands."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stretto.benchmarks import cli
from stretto.benchmarks.compare.__main__ import build_parser

ROOT = Path(__file__).parents[2]


def dry_run(out: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "benchmarks" / "measure_cpu.sh"
    environ = {**os.environ, "DRY": "1", "PYTHON": sys.executable}
    command = ["bash", str(script), str(out), *parts]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def parse(argv: list[str]) -> None:
    """Exits when an option is unknown."""
    if argv[:2] == ["stretto", "bench"]:
        parser = argparse.ArgumentParser()
        cli.add_parser(parser.add_subparsers())
        parser.parse_args(argv[1:])
    elif argv[:3] == ["python", "-m", "stretto.benchmarks.compare"]:
        build_parser().parse_args(argv[3:])
    else:
        assert argv[:2] == ["stretto", "serve"], argv


def test_every_command_parses_and_has_its_section(tmp_path: Path) -> None:
    done = dry_run(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    commands = [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]
    sections = [line[3:].partition(":")[0] for line in lines if line.startswith("## ")]
    assert len(commands) > 15
    for argv in commands:
        parse(argv)
    known = {"AR stage on CPU", "Scheduler", "Vocoder on CPU", "Server", "Comparisons", "Simulator"}
    assert known <= set(sections)


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "nonsense")
    assert done.returncode == 2
    assert "no part nonsense" in done.stderr


def test_an_unknown_option_would_be_found() -> None:
    with pytest.raises(SystemExit):
        parse(["stretto", "bench", "step", "--no-such-option"])
