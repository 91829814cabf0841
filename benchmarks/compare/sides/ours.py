"""Stretto's side: whole requests for the comparison with ChatTTS, the AR stage for the others."""

from __future__ import annotations

from typing import Any

from stretto.benchmarks.ar_stage import ArStage
from stretto.engine.build import build_core
from stretto.engine.config import EngineConfig
from stretto.engine.offline import SpeechEngine
from stretto.engine.request import SamplingParams, SpeechRequest

from .protocol import Case, RunCase, serve


def _config(options: dict[str, Any]) -> EngineConfig:
    return EngineConfig(
        model=options["model"],
        dtype=options["dtype"],
        device="cpu",
        num_threads=options["threads"],
        max_num_seqs=options["max_num_seqs"],
    )


def load_speech(options: dict[str, Any]) -> RunCase:
    """Requests through the offline engine; the batcher decides how they share steps."""
    engine = SpeechEngine(config=_config(options))

    def run(case: Case) -> dict[str, Any]:
        sampling = SamplingParams(min_new_tokens=case["frames"], max_new_tokens=case["frames"])
        requests = [
            SpeechRequest(
                text=text,
                seed=seed,
                sampling=sampling,
                normalize=False,
                priority=case["priority"],
            )
            for seed, text in enumerate(case["texts"])
        ]
        results = engine.generate(requests)
        return {
            "audio_s": sum(result.duration_s for result in results),
            "mean_latency_s": sum(r.metrics.total_s for r in results) / len(results),
        }

    return run


def load_ar(options: dict[str, Any]) -> RunCase:
    """Frames by the scheduler and the executor, without text and vocoder."""
    executor = build_core(_config(options)).executor
    stage = ArStage(executor, max_num_seqs=options["max_num_seqs"])

    def run(case: Case) -> dict[str, Any]:
        with stage.sequences(case["n"], case["prompt"], case["frames"]):
            steps = sum(1 for _ in stage.steps())
        return {"tokens": case["n"] * case["frames"], "steps": steps}

    return run


def load(options: dict[str, Any]) -> tuple[RunCase, dict[str, Any]]:
    """The side for `kind` speech or ar."""
    import torch

    run = load_speech(options) if options["kind"] == "speech" else load_ar(options)
    return run, {"torch": torch.__version__, "dtype": options["dtype"]}


def main() -> None:
    """Serve."""
    serve(load)
