"""`RequestState`: what the engine remembers of a request between its submission and its end.

Its sequences, its delivery, its times, and the one terminal chunk. It decides nothing; the core
tells it what happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .delivery import Delivery
from .input_processor import ProcessedRequest, Segment
from .output import AudioChunk, FinishReason, FloatArray, RequestMetrics

Phase = Literal["text", "speech"]


@dataclass(slots=True)
class SequenceState:
    """One segment in flight.

    Attributes:
        is_known: the executor has been told of it (done when it is first scheduled).
        num_frames: frames kept so far.
    """

    seq_id: str
    index: int
    segment: Segment
    owner: RequestState
    is_known: bool = False
    num_frames: int = 0

    @property
    def is_text(self) -> bool:
        """True in the refining pass, whose output is read and not heard."""
        return self.segment.prompt.output == "text"


class RequestState:
    """One request in flight. Times are seconds on the engine's clock."""

    def __init__(
        self, request_id: str, processed: ProcessedRequest, sample_rate: int, now: float
    ) -> None:
        self.request_id = request_id
        self.processed = processed
        self.live: dict[str, SequenceState] = {}  # by seq_id, until fully decoded
        self.refined: dict[int, list[int]] = {}  # segment index -> ids of the refining pass
        self.num_preemptions = 0
        self.finish_reason: FinishReason = "stop"
        self._sample_rate = sample_rate
        self._submitted = now
        self._first_scheduled: float | None = None
        self._first_audio: float | None = None
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._frames = 0
        self._num_chunks = 0
        self._delivery: Delivery | None = None
        self._num_segments = 0

    @property
    def first_pass(self) -> Phase:
        """Which pass the request begins with."""
        return "text" if self.processed.request.refine else "speech"

    @property
    def is_running(self) -> bool:
        """True once one of its sequences has been scheduled."""
        return self._first_scheduled is not None

    @property
    def is_complete(self) -> bool:
        """True when all of its audio was delivered."""
        return self._delivery is not None and self._delivery.is_complete

    def is_late(self, now: float) -> bool:
        """True when its deadline passed before any audio was ready."""
        deadline = self.processed.request.deadline_s
        return (
            deadline is not None and self._first_audio is None and now - self._submitted > deadline
        )

    def open_segments(self, segments: tuple[Segment, ...], phase: Phase) -> list[SequenceState]:
        """Make the sequences of a pass (`text` or `speech`) live."""
        if phase == "speech":
            prompts = [segment.prompt for segment in segments]
            speed = self.processed.request.speed
            self._delivery = Delivery(prompts, self._sample_rate, speed)
            self._num_segments = len(segments)
        opened = [
            SequenceState(f"{self.request_id}/{phase}/{index}", index, segment, self)
            for index, segment in enumerate(segments)
        ]
        self._prompt_tokens += sum(segment.prompt.num_tokens for segment in segments)
        self.live.update((sequence.seq_id, sequence) for sequence in opened)
        return opened

    def note_scheduled(self, cached_tokens: int, now: float) -> None:
        """A sequence was scheduled for the first time."""
        self._cached_tokens += cached_tokens
        if self._first_scheduled is None:
            self._first_scheduled = now

    def note_frames(self, count: int) -> None:
        """Frames were generated and kept."""
        self._frames += count

    def deliver(
        self, segment_index: int, audio: FloatArray | None, now: float, *, ends: bool
    ) -> list[AudioChunk]:
        """The chunks (one or none) that a decoded piece ([samples] or None) makes ready."""
        assert self._delivery is not None, "audio before the speech pass"
        piece = np.zeros(0, np.float32) if audio is None else audio
        ready = self._delivery.push(segment_index, piece, ends=ends)
        if len(ready) and self._first_audio is None:
            self._first_audio = now
        if self.is_complete:
            return [self.end(self.finish_reason, now, audio=ready)]
        return [self._chunk(ready)] if len(ready) else []

    def end(
        self,
        reason: FinishReason,
        now: float,
        *,
        audio: FloatArray | None = None,
        error: str | None = None,
        error_code: str | None = None,
    ) -> AudioChunk:
        """The terminal chunk."""
        return AudioChunk(
            request_id=self.request_id,
            audio=np.zeros(0, np.float32) if audio is None else audio,
            sample_rate=self._sample_rate,
            index=self._num_chunks,
            is_last=True,
            finish_reason=reason,
            error=error,
            error_code=error_code,
            metrics=self._metrics(now),
        )

    def _chunk(self, audio: FloatArray) -> AudioChunk:
        index = self._num_chunks
        self._num_chunks += 1
        return AudioChunk(
            request_id=self.request_id, audio=audio, sample_rate=self._sample_rate, index=index
        )

    def _metrics(self, now: float) -> RequestMetrics:
        samples = self._delivery.num_samples if self._delivery else 0
        return RequestMetrics(
            queue_s=self._since_submission(self._first_scheduled),
            ttfa_s=self._since_submission(self._first_audio),
            total_s=now - self._submitted,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            frames=self._frames,
            audio_s=samples / self._sample_rate,
            num_segments=self._num_segments,
            num_preemptions=self.num_preemptions,
            seed=self.processed.seed,
        )

    def _since_submission(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self._submitted
