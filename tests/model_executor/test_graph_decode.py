"""Decode steps at bucket sizes draw what steps at their own size draw."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("triton")

from stretto.model_executor.frame_store import FrameStore
from stretto.model_executor.model_runner import ModelRunner
from tests.model_executor.tiny import BLOCK_SIZE, CPU, Case, Driver, attention, model

NUM_BLOCKS = 24


def drive(buckets: Sequence[int]) -> tuple[dict[str, list[list[int]]], int]:
    """Three sequences of different lengths, the second joining later: codes, graphs captured."""
    driver = Driver(num_blocks=NUM_BLOCKS, backend="reference")
    speech = model()
    runner = driver.runner = ModelRunner(
        speech,
        attention("triton", NUM_BLOCKS),
        FrameStore(speech.spec.num_codebooks, speech.spec.hidden_size, CPU),
        block_size=BLOCK_SIZE,
        graph_buckets=buckets,
    )
    case = Case("batch")
    names = [f"s{i}" for i in range(len(case.prompts))][:3]
    for name, prompt in zip(names[:2], case.prompts, strict=False):
        driver.add(name, prompt, case.sampling)
    for _ in range(2):
        driver.step()
    for name, prompt in list(zip(names, case.prompts, strict=False))[2:]:
        driver.add(name, prompt, case.sampling)
    for _ in range(5):
        driver.step()
    return driver.codes(names), runner._graphs.num_captured


def test_padded_steps_draw_the_same() -> None:
    plain, captured = drive(())
    assert captured == 0
    padded, captured = drive((4, 8))
    assert captured == 1
    assert padded == plain
    assert all(len(codes) > 2 for codes in plain.values())
