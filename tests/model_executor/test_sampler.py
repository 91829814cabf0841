"""The sampler against a plain restatement of upstream's order, and its noise."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stretto.model_executor.cpu_sampler import CpuSampler
from stretto.model_executor.noise import chattts_race, philox, uniform
from stretto.model_executor.sampler import PENALTY_WINDOW, Sampler, SamplingTensors

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)

SIZE, END = 20, 19
Array = npt.NDArray[Any]


def tensors(
    rows: int = 1,
    *,
    columns: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = SIZE,
    penalty: float = 1.0,
    ban_eos: bool = False,
    history: list[int] | None = None,
    uniform_at: float = 0.5,
    race: torch.Tensor | None = None,
) -> SamplingTensors:
    window = torch.full((rows, PENALTY_WINDOW, columns), SIZE)
    for at, code in enumerate(history or []):
        window[:, at % PENALTY_WINDOW] = code
    return SamplingTensors(
        temperature=torch.full((rows, columns), temperature),
        top_p=torch.full((rows,), top_p),
        top_k=torch.full((rows,), top_k),
        repetition_penalty=torch.full((rows,), penalty),
        ban_eos=torch.full((rows,), ban_eos),
        window=window,
        uniform=torch.full((rows, columns), uniform_at),
        race=race,
        uses_race=torch.full((rows,), race is not None),
    )


def plain(
    logits: Array,
    *,
    temperature: float,
    top_p: float,
    top_k: int,
    penalty: float,
    history: list[int],
) -> Array:
    """Upstream's order for one row, one code at a time."""
    row = logits.astype(np.float64) / temperature
    for code in set(history):
        alpha = penalty ** history.count(code)
        row[code] = row[code] * alpha if row[code] < 0 else row[code] / alpha
    probs = np.exp(row - row.max())
    probs /= probs.sum()
    order = np.argsort(row, kind="stable")
    mass = 0.0
    for place, code in enumerate(order):
        mass += probs[code]
        if mass <= 1 - top_p and place < len(row) - 3:
            row[code] = -np.inf
    kth = np.sort(row)[-max(top_k, 3)]
    row[row < kth] = -np.inf
    probs = np.exp(row - row.max())
    return np.asarray(probs / probs.sum())


@pytest.mark.parametrize("top_k", [1, 3, 7, SIZE])
@pytest.mark.parametrize("top_p", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.05, 2.0])
def test_probabilities(top_k: int, top_p: float, penalty: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 1, SIZE, generator=generator) * 3
    history = [4, 4, 7, 0, 4]
    given = tensors(5, temperature=0.6, top_p=top_p, top_k=top_k, penalty=penalty, history=history)
    probs = Sampler(END).probabilities(logits, given)
    for row in range(5):
        wanted = plain(
            logits[row, 0].numpy(),
            temperature=0.6,
            top_p=top_p,
            top_k=top_k,
            penalty=penalty,
            history=history,
        )
        np.testing.assert_allclose(probs[row, 0].numpy(), wanted, atol=1e-6)


def test_at_least_three_are_kept() -> None:
    logits = torch.arange(SIZE).float().reshape(1, 1, SIZE) * 5
    probs = Sampler(END).probabilities(logits, tensors(top_p=0.01, top_k=1))
    assert (probs > 0).sum() == 3


@pytest.mark.parametrize("create", [Sampler, CpuSampler])
def test_the_end_can_be_banned(create: type[Sampler]) -> None:
    logits = torch.zeros(1, 1, SIZE)
    logits[..., END] = 50
    sampler = create(END)
    assert sampler(logits, tensors()).item() == END
    assert sampler(logits, tensors(ban_eos=True)).item() != END


def test_a_draw_never_leaves_what_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 1, SIZE, generator=generator)
    for at in (2.0**-24, 0.5, 1 - 2.0**-24):
        given = tensors(200, top_p=0.5, top_k=4, uniform_at=at)
        sampler = Sampler(END)
        kept = sampler.probabilities(logits, given).gather(-1, sampler(logits, given)[..., None])
        assert bool((kept > 0).all())


