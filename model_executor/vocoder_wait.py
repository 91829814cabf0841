"""Which vocoder batches the steps wait for where both could run side by side on a CPU.

Steps and vocoder slow each other, small batches most, so the beginning of a stream is heard sooner
when nothing runs beside it. Apart from the thread itself (`vocoder_thread`), so that a simulation
decides alike without loading torch. The numbers behind the limits are in ADR 0016.
"""

from __future__ import annotations

from ..scheduler.interfaces import VocoderBatch

MOST_SEQS_WAITING = 2
"""With more sequences in a step, their lost frames outweigh what the first chunk gains."""

MOST_FRAMES_WAITED_FOR = 64
"""Frames, look-ahead included, that take about as long as a few steps: three first chunks."""


def is_waited_for(batch: VocoderBatch, num_seqs: int) -> bool:
    """True for a small batch that begins a stream while few sequences run.

    Args:
        batch: about to be decoded.
        num_seqs: of the last step.
    """
    if num_seqs > MOST_SEQS_WAITING:
        return False
    begins = any(job.start == 0 and not job.is_last for job in batch.jobs)
    num_frames = sum(job.window_end - job.start for job in batch.jobs)
    return begins and num_frames <= MOST_FRAMES_WAITED_FOR
