"""`VocoderScheduler`: which frames of which sequences are turned into audio next.

The vocoder's batches do not follow the steps of the speech model. A job is ready when the frames
that its samples depend on exist. First chunks of requests go first, for they are what a listener
waits for; then comes whose listener runs dry earliest. Audio that nobody waits for yet (segments
behind the one being heard, bulk work) gets a deadline well in the future, so that it yields to
streams and still cannot starve. No clock, no tensors: time is passed in.
"""

from __future__ import annotations

import heapq
import math
from itertools import count

from .interfaces import VocoderBatch, VocoderJob, VocoderSchedulerConfig
from .playback import SegmentFrames, StreamedRequest, next_job

# Seconds after which audio that nobody waits for is as urgent as a listener about to run dry.
PATIENCE_S = 10.0

_FIRST_CHUNK, _BY_DEADLINE = 0, 1
_HeapEntry = tuple[int, float, int, str, int]  # tier, time, ticket, seq_id, version


class VocoderScheduler:
    """Decides each vocoder batch.

    Add all segments of a request before the first of them has finished: a request is forgotten,
    with its playback clock, when none of its segments is left.

    Args:
        config: contexts and limits.
    """

    def __init__(self, config: VocoderSchedulerConfig) -> None:
        self.config = config
        self._segments: dict[str, SegmentFrames] = {}
        self._requests: dict[str, StreamedRequest] = {}
        self._ready: list[_HeapEntry] = []
        self._num_ready = 0
        self._tickets = count()

    @property
    def num_waiting(self) -> int:
        """Sequences with a job that could run now."""
        return self._num_ready

    @property
    def has_work(self) -> bool:
        """True while a sequence is not wholly scheduled."""
        return bool(self._segments)

    def add(
        self,
        seq_id: str,
        request_id: str,
        segment_index: int,
        *,
        streaming: bool,
        low_lookahead: bool,
        now: float,
    ) -> None:
        """Make a sequence known.

        Args:
            seq_id: unique among live sequences.
            request_id: the request whose audio it is part of.
            segment_index: its place in that audio.
            streaming: somebody listens as it is made; else it waits until it is finished.
            low_lookahead: chunks look ahead `low_right_context` frames instead of all.
            now: seconds on the caller's clock.

        Raises:
            ValueError: the id is in use, or the segment's place is taken.
        """
        if seq_id in self._segments:
            raise ValueError(f"sequence {seq_id!r} is live already")
        request = self._requests.setdefault(request_id, StreamedRequest(request_id))
        segment = SegmentFrames(seq_id, request, segment_index, streaming, low_lookahead)
        outrun = request.add(segment)
        self._segments[seq_id] = segment
        self._head_changed(outrun, now)

    def update(self, seq_id: str, num_frames: int, finished: bool, now: float) -> None:
        """Tell how many frames a sequence has; unknown ids are ignored.

        A sequence that is finished without a frame is forgotten and gets no job.
        """
        segment = self._segments.get(seq_id)
        if segment is None:
            return
        segment.num_frames = num_frames
        segment.finished = finished
        if segment.is_done:
            self._remove(segment, now)
        elif segment.ready_at is None:
            self._refresh(segment, now)

    def abort(self, seq_id: str, now: float = 0.0) -> None:
        """Forget a sequence; unknown ids are ignored."""
        segment = self._segments.get(seq_id)
        if segment is not None:
            self._remove(segment, now)

    def schedule(self, now: float) -> VocoderBatch | None:
        """The most urgent jobs that fit one batch, or None when no job is ready."""
        jobs: list[VocoderJob] = []
        room = self.config.max_batch_frames
        while (segment := self._most_urgent()) is not None:
            job = next_job(segment, self.config, now)
            assert job is not None, "a ready segment has a job"
            if jobs and job.num_window_frames > room:
                break
            jobs.append(job)
            room -= job.num_window_frames
            self._take(segment, job, now)
        return VocoderBatch(tuple(jobs)) if jobs else None

    def delivered(self, seq_id: str, num_frames: int, now: float) -> None:
        """Tell that frames reached the listener only now; `schedule` assumed at once.

        Unknown ids are ignored, so that the last chunk of a sequence may be reported too.
        """
        segment = self._segments.get(seq_id)
        if segment is not None:
            segment.request.delivered(segment, num_frames * self.config.frame_s, now)
            self._head_changed(segment.request.head, now)

    def slack(self, request_id: str, now: float) -> float | None:
        """Seconds of audio its listener has left; None before its first chunk."""
        request = self._requests.get(request_id)
        if request is None or request.deadline is None:
            return None
        return request.deadline - now

    def next_deadline(self) -> float | None:
        """When the most urgent job is due; minus infinity for a first chunk, None without a job."""
        if self._most_urgent() is None:
            return None
        tier, time = self._ready[0][:2]
        return -math.inf if tier == _FIRST_CHUNK else time

    def check_integrity(self) -> None:
        """Raise when a request outlived its segments or a ready job could be lost.

        Raises:
            RuntimeError: what is wrong.
        """
        members = sum(len(request.segments) for request in self._requests.values())
        if members != len(self._segments) or any(not r.segments for r in self._requests.values()):
            raise RuntimeError("requests and segments disagree")
        valid = sum(1 for entry in self._ready if self._is_valid(entry))
        ready = sum(1 for s in self._segments.values() if s.ready_at is not None)
        if not valid == ready == self._num_ready:
            raise RuntimeError(f"{ready} segments are ready, {valid} are queued")
        for segment in self._segments.values():
            has_job = next_job(segment, self.config, 0.0) is not None
            if has_job != (segment.ready_at is not None):
                raise RuntimeError(f"readiness of {segment.seq_id!r} is wrong")

    def _take(self, segment: SegmentFrames, job: VocoderJob, now: float) -> None:
        """Account for a scheduled job and look for the segment's next one."""
        segment.advance(job, self.config.chunks)
        self._unready(segment)
        if segment.streaming:
            seconds = (job.end - job.start) * self.config.frame_s
            segment.request.scheduled(segment, seconds, now)
        if segment.is_done:
            self._remove(segment, now)
        else:
            self._refresh(segment, now)

    def _refresh(self, segment: SegmentFrames, now: float) -> None:
        """Queue the segment anew if it has a job, at its present urgency."""
        ready_at = segment.ready_at
        self._unready(segment)
        if next_job(segment, self.config, now) is None:
            return
        segment.ready_at = now if ready_at is None else ready_at
        self._num_ready += 1
        tier, time = self._urgency(segment)
        entry = (tier, time, next(self._tickets), segment.seq_id, segment.version)
        heapq.heappush(self._ready, entry)

    def _urgency(self, segment: SegmentFrames) -> tuple[int, float]:
        assert segment.ready_at is not None
        if not segment.streaming or segment.request.head is not segment:
            return _BY_DEADLINE, segment.ready_at + PATIENCE_S
        deadline = segment.request.deadline
        if deadline is None:
            return _FIRST_CHUNK, segment.ready_at
        return _BY_DEADLINE, deadline

    def _most_urgent(self) -> SegmentFrames | None:
        while self._ready and not self._is_valid(self._ready[0]):
            heapq.heappop(self._ready)
        return self._segments[self._ready[0][3]] if self._ready else None

    def _is_valid(self, entry: _HeapEntry) -> bool:
        segment = self._segments.get(entry[3])
        return segment is not None and segment.version == entry[4] and segment.ready_at is not None

    def _unready(self, segment: SegmentFrames) -> None:
        """Make the segment's queue entry stale."""
        if segment.ready_at is not None:
            self._num_ready -= 1
        segment.ready_at = None
        segment.version = next(self._tickets)

    def _remove(self, segment: SegmentFrames, now: float) -> None:
        self._unready(segment)
        del self._segments[segment.seq_id]
        request = segment.request
        self._head_changed(request.remove(segment, now), now)
        if not request.segments:
            del self._requests[request.request_id]

    def _head_changed(self, segment: SegmentFrames | None, now: float) -> None:
        """Requeue a segment that has just become the next to be heard."""
        if segment is not None and segment.ready_at is not None:
            self._refresh(segment, now)
