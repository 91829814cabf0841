"""What the vocoder scheduler remembers: frames of a segment, and the playback of its request.

Pure accounting. `next_job` cuts the next chunk of one segment by the chunk schedule and the
declared contexts; it does not choose among segments.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from .interfaces import ChunkSchedule, VocoderJob, VocoderSchedulerConfig


@dataclass(slots=True, eq=False)
class StreamedRequest:
    """Segments of one request that are not wholly scheduled, and when its listener runs dry.

    Attributes:
        deadline: time at which all audio so far has been played at speed one, if playback began
            with the first chunk and never waited otherwise; None before the first chunk.
    """

    request_id: str
    segments: dict[int, SegmentFrames] = field(default_factory=dict)
    deadline: float | None = None
    head: SegmentFrames | None = None
    _order: list[int] = field(default_factory=list)
    _ahead_s: dict[int, float] = field(default_factory=dict)  # audio behind a gap, by segment

    def add(self, segment: SegmentFrames) -> SegmentFrames | None:
        """Add a segment; the one that stops or starts being heard next, if that changed.

        Raises:
            ValueError: the request has a segment of that index.
        """
        if segment.index in self.segments:
            raise ValueError(f"{self.request_id!r} has a segment {segment.index} already")
        self.segments[segment.index] = segment
        heapq.heappush(self._order, segment.index)
        before, self.head = self.head, self.segments[self._order[0]]
        return before if before is not self.head else None

    def remove(self, segment: SegmentFrames, now: float) -> SegmentFrames | None:
        """Remove a segment; the new next to be heard, if that changed."""
        del self.segments[segment.index]
        while self._order and self._order[0] not in self.segments:
            heapq.heappop(self._order)
        before = self.head
        self.head = self.segments[self._order[0]] if self._order else None
        if self.head is None or before is self.head:
            return None
        closed = [index for index in self._ahead_s if index <= self.head.index]
        if closed:
            self._append(sum(self._ahead_s.pop(index) for index in closed), now)
        return self.head

    def scheduled(self, segment: SegmentFrames, seconds: float, now: float) -> None:
        """Append a segment's audio; behind a gap it cannot be heard yet."""
        if segment is self.head:
            self._append(seconds, now)
        else:
            self._ahead_s[segment.index] = self._ahead_s.get(segment.index, 0.0) + seconds

    def delivered(self, segment: SegmentFrames, seconds: float, now: float) -> None:
        """Correct the clock for audio that was appended earlier but arrives only now."""
        if segment is self.head and self.deadline is not None:
            self.deadline = max(self.deadline, now + seconds)

    def _append(self, seconds: float, now: float) -> None:
        start = now if self.deadline is None else max(self.deadline, now)
        self.deadline = start + seconds


@dataclass(slots=True, eq=False)
class SegmentFrames:
    """Frames of one sequence on their way into audio.

    Attributes:
        num_frames: frames that exist.
        finished: no frame will be added.
        next_start: first frame that no job covers yet.
        chunk_frames: size of the next chunk; 0 before the first.
        ready_at: since when the next job could run; None when it could not.
        version: changes whenever the queue entry of the segment becomes stale.
    """

    seq_id: str
    request: StreamedRequest
    index: int
    streaming: bool
    low_lookahead: bool
    num_frames: int = 0
    finished: bool = False
    next_start: int = 0
    chunk_frames: int = 0
    ready_at: float | None = None
    version: int = 0

    @property
    def is_done(self) -> bool:
        """True when every frame there will ever be is scheduled."""
        return self.finished and self.next_start >= self.num_frames

    def advance(self, job: VocoderJob, chunks: ChunkSchedule) -> None:
        """Account for a scheduled job and grow the next chunk."""
        size = self.chunk_frames or chunks.first_frames
        self.next_start = job.end
        self.chunk_frames = min(math.ceil(size * chunks.growth), chunks.max_frames)


def next_job(
    segment: SegmentFrames, config: VocoderSchedulerConfig, now: float
) -> VocoderJob | None:
    """The segment's next chunk, or None while frames that it depends on are missing.

    With the exact look-ahead the samples do not depend on where chunks are cut, so a segment that
    lags behind takes a larger one. With the low look-ahead they do: there the cuts follow from the
    chunk schedule alone, so that the same frames give the same audio under every load.
    """
    right = config.low_right_context if segment.low_lookahead else config.right_context
    if segment.finished:
        available = segment.num_frames - segment.next_start
    else:
        # At least one frame stays back, for the job that ends the sequence.
        available = segment.num_frames - max(right, 1) - segment.next_start
    size = _chunk_size(segment, config, available)
    if available < 1 or (available < size and not segment.finished):
        return None
    end = segment.next_start + min(size, available)
    return VocoderJob(
        seq_id=segment.seq_id,
        start=segment.next_start,
        end=end,
        window_start=max(0, segment.next_start - config.left_context),
        window_end=min(segment.num_frames, end + right),
        is_last=segment.finished and end == segment.num_frames,
        waited_s=0.0 if segment.ready_at is None else max(0.0, now - segment.ready_at),
    )


def _chunk_size(segment: SegmentFrames, config: VocoderSchedulerConfig, available: int) -> int:
    chunks = config.chunks
    if not segment.streaming:
        if not segment.finished:
            return available + 1  # nobody listens: wait for the end
        context = config.left_context + config.right_context
        return max(config.max_batch_frames - context, chunks.max_frames)
    if not segment.chunk_frames:
        return chunks.first_frames
    if segment.low_lookahead:
        return segment.chunk_frames
    return min(max(segment.chunk_frames, available), chunks.max_frames)
