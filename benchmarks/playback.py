"""A listener's player: what a stream of audio sounds like at normal speed.

Given when each piece of audio arrived, it says when playing starts, how often it runs dry and for
how long. The harness, the simulator and the server's tests share it, so that an underrun means the
same everywhere. It neither decodes nor plays anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STALL_TOLERANCE_S = 1e-3
"""Gaps up to this length are not heard as stalls; a sound card's own buffer hides them."""


@dataclass(frozen=True, slots=True)
class ChunkArrival:
    """A piece of audio: seconds after the request was sent, and seconds of audio in it."""

    at_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Playback:
    """How a stream played.

    Attributes:
        start_s: when the first sample was played; None when there was no audio.
        underruns: how often the player ran dry before the end.
        stall_s: seconds of silence those underruns made, together.
    """

    start_s: float | None
    underruns: int
    stall_s: float


def _start_index(chunks: Sequence[ChunkArrival], prebuffer_s: float) -> int:
    """The chunk whose arrival fills the pre-buffer; the last one if none does."""
    buffered = 0.0
    for index, chunk in enumerate(chunks):
        buffered += chunk.audio_s
        if buffered >= prebuffer_s and buffered > 0:
            return index
    return len(chunks) - 1


def play(chunks: Sequence[ChunkArrival], *, prebuffer_s: float = 0.0) -> Playback:
    """Play `chunks` at 1x.

    The player starts once `prebuffer_s` seconds are buffered (or the stream has ended), and after
    running dry goes on with the next chunk.
    """
    chunks = [chunk for chunk in chunks if chunk.audio_s > 0]
    if not chunks:
        return Playback(None, 0, 0.0)
    first = _start_index(chunks, prebuffer_s)
    start = chunks[first].at_s
    dry_at = start + sum(chunk.audio_s for chunk in chunks[: first + 1])
    underruns, stall_s = 0, 0.0
    for chunk in chunks[first + 1 :]:
        late = chunk.at_s - dry_at
        if late > STALL_TOLERANCE_S:
            underruns += 1
            stall_s += late
        dry_at = max(dry_at, chunk.at_s) + chunk.audio_s
    return Playback(start, underruns, stall_s)


def time_heard(chunks: Sequence[ChunkArrival], position_s: float) -> float | None:
    """When a player without pre-buffer reaches `position_s` of the audio; None if it never does."""
    dry_at, played = 0.0, 0.0
    for chunk in chunks:
        begins = max(dry_at, chunk.at_s)
        if position_s < played + chunk.audio_s:
            return begins + (position_s - played)
        played += chunk.audio_s
        dry_at = begins + chunk.audio_s
    return None


def buffer_levels(chunks: Sequence[ChunkArrival]) -> list[tuple[float, float]]:
    """Seconds of unplayed audio over time, as corners (time, level); no pre-buffer."""
    corners: list[tuple[float, float]] = []
    dry_at = None
    for chunk in chunks:
        if chunk.audio_s <= 0:
            continue
        level = 0.0 if dry_at is None else max(dry_at - chunk.at_s, 0.0)
        if dry_at is not None and dry_at < chunk.at_s:
            corners.append((dry_at, 0.0))
        corners += [(chunk.at_s, level), (chunk.at_s, level + chunk.audio_s)]
        dry_at = chunk.at_s + level + chunk.audio_s
    if dry_at is not None:
        corners.append((dry_at, 0.0))
    return corners
