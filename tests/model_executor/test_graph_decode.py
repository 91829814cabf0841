"""Decode steps at bucket sizes draw what steps at their own size draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from stretto.model_executor.attention.interface import AttentionBackend, AttentionMetadata
from stretto.model_executor.frame_store import FrameStore
from stretto.model_executor.model_runner import ModelRunner
from tests.model_executor.tiny import BLOCK_SIZE, CPU, Case, Driver, attention, model

NUM_BLOCKS = 24


class PaddedReference:
    """The reference for steps with padding rows: it takes them out and puts zeros back."""

    def __init__(self, backend: AttentionBackend) -> None:
        self._backend = backend

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        real = metadata.slot_mapping >= 0
        if real.all():
            return self._backend.forward(layer, query, key, value, metadata)
        assert metadata.max_query_len == 1
        assert not metadata.seq_lens[~real].any()
        kept = replace(
            metadata,
            query_start_loc=torch.arange(int(real.sum()) + 1, dtype=torch.int32),
            seq_lens=metadata.seq_lens[real],
            block_tables=metadata.block_tables[real],
            slot_mapping=metadata.slot_mapping[real],
        )
        out = torch.zeros_like(query)
        if real.any():
            out[real] = self._backend.forward(layer, query[real], key[real], value[real], kept)
        return out


def drive(buckets: Sequence[int]) -> tuple[dict[str, list[list[int]]], int]:
    """Three sequences of different lengths, the last joining later: codes, graphs captured."""
    driver = Driver(num_blocks=NUM_BLOCKS, backend="reference")
    speech = model()
    runner = driver.runner = ModelRunner(
        speech,
        PaddedReference(attention("reference", NUM_BLOCKS)),
        FrameStore(speech.spec.num_codebooks, speech.spec.hidden_size, CPU),
        block_size=BLOCK_SIZE,
        graph_buckets=buckets,
    )
    case = Case("batch")
    names = [f"s{i}" for i in range(3)]
    for name, prompt in zip(names[:2], case.prompts, strict=False):
        driver.add(name, prompt, case.sampling)
    for _ in range(3):
        driver.step()
    driver.add(names[2], case.prompts[2 % len(case.prompts)], case.sampling)
    for _ in range(8):
        driver.step()
    return driver.codes(names), runner._graphs.num_captured


def test_padded_steps_draw_the_same() -> None:
    plain, captured = drive(())
    assert captured == 0
    padded, captured = drive((1, 4, 8))
    assert captured == 1
    assert padded == plain
    assert [len(codes) for codes in plain.values()] == [11, 11, 8]


def test_larger_batches_than_the_largest_bucket_run_as_they_are() -> None:
    plain, _ = drive(())
    padded, captured = drive((2,))
    assert captured == 1
    assert padded == plain
