"""Noise that depends on (seed, step, codebook) alone, whatever else is in the batch.

A counter-based generator has no state to share, so requests cannot disturb each other, and a
replayed step draws the same number again. `chattts_race` is upstream's own seeding, kept apart
because it draws a whole matrix and reuses it at every step. Numbers are made on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

UintArray = npt.NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ROUNDS = 10


def philox(counter: Sequence[UintArray], key: Sequence[UintArray]) -> tuple[UintArray, ...]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        counter: four broadcastable arrays of 32-bit values in uint64.
        key: two of the same.

    Returns:
        Four arrays of 32-bit values in uint64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def uniform(
    seeds: UintArray, steps: npt.NDArray[np.int64], num_codebooks: int
) -> npt.NDArray[np.float32]:
    """Uniform numbers strictly between 0 and 1.

    Args:
        seeds: uint64 [S].
        steps: int64 [S]; index of the frame that is drawn.
        num_codebooks: numbers for each.

    Returns:
        float32 [S, num_codebooks], multiples of 2^-24 shifted by half of one.
    """
    books = np.arange(num_codebooks, dtype=np.uint64)[None]
    zero = np.zeros((1, 1), dtype=np.uint64)
    counter = (steps.astype(np.uint64)[:, None], books, zero, zero)
    key = (seeds[:, None] & _LOW, seeds[:, None] >> _HALF)
    bits = philox(counter, key)[0] >> np.uint64(9)
    return ((bits.astype(np.float64) + 0.5) * 2.0**-23).astype(np.float32)


def chattts_race(seed: int, num_codebooks: int, vocab_size: int) -> torch.Tensor:
    """Exponential numbers that upstream's `manual_seed` draws, anew and equal, at every step.

    The draw is argmax(probability / number), as torch's CPU multinomial does it.

    Returns:
        float32 [num_codebooks, vocab_size] on the host.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(num_codebooks, vocab_size).exponential_(generator=generator)
