"""A request draws the same frames, bit for bit, alone and in any company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stretto.model_executor.interfaces import Prompt, ResolvedSampling
from tests.model_executor.tiny import Case, Driver, speaker

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)

NUM_REQUESTS = 64


def mixed_requests() -> list[tuple[Prompt, ResolvedSampling]]:
    """64 requests that differ in length, voice, kind, sampling, seed and seed mode."""
    rng = np.random.default_rng(0)
    zero_shot = Case("zs").prompts
    refine = Case("refine")
    made: list[tuple[Prompt, ResolvedSampling]] = []
    for index in range(NUM_REQUESTS):
        sampling = ResolvedSampling(
            temperature=tuple(float(t) for t in rng.uniform(0.2, 1.5, 4)),
            top_p=float(rng.uniform(0.3, 1.0)),
            top_k=int(rng.integers(1, 700)),
            repetition_penalty=float(rng.choice([1.0, 1.05, 1.3])),
            min_new_tokens=int(rng.integers(0, 6)),
            max_new_tokens=int(rng.integers(3, 28)),
            seed=int(rng.integers(0, 2**62)),
            seed_mode="chattts" if index % 5 == 0 else "independent",
        )
        if index % 8 == 3:
            made.append((zero_shot[index % 3], sampling))
        elif index % 8 == 5:
            made.append((refine.prompts[index % 3], replace(sampling, temperature=(0.7,))))
        else:
            made.append((_spoken(rng, voice=index % 3), sampling))
    return made


def _spoken(rng: np.random.Generator, voice: int) -> Prompt:
    ids = rng.integers(0, 300, rng.integers(4, 40)).astype(np.int32)
    vector = speaker() if voice == 1 else rng.normal(size=64).astype(np.float32)
    where = 1 if voice else None
    return Prompt(token_ids=ids, speaker=vector if voice else None, speaker_position=where)


def draws(driver: Driver, names: list[str]) -> dict[str, tuple[list[list[int]], bytes]]:
    return {name: (driver.codes([name])[name], driver.hidden(name).tobytes()) for name in names}


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple[list[list[int]], bytes]]:
    found: dict[str, tuple[list[list[int]], bytes]] = {}
    for index, (prompt, sampling) in enumerate(mixed_requests()):
        driver = Driver()
        driver.add(str(index), prompt, sampling)
        driver.run()
        found |= draws(driver, [str(index)])
    return found


@pytest.mark.parametrize(
    ("max_batched", "num_blocks", "threads"),
    [(2048, 2048, 1), (2048, 2048, 2), (67, 2048, 1), (2048, 90, 1)],
    ids=["together", "two threads", "chunked", "preempted"],
)
def test_same_draws_in_a_batch(
    alone: dict[str, tuple[list[list[int]], bytes]],
    max_batched: int,
    num_blocks: int,
    threads: int,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        driver = Driver(max_batched=max_batched, num_blocks=num_blocks)
        requests = mixed_requests()
        for index, (prompt, sampling) in enumerate(requests):
            driver.add(str(index), prompt, sampling)
            if index % 16 == 7:
                driver.step()
        driver.run()
    finally:
        torch.set_num_threads(before)
    assert (driver.scheduler.num_preemptions > 0) == (num_blocks == 90)
    together = draws(driver, list(alone))
    different = [name for name in alone if alone[name] != together[name]]
    assert not different


def test_the_requests_do_differ(alone: dict[str, tuple[list[list[int]], bytes]]) -> None:
    assert len({str(codes) for codes, _ in alone.values()}) > NUM_REQUESTS * 0.9
    assert sum(len(codes) for codes, _ in alone.values()) > 500
