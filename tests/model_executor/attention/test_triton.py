"""The Triton kernels against the reference, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stretto.model_executor.attention.reference import ReferenceAttention
from stretto.model_executor.attention.selector import KVCacheShape
from tests.model_executor.attention.cases import CASES, Case

pytest.importorskip("triton")

from stretto.model_executor.attention import triton_paged
from stretto.model_executor.attention.triton_paged import TritonAttention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter computes with numpy, which has no bfloat16.
HALVES = [torch.float16] if DEVICE == "cpu" else [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def short_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several splits at lengths that the interpreter gets through quickly."""
    monkeypatch.setattr(triton_paged, "SPLIT", 32)


def reference(shape: KVCacheShape) -> ReferenceAttention:
    return ReferenceAttention(
        num_layers=shape.num_layers,
        num_blocks=shape.num_blocks,
        block_size=shape.block_size,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        dtype=shape.dtype,
        device=shape.device,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_reference(case: Case) -> None:
    shape = case.shape(device=DEVICE)
    triton, truth = TritonAttention(shape), reference(shape)
    out = case.run(triton, device=DEVICE)
    torch.testing.assert_close(out, case.run(truth, device=DEVICE), atol=2e-6, rtol=2e-5)
    slots = case.metadata().slot_mapping
    assert torch.equal(triton.keys[1, slots], truth.keys[1, slots])
    assert torch.equal(triton.values[1, slots], truth.values[1, slots])
    assert not triton.keys[0].any(), "wrote to another layer"


@pytest.mark.parametrize("name", ["decode, many splits", "mixed", "grouped queries"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    shape = case.shape(dtype, DEVICE)
    out = case.run(TritonAttention(shape), dtype, DEVICE)
    truth = case.run(reference(shape), dtype, DEVICE)
    torch.testing.assert_close(out, truth, atol=4e-3, rtol=2e-2)


@pytest.mark.parametrize("name", ["decode, many splits", "grouped decode"])
def test_splits_in_one_program_or_in_several_give_the_same_bits(name: str) -> None:
    case = CASES[name]
    shape = case.shape(device=DEVICE)
    several, one = TritonAttention(shape), TritonAttention(shape)
    several._num_wanted, one._num_wanted = 10**6, 0
    torch.testing.assert_close(
        case.run(several, device=DEVICE), case.run(one, device=DEVICE), atol=0, rtol=0
    )


def test_a_sequence_does_not_feel_its_neighbours() -> None:
    """The same bits alone, in a batch, and when prefilled instead of decoded."""
    batch = Case([(40, 1), (0, 18), (12, 1)])
    alone = Case([(40, 1)])
    replay = Case([(35, 6)])
    together = batch.shape(device=DEVICE)
    query, key, value = alone.inputs(41, 5)

    def attend(case: Case, shape: KVCacheShape, row: int) -> torch.Tensor:
        backend = TritonAttention(shape)
        old, new = case.sequences[row]
        tables = case.block_tables()[row]
        positions = torch.arange(old)
        size = case.block_size
        slots = tables[positions // size].long() * size + positions % size
        backend.keys[1, slots] = key[:old].to(DEVICE)
        backend.values[1, slots] = value[:old].to(DEVICE)
        metadata = case.metadata(device=DEVICE)
        start = int(metadata.query_start_loc[row])
        new_query, new_key, new_value = case.inputs(case.num_new, 6)
        for target, source in ((new_query, query), (new_key, key), (new_value, value)):
            target[start : start + new] = source[old : old + new]
        on_device = (new_query.to(DEVICE), new_key.to(DEVICE), new_value.to(DEVICE))
        out = backend.forward(1, *on_device, metadata)
        return out[start + new - 1]

    first = attend(batch, together, 0)
    assert torch.equal(first, attend(alone, alone.shape(device=DEVICE), 0))
    assert torch.equal(first, attend(replay, replay.shape(device=DEVICE), 0))


def test_padding_rows_write_nothing_and_are_zero() -> None:
    """A captured graph runs at its bucket's size: rows of length 0, slots of -1."""
    case = Case([(20, 1), (0, 1), (0, 1)])
    shape = case.shape(device=DEVICE)
    backend = TritonAttention(shape)
    metadata = case.metadata(device=DEVICE)
    metadata.slot_mapping[1:] = -1
    metadata.seq_lens[1:] = 0
    query, key, value = case.inputs(3, 0, device=DEVICE)
    out = backend.forward(0, query, key, value, metadata)
    assert int(backend.keys[0].abs().sum(-1).sum(-1).count_nonzero()) == 1
    assert not out[1:].any()
    assert out[0].any()


def test_unknown_head_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="head_dim"):
        TritonAttention(Case([(0, 1)], head_dim=24).shape())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_compile_for_cuda(tmp_path: Path) -> None:
    """Ampere, Hopper: what the interpreter forgives, the compiler may not."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(script), "90:bf16", "80:fp32"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("bytes") == 8