def test_draws_follow_the_probabilities() -> None:
    rows = 20_000
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).reshape(1, 1, 4).expand(rows, 1, 4)
    given = tensors(rows, top_k=4)
    noise = uniform(np.arange(rows, dtype=np.uint64), np.zeros(rows, np.int64), 1)
    object.__setattr__(given, "uniform", torch.from_numpy(noise))
    object.__setattr__(given, "window", torch.full((rows, PENALTY_WINDOW, 1), 4))
    counts = torch.bincount(Sampler(3)(logits, given).flatten(), minlength=4) / rows
    np.testing.assert_allclose(counts.numpy(), [0.5, 0.3, 0.15, 0.05], atol=0.015)


def test_upstreams_seed_draws_like_torch_multinomial() -> None:
    logits = torch.randn(1, 4, SIZE, generator=torch.Generator().manual_seed(1))
    given = tensors(columns=4, race=chattts_race(42, 4, SIZE)[None])
    codes = Sampler(END)(logits, given)
    generator = torch.Generator().manual_seed(42)
    wanted = torch.multinomial(logits[0].softmax(-1), 1, generator=generator)[:, 0]
    assert codes[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("top_k", [1, 20, 64, 626])
@pytest.mark.parametrize("top_p", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("raced", [False, True])
def test_the_compiled_sampler_draws_the_same(top_k: int, top_p: float, raced: bool) -> None:
    rows, columns, size = 150, 4, 626
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(rows, columns, size, generator=generator) * 4
    noise = uniform(np.arange(rows, dtype=np.uint64), np.zeros(rows, np.int64), columns)
    window = torch.randint(0, size + 1, (rows, PENALTY_WINDOW, columns), generator=generator)
    given = SamplingTensors(
        temperature=torch.rand(rows, columns, generator=generator) + 0.3,
        top_p=torch.full((rows,), top_p),
        top_k=torch.full((rows,), top_k),
        repetition_penalty=torch.rand(rows, generator=generator) + 1,
        ban_eos=torch.arange(rows) % 2 == 0,
        window=window,
        uniform=torch.from_numpy(noise),
        race=chattts_race(7, columns, size).repeat(rows, 1, 1) if raced else None,
        uses_race=torch.arange(rows) % 3 == 0 if raced else torch.zeros(rows, dtype=torch.bool),
    )
    got, wanted = CpuSampler(size - 1)(logits, given), Sampler(size - 1)(logits, given)
    assert (got == wanted).float().mean() > 0.995  # a draw may fall on a rounded border
    alone = [_row(given, row) for row in range(0, rows, 29)]
    for row, tensors_of_row in zip(range(0, rows, 29), alone, strict=True):
        assert torch.equal(CpuSampler(size - 1)(logits[row : row + 1], tensors_of_row)[0], got[row])


def _row(given: SamplingTensors, row: int) -> SamplingTensors:
    parts: dict[str, Any] = {}
    for field in fields(given):
        part = getattr(given, field.name)
        parts[field.name] = None if part is None else part[row : row + 1]
    return SamplingTensors(**parts)


def test_philox_known_answers() -> None:
    """The vectors published with Random123."""

    def words(*values: int) -> list[Array]:
        return [np.array([value], dtype=np.uint64) for value in values]

    zero = philox(words(0, 0, 0, 0), words(0, 0))
    assert [int(word[0]) for word in zero] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = philox(words(*[0xFFFFFFFF] * 4), words(0xFFFFFFFF, 0xFFFFFFFF))
    assert [int(word[0]) for word in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_noise_depends_on_seed_step_and_codebook_alone() -> None:
    seeds = np.array([1, 2**40, 2**62 + 5], dtype=np.uint64)
    steps = np.array([0, 7, 1000])
    together = uniform(seeds, steps, 4)
    for row in range(3):
        assert (uniform(seeds[row : row + 1], steps[row : row + 1], 4) == together[row]).all()
    assert len(set(together.flatten().tolist())) == 12
    assert together.min() > 0
    assert together.max() < 1
