"""The compiled CPU kernels against plain torch, in both element types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from stretto.model_executor.layers.cpu_math import compiled, exp32
from stretto.model_executor.layers.functional import rotary_table
from stretto.model_executor.layers.linear import Linear
from stretto.model_executor.layers.ops import CpuOps, TorchOps

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)

DTYPES = (torch.float32, torch.bfloat16)
ROWS = (1, 2, 7)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within float32 noise, or one step of bfloat16."""
    rtol = 2e-6 if got.dtype == torch.float32 else 2**-7
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
def test_norms(dtype: torch.dtype, rows: int) -> None:
    size = 96
    weight, update = noise(size).abs(), noise(rows, size).to(dtype)
    ours, truth = noise(rows, size), noise(rows, size)
    assert_close(
        CpuOps(dtype).rms_norm(ours, weight, 1e-6), TorchOps(dtype).rms_norm(truth, weight, 1e-6)
    )
    got = CpuOps(dtype).add_rms_norm(ours, update, weight, 1e-6)
    wanted = TorchOps(dtype).add_rms_norm(truth, update, weight, 1e-6)
    assert_close(got, wanted)
    assert torch.equal(ours, truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [16, 64])
def test_rotation(dtype: torch.dtype, head_dim: int) -> None:
    angles = rotary_table(5000, head_dim, 10_000.0)[torch.tensor([0, 1, 4095])]
    ours = noise(3, 6, head_dim).to(dtype)
    truth = ours.clone()
    CpuOps(dtype).rotate(ours, 4, angles)
    TorchOps(dtype).rotate(truth, 4, angles)
    assert_close(ours, truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
def test_swiglu(dtype: torch.dtype, rows: int) -> None:
    gate_up = (noise(rows, 2 * 72) * 30).to(dtype)
    assert_close(CpuOps(dtype).silu_and_mul(gate_up), TorchOps(dtype).silu_and_mul(gate_up))


@pytest.mark.parametrize("size", [(64, 128), (192, 64), (768, 3072), (2304, 768), (2504, 768)])
def test_a_row_does_not_depend_on_the_others(size: tuple[int, int]) -> None:
    linear = Linear(noise(*size))
    x = noise(65, size[1])
    whole = linear(x)
    for rows in (1, 2, 3, 16, 31, 64):
        assert torch.equal(linear(x[65 - rows :].contiguous()), whole[65 - rows :])
    torch.testing.assert_close(whole, x @ noise(*size).T, atol=1e-3, rtol=1e-4)


def test_kernels_compile_where_nothing_can_be_cached() -> None:
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return x + x", namespace)  # no file: numba finds no cache folder
    assert compiled()(namespace["double"])(21) == 42


@pytest.mark.parametrize("x", [0.0, -1e-3, -0.7, -10.0, -50.0, -86.9, 3.3])
def test_exponential(x: float) -> None:
    got = float(compiled()(_exp)(np.float32(x)))
    assert got == pytest.approx(math.exp(np.float32(x)), rel=4e-7)


def _exp(x: Any) -> Any:
    return exp32(x)
