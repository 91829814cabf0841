"""The engine's own benchmarks run on a tiny random checkpoint and report what they say they do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stretto.benchmarks import cli
from stretto.benchmarks.ar_stage import PhaseTimer
from stretto.benchmarks.engine_setup import resolve_model
from stretto.benchmarks.floor import step_bytes
from stretto.benchmarks.gpu_busy import GpuBusy
from stretto.model_executor.models.checkpoint import GPTConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("models")))
        return resolve_model("random-tiny")


def bench(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return cli.run(parser.parse_args(["bench", *argv]))


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text())["rows"]
    assert isinstance(rows, list)
    return rows


def test_a_step_is_the_sum_of_its_phases(model: str, tmp_path: Path) -> None:
    out, platform = tmp_path / "step.json", tmp_path / "platform.json"
    argv = ["--sizes", "1,3", "--contexts", "8,40", "--steps", "5", "--no-warmup"]
    argv += ["--output", str(out), "--platform-out", str(platform)]
    assert bench("step", "--model", model, *argv) == 0
    rows = rows_of(out)
    assert [(row["num_seqs"], row["context"]) for row in rows] == [(1, 8), (3, 8), (1, 40), (3, 40)]
    for row in rows:
        assert row["times_floor"] == pytest.approx(row["step_ms"] / row["floor_ms"])
        assert min(row["model_ms"], row["sample_ms"], row["schedule_ms"]) > 0
        assert row["frames_per_s"] == pytest.approx(1000 * row["num_seqs"] / row["step_ms"])
    simulated = tmp_path / "sim.json"
    argv = ["--platform", str(platform), "--rates", "1", "--num-requests", "3"]
    assert bench("simulate", *argv, "--output", str(tmp_path / "sim")) == 0
    assert json.loads(simulated.read_text())["points"][0]["completed"] == 3


def test_a_timer_adds_up_the_phases_and_waits_at_their_borders() -> None:
    class Watched:
        """An executor whose steps the test runs."""

        def watch_steps(self, on_phase: Callable[[str], None]) -> None:
            self.enter = on_phase

    executor, times = Watched(), iter([1.0, 1.5, 2.5, 10.0, 11.0, 14.0])
    waits: list[None] = []
    timer = PhaseTimer(executor, lambda: waits.append(None), times.__next__)
    for phase in ("model", "sample", "end") * 2:
        executor.enter(phase)
    assert timer.take() == {"model": 0.5 + 1.0, "sample": 1.0 + 3.0}
    assert timer.take() == {"model": 0.0, "sample": 0.0}
    assert len(waits) == 6


def test_the_floor_is_every_byte_once() -> None:
    """ChatTTS: 20 layers of 768, 3072 between, 12 heads of 64, 4 x 626 rows of heads."""
    model = GPTConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=20,
        num_attention_heads=12,
        num_key_value_heads=12,
        head_dim=64,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        num_audio_tokens=626,
        num_text_tokens=21178,
        num_vq=4,
    )
    weights = 20 * (4 * 768 * 768 + 3 * 768 * 3072) + 4 * 626 * 768
    assert step_bytes(model, torch.float32, 1, 0) == 4 * weights
    with_cache = step_bytes(model, torch.bfloat16, 256, 100)
    assert with_cache - 2 * weights == 256 * 100 * 61440


@pytest.mark.parametrize("streamed", [False, True])
def test_vocoder_counts_the_audio_it_makes(model: str, tmp_path: Path, streamed: bool) -> None:
    out = tmp_path / "vocoder.json"
    argv = ["--rows", "1,2", "--frames", "8", "--repeats", "1"]
    argv += ["--streamed"] if streamed else ["--no-warmup"]
    assert bench("vocoder", "--model", model, *argv, "--output", str(out)) == 0
    for row in rows_of(out):
        audio_s = row["rows"] * row["frames"] * 512 / 24000
        assert row["audio_s_per_s"] == pytest.approx(audio_s / (row["ms"] / 1000))


def test_offline_makes_the_frames_it_was_asked_for(model: str, tmp_path: Path) -> None:
    out = tmp_path / "offline.json"
    argv = ["--batch-sizes", "1,3", "--frames", "10", "--rounds", "1", "--no-warmup"]
    assert bench("offline", "--model", model, *argv, "--output", str(out)) == 0
    rows = rows_of(out)
    assert [row["batch_size"] for row in rows] == [1, 3]
    for row in rows:
        assert row["frames"] % 10 == 0
        assert row["frames"] >= 10 * row["batch_size"]


def test_the_engine_by_itself_under_load(model: str, tmp_path: Path) -> None:
    stem = tmp_path / "engine"
    argv = ["--one-by-one", "3", "--at-once", "2", "--request-rate", "20", "--num-requests", "4"]
    argv += ["--frames", "12", "--no-warmup", "--slo", "ttfa_p95_ms=600000"]
    assert bench("engine", "--model", model, *argv, "--output", str(stem)) == 0
    report = json.loads((tmp_path / "engine.json").read_text())
    first, crowd, load = report["one_by_one"], report["at_once"], report["load"]
    ratio = first["first_e2e_ms"] / first["later_e2e_ms"]
    assert first["first_over_later"] == pytest.approx(ratio)
    assert crowd["mean_over_alone"] == pytest.approx(crowd["mean_e2e_ms"] / crowd["alone_e2e_ms"])
    assert (load["completed"], load["failed"]) == (4, 0)
    assert load["request_goodput"] == pytest.approx(load["request_throughput"])
    assert load["gpu_busy_percent"] is None or torch.cuda.is_available()
    assert len((tmp_path / "engine.jsonl").read_text().splitlines()) == 4


def test_busy_is_the_mean_of_the_samples() -> None:
    values = iter([100.0, 50.0, 0.0])
    with GpuBusy(lambda: next(values, None)) as busy:
        busy._thread.join(timeout=60)
    assert busy.percent == 50.0
    with GpuBusy(lambda: None) as idle:
        pass
    assert idle.percent is None


def test_agreement_compares_the_same_work(model: str, tmp_path: Path) -> None:
    """How close they are is for a quiet machine to say; here they must do the same amount."""
    out = tmp_path / "agreement.json"
    argv = ["--num-requests", "4", "--frames", "12", "--request-rate", "4", "--no-warmup"]
    argv += ["--calibration-sizes", "1,2", "--clock", "cpu"]
    assert bench("agreement", "--model", model, *argv, "--output", str(out)) in (0, 1)
    rows = {row["metric"]: row for row in rows_of(out)}
    assert rows["TTFA p50 ms"]["simulated"] > 0
    audio = rows["audio s/s"]["real"] / rows["requests/s"]["real"]
    simulated = rows["audio s/s"]["simulated"] / rows["requests/s"]["simulated"]
    assert audio == pytest.approx(simulated, rel=0.1)


def test_the_scheduler_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("scheduler", "--sizes", "4") == 0
    assert "total us/seq" in capsys.readouterr().out


def test_attention_backends_stand_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "attention.json"
    argv = ["--sizes", "2", "--contexts", "32", "--prefill", "0", "--repeats", "1"]
    argv += ["--backends", "reference,xformers", "--device", "cpu", "--output", str(out)]
    assert bench("attention", *argv) == 0
    (row,) = rows_of(out)
    reference, xformers = row["cells"]
    assert reference["us"] > 0
    assert xformers["us"] is None
    assert xformers["reason"]
