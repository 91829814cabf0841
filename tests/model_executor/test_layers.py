"""Products, and the scalars of compiled CPU kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stretto.model_executor.layers.cpu_math import compiled, exp32
from stretto.model_executor.layers.functional import rms_norm
from stretto.model_executor.layers.linear import Linear

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("size", [(64, 128), (192, 64), (768, 3072), (2304, 768), (2504, 768)])
def test_a_row_does_not_depend_on_the_others(size: tuple[int, int]) -> None:
    linear = Linear(noise(*size))
    x = noise(65, size[1])
    whole = linear(x)
    for rows in (1, 2, 3, 16, 31, 64):
        assert torch.equal(linear(x[65 - rows :].contiguous()), whole[65 - rows :])
    torch.testing.assert_close(whole, x @ noise(*size).T, atol=1e-3, rtol=1e-4)


def test_the_norm_that_runs_on_cuda_is_that_of_the_cpu() -> None:
    x, weight = noise(5, 64), noise(64)
    wanted = rms_norm(x, weight, 1e-6)
    torch.testing.assert_close(F.rms_norm(x, [64], weight, 1e-6), wanted, atol=1e-6, rtol=1e-5)


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
