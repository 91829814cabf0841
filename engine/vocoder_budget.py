"""`VocoderBudget`: keeps the vocoder from starving the speech model on a shared device.

Vocoder batches run between steps. Every batch runs up a debt that steps of the speech model pay
off, so that bulk decoding cannot stand between a running stream and its next frame for long, and
chunks meanwhile gather into larger batches. Urgent jobs do not ask; see `EngineCore`.
"""

from __future__ import annotations

# Seconds of vocoder per second of steps. Small chunks are mostly context and may take as long as
# the steps that made them; with twice that the vocoder keeps up whatever the chunk schedule.
DEFAULT_RATIO = 2.0


class VocoderBudget:
    """Seconds the vocoder may take, relative to the steps.

    Args:
        ratio: seconds of vocoder per second of steps while both have work.
    """

    def __init__(self, ratio: float = DEFAULT_RATIO) -> None:
        self._ratio = ratio
        self._debt_s = 0.0

    @property
    def allows(self) -> bool:
        """True when a batch that is not urgent may run now."""
        return self._debt_s <= 0.0

    def note_step(self, seconds: float) -> None:
        """A step of the speech model took so long."""
        self._debt_s = max(0.0, self._debt_s - seconds * self._ratio)

    def note_batch(self, seconds: float) -> None:
        """A vocoder batch took so long."""
        self._debt_s += seconds
