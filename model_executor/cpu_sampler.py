"""`CpuSampler`: the sampler's order compiled for the CPU, one row at a time.

Sorting whole vocabularies takes longer than the heads' product at 64 sequences; this keeps the few
best codes in one pass. Same draws as `sampler.Sampler` but for rounding in the last bit; equal
logits at the top-K border are the one difference (the lower id is kept).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit

from .layers.cpu_math import FAST, compiled, exp32
from .sampler import MIN_KEPT, Sampler, SamplingTensors

_F32, _ONE = np.float32(0), np.float32(1)
_NO_RACE = np.zeros((0, 0, 0), dtype=np.float32)


class CpuSampler(Sampler):
    """See `Sampler`."""

    def __call__(self, logits: torch.Tensor, tensors: SamplingTensors) -> torch.Tensor:
        """See `Sampler`."""
        codes = torch.empty(logits.shape[:2], dtype=torch.int64)
        _draw_rows(
            logits.contiguous().numpy(),
            tensors.temperature.contiguous().numpy(),
            tensors.top_p.numpy(),
            tensors.top_k.numpy(),
            tensors.repetition_penalty.numpy(),
            tensors.ban_eos.numpy(),
            tensors.window.contiguous().numpy(),
            tensors.uniform.contiguous().numpy(),
            _NO_RACE if tensors.race is None else tensors.race.contiguous().numpy(),
            tensors.uses_race.numpy(),
            self._eos_id,
            codes.numpy(),
        )
        return codes


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _scale(row: Any, logits: Any, temperature: Any) -> Any:
    for i in range(len(row)):
        row[i] = logits[i] / temperature


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _penalize(row: Any, window: Any, penalty: Any) -> Any:
    """Each occurrence of a code in the window [PENALTY_WINDOW] counts once; ids past the
    vocabulary stand for nothing."""
    for at in range(len(window)):
        code = window[at]
        if code < len(row):
            row[code] = row[code] * penalty if row[code] < _F32 else row[code] / penalty


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _highest(row: Any) -> Any:
    highest = row[0]
    for i in range(1, len(row)):
        highest = max(highest, row[i])
    return highest


@njit(fastmath=FAST, error_model="numpy")  # type: ignore[untyped-decorator]
def _weigh(row: Any, weights: Any, highest: Any) -> Any:
    """weights = exp(row - highest); returns their sum."""
    total = _F32
    for i in range(len(row)):
        weights[i] = exp32(row[i] - highest)
        total += weights[i]
    return total


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _best(row: Any, best: Any, count: Any) -> Any:
    """Ids of the `count` best, the best first, by insertion: few of a row ever move another."""
    held = 0
    for i in range(len(row)):
        if held == count and row[i] <= row[best[count - 1]]:
            continue
        held = min(held + 1, count)
        at = held - 1
        while at > 0 and row[best[at - 1]] < row[i]:
            best[at] = best[at - 1]
            at -= 1
        best[at] = i


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _count_likely(weights: Any, total: Any, best: Any, count: Any, top_p: Any) -> Any:
    """How many of the best top-P keeps: those with more than 1 - P of mass from them down."""
    left = np.float64(1)
    for rank in range(count):
        if rank >= MIN_KEPT and left <= _ONE - top_p:
            return rank
        left -= np.float64(weights[best[rank]]) / np.float64(total)
    return count


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _pick(weights: Any, best: Any, count: Any, uniform: Any) -> Any:
    """The kept id, in the order of ids, at which the cumulative weight reaches the target."""
    kept = np.sort(best[:count])
    total = np.float64(0)
    for at in range(count):
        total += weights[kept[at]]
    target, mass = np.float64(uniform) * total, np.float64(0)
    for at in range(count):
        mass += weights[kept[at]]
        if mass >= target and weights[kept[at]] > _F32:
            return kept[at]
    return best[0]


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _pick_by_race(weights: Any, best: Any, count: Any, race: Any) -> Any:
    winner, highest = best[0], np.float32(-1)
    for at in range(count):
        score = weights[best[at]] / race[best[at]]
        if score > highest:
            winner, highest = best[at], score
    return winner


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _without(best: Any, count: Any, banned: Any) -> Any:
    """Take an id out of the kept; returns how many are left."""
    left = 0
    for at in range(count):
        if best[at] != banned:
            best[left] = best[at]
            left += 1
    return left


@compiled()
def _draw_rows(
    logits: Any,
    temperature: Any,
    top_p: Any,
    top_k: Any,
    penalty: Any,
    ban_eos: Any,
    window: Any,
    uniform: Any,
    race: Any,
    uses_race: Any,
    eos_id: Any,
    codes: Any,
) -> Any:
    num_rows, columns, size = logits.shape
    row, weights = np.empty(size, np.float32), np.empty(size, np.float32)
    best = np.empty(size, np.int64)
    for s in range(num_rows):
        for c in range(columns):
            _scale(row, logits[s, c], temperature[s, c])
            _penalize(row, window[s, :, c], penalty[s])
            total = _weigh(row, weights, _highest(row))
            count = min(max(top_k[s], MIN_KEPT), size)
            _best(row, best, count)
            count = _count_likely(weights, total, best, count, top_p[s])
            if ban_eos[s]:
                count = _without(best, count, eos_id)
            if uses_race[s]:
                codes[s, c] = _pick_by_race(weights, best, count, race[s, c])
            else:
                codes[s, c] = _pick(weights, best, count, uniform[s, c])
