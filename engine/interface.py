"""`EngineClient`: what the server, the offline API and the harness need of an engine.

In-process engines, the engine process's client and the fake of the tests all satisfy it, so none
of their callers knows which one it has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from .output import AudioChunk
from .request import SpeechRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceInfo:
    """A voice by name, as listed to users."""

    id: str
    name: str
    language: str = "en"
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is being served."""

    name: str
    architecture: str
    sample_rate: int
    frame_rate: float  # AR frames per second of audio
    languages: tuple[str, ...]
    voices: tuple[VoiceInfo, ...]
    default_voice: str
    max_text_chars: int
    supports_zero_shot: bool = False
    supports_refine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot of the engine's load; counters only grow."""

    num_requests_running: int = 0
    num_requests_waiting: int = 0
    waiting_by_reason: tuple[tuple[str, int], ...] = ()  # (capacity | blocks | priority, count)
    num_seqs_running: int = 0
    num_seqs_waiting: int = 0
    kv_blocks_total: int = 0
    kv_blocks_used: int = 0
    num_preemptions: int = 0
    prefix_cache_queries: int = 0  # prompt tokens looked up
    prefix_cache_hits: int = 0  # prompt tokens found
    num_steps: int = 0
    frames_generated: int = 0
    prompt_tokens: int = 0
    audio_s_generated: float = 0.0
    vocoder_batches: int = 0
    vocoder_rows: int = 0
    vocoder_frames: int = 0  # frames emitted
    vocoder_window_frames: int = 0  # frames decoded, context included
    vocoder_jobs_waiting: int = 0
    vocoder_queue_s: float = 0.0  # sum of the waits of all jobs done
    step_s: float = 0.0  # sum of the durations of all steps
    busy_s: float = 0.0  # time in which there was work


class EngineClient(Protocol):
    """One engine, wherever it runs. All methods are for one event loop."""

    @property
    def model_info(self) -> ModelInfo:
        """What is served; known once `start` has returned."""

    @property
    def is_ready(self) -> bool:
        """True when requests would be served now."""

    async def start(self) -> None:
        """Load, warm up, and return when ready."""

    def stream(
        self, request: SpeechRequest, *, request_id: str | None = None
    ) -> AsyncIterator[AudioChunk]:
        """Speak; yields chunks, the last one terminal.

        Closing the iterator early aborts the request. Errors of the request raise `RequestError`
        from the first `__anext__`; later failures arrive as the terminal chunk.
        """

    async def abort(self, request_id: str) -> None:
        """End a request with finish reason `abort`; unknown ids are ignored."""

    async def stats(self) -> EngineStats:
        """A snapshot of the engine's load."""

    async def check_integrity(self) -> None:
        """Raise when blocks or slots leaked; meaningful when idle."""

    async def close(self) -> None:
        """End in-flight requests with `abort` and release everything."""
