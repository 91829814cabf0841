"""What a user gets back: `AudioChunk`s while it streams, a `SpeechResult` when whole.

A stream is a run of chunks of which the last, and only the last, has `is_last` set and a
`finish_reason`. There is no other terminal event. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import numpy.typing as npt

FinishReason = Literal["stop", "length", "abort", "error"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetrics:
    """What one request cost. Times in seconds on the engine's clock, counted from submission.

    Attributes:
        queue_s: until its first sequence was scheduled; None when it never was.
        ttfa_s: until its first audio chunk was ready; None when there was none.
        total_s: until its terminal event.
        prompt_tokens: positions of all its segments' prompts.
        cached_tokens: of these, positions taken from the prefix cache.
        frames: AR frames generated and kept.
        audio_s: seconds of audio produced (before any change of tempo).
        num_segments: segments its text was split into.
        num_preemptions: how often one of its sequences was preempted.
        seed: the seed in force, drawn or given.
    """

    queue_s: float | None = None
    ttfa_s: float | None = None
    total_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    frames: int = 0
    audio_s: float = 0.0
    num_segments: int = 0
    num_preemptions: int = 0
    seed: int = 0

    @property
    def rtf(self) -> float | None:
        """Real-time factor: time taken over seconds of audio; None without audio."""
        return self.total_s / self.audio_s if self.audio_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioChunk:
    """A piece of one request's waveform.

    Attributes:
        request_id: the request it belongs to.
        audio: float32 [samples], mono, nominally within -1 to 1; may be empty in the last chunk.
        sample_rate: samples per second.
        index: 0, 1, 2, ... within the request.
        is_last: true for the one terminal chunk.
        finish_reason: set when `is_last`: `stop`, `length`, `abort` or `error`.
        error: the message, when `finish_reason` is `error`.
        error_code: the stable code of that error (see `engine.errors`).
        metrics: set when `is_last`.
    """

    request_id: str
    audio: FloatArray
    sample_rate: int
    index: int
    is_last: bool = False
    finish_reason: FinishReason | None = None
    error: str | None = None
    error_code: str | None = None
    metrics: RequestMetrics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechResult:
    """A finished request.

    Attributes:
        request_id: the request it answers.
        audio: float32 [samples], mono.
        sample_rate: samples per second.
        finish_reason: how it ended.
        metrics: what it cost.
        error: the message, when `finish_reason` is `error`.
        error_code: the stable code of that error (see `engine.errors`).
    """

    request_id: str
    audio: FloatArray
    sample_rate: int
    finish_reason: FinishReason
    metrics: RequestMetrics
    error: str | None = None
    error_code: str | None = None

    @classmethod
    def from_chunks(cls, chunks: Sequence[AudioChunk]) -> SpeechResult:
        """Join all chunks of one request; the last one is terminal."""
        last = chunks[-1]
        assert last.finish_reason is not None, "no terminal chunk"
        assert last.metrics is not None, "a terminal chunk has metrics"
        return cls(
            request_id=last.request_id,
            audio=np.concatenate([chunk.audio for chunk in chunks]),
            sample_rate=last.sample_rate,
            finish_reason=last.finish_reason,
            metrics=last.metrics,
            error=last.error,
            error_code=last.error_code,
        )

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return len(self.audio) / self.sample_rate

    def save(self, path: str | PathLike[str]) -> None:
        """Write the audio to `path`; the extension names the format (wav, flac, ogg, mp3).

        Raises:
            ValueError: the extension is no known audio format.
        """
        import soundfile

        try:
            soundfile.write(str(path), self.audio, self.sample_rate)
        except (TypeError, soundfile.LibsndfileError) as error:
            raise ValueError(f"cannot write audio to {path}: {error}") from error


def failure_chunk(
    request_id: str, sample_rate: int, message: str, code: str, *, index: int = 0
) -> AudioChunk:
    """The terminal chunk of a request that the engine itself can no longer end."""
    return AudioChunk(
        request_id=request_id,
        audio=np.zeros(0, np.float32),
        sample_rate=sample_rate,
        index=index,
        is_last=True,
        finish_reason="error",
        error=message,
        error_code=code,
        metrics=RequestMetrics(),
    )
