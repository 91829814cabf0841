"""The compiled CPU backend against the reference, and its promise of equal bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stretto.model_executor.attention.selector import create_attention
from tests.model_executor.attention.cases import CASES, Case

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_the_reference(case: Case, dtype: torch.dtype, threads: int) -> None:
    got = case.run(create_attention("cpu_paged", case.shape(dtype)), dtype)
    wanted = case.run(create_attention("reference", case.shape(dtype)), dtype)
    tolerance = 3e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)


def test_a_prompt_gives_the_same_bits_in_any_chunks(threads: int) -> None:
    length = 45
    whole = Case([(0, length)])
    query, key, value = whole.inputs(length, 2)
    backend = create_attention("cpu_paged", whole.shape())
    at_once = backend.forward(0, query, key, value, whole.metadata())
    for chunk in (1, 7, 16):
        rows = []
        for first in range(0, length, chunk):
            now = slice(first, min(first + chunk, length))
            part = whole.metadata([(first, now.stop - first)])
            rows.append(backend.forward(1, query[now], key[now], value[now], part))
        assert torch.equal(torch.cat(rows), at_once)


def test_large_scores_do_not_overflow(threads: int) -> None:
    case = Case([(0, 20)])
    query, key, value = (tensor * 40 for tensor in case.inputs(20, 2))
    got = create_attention("cpu_paged", case.shape()).forward(0, query, key, value, case.metadata())
    reference = create_attention("reference", case.shape())
    wanted = reference.forward(0, query, key, value, case.metadata())
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-4)


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        create_attention("cpu_paged", CASES["decode"].shape(torch.float16))
