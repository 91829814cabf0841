"""`Sampler`: logits to codes, in upstream ChatTTS's order, for requests that differ in everything.

Temperature, repetition penalty over the last 16 generated frames, top-P, top-K (both keep at least
3), ban of the end, softmax, draw. All rows are processed together; each by its own parameters and
its own noise, so a row's draw does not depend on its neighbours. It reads no clock and holds no
state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PENALTY_WINDOW = 16  # frames
MIN_KEPT = 3  # codes that top-P and top-K always leave


@dataclass(frozen=True, slots=True, eq=False)
class SamplingTensors:
    """Parameters and noise of S rows with C codebooks of V ids.

    Attributes:
        temperature: float32 [S, C].
        top_p: float32 [S].
        top_k: int64 [S].
        repetition_penalty: float32 [S].
        ban_eos: bool [S]; the end may not be drawn yet.
        window: int64 [S, PENALTY_WINDOW, C] generated codes; V where there is none.
        uniform: float32 [S, C] in (0, 1), drawn against the cumulative probability.
        race: float32 [S, C, V] or None; upstream's exponential numbers.
        uses_race: bool [S]; rows that draw by `race`.
    """

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    repetition_penalty: torch.Tensor
    ban_eos: torch.Tensor
    window: torch.Tensor
    uniform: torch.Tensor
    race: torch.Tensor | None
    uses_race: torch.Tensor


class Sampler:
    """Draws one id per codebook.

    Args:
        eos_id: the id that ends a sequence.
    """

    def __init__(self, eos_id: int) -> None:
        self._eos_id = eos_id

    def __call__(self, logits: torch.Tensor, tensors: SamplingTensors) -> torch.Tensor:
        """Draw.

        Args:
            logits: float32 [S, C, V].
            tensors: parameters and noise of the rows.

        Returns:
            int64 [S, C].
        """
        return draw(self.probabilities(logits, tensors), tensors)

    def probabilities(self, logits: torch.Tensor, tensors: SamplingTensors) -> torch.Tensor:
        """Final probabilities [S, C, V] float32, from which the draw is made."""
        logits = logits / tensors.temperature[..., None]
        logits = penalize(logits, tensors.window, tensors.repetition_penalty)
        logits = keep_likely(logits, tensors.top_p, tensors.top_k)
        banned = tensors.ban_eos[:, None]
        end = logits[..., self._eos_id].masked_fill(banned, float("-inf"))
        logits[..., self._eos_id] = end
        return logits.softmax(-1)


def penalize(
    logits: torch.Tensor, window: torch.Tensor, repetition_penalty: torch.Tensor
) -> torch.Tensor:
    """Divide (or multiply, below zero) by penalty^count of the code in its codebook's window."""
    size = logits.shape[-1]
    counts = torch.zeros(*logits.shape[:2], size + 1, device=logits.device)
    codes = window.transpose(1, 2)  # [S, C, PENALTY_WINDOW]
    counts.scatter_add_(2, codes, torch.ones(codes.shape, device=logits.device))
    alpha = repetition_penalty[:, None, None] ** counts[..., :size]
    return torch.where(logits < 0, logits * alpha, logits / alpha)


def keep_likely(logits: torch.Tensor, top_p: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """Logits [S, C, V] with -inf where top-P, then top-K, drops a code.

    Top-P drops the least likely codes whose mass together is at most 1 - P; top-K what is below
    the K-th best that is left. Both leave MIN_KEPT.
    """
    rising, order = logits.sort(dim=-1, stable=True)
    size = logits.shape[-1]
    rank = torch.arange(size - 1, -1, -1, device=logits.device)  # 0 is the best
    mass = rising.softmax(-1).cumsum(-1)
    dropped = (mass <= 1 - top_p[:, None, None]) & (rank >= MIN_KEPT)
    kept = top_k.clamp(MIN_KEPT, size)[:, None, None]
    threshold = rising.gather(-1, (size - kept).expand(*logits.shape[:2], 1))
    dropped |= rising < threshold
    return logits.masked_fill(torch.zeros_like(dropped).scatter_(-1, order, dropped), float("-inf"))


def draw(probabilities: torch.Tensor, tensors: SamplingTensors) -> torch.Tensor:
    """Draw ids int64 [S, C] from probabilities [S, C, V] with the rows' noise."""
    mass = probabilities.cumsum(-1)
    target = tensors.uniform[..., None] * mass[..., -1:]
    codes = (mass < target).sum(-1)  # strictly: rounding may make the target the whole mass
    if tensors.race is None:
        return codes
    raced = (probabilities / tensors.race).argmax(-1)
    return torch.where(tensors.uses_race[:, None], raced, codes)
