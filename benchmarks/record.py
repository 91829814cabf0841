"""What the harness keeps of one request; the same for a server, an engine and a simulation."""

from __future__ import annotations

from dataclasses import dataclass

from .playback import ChunkArrival


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request as its client saw it. Times in seconds.

    Attributes:
        index: order within the run.
        text: what was asked for.
        arrival_s: when the schedule wanted it sent, from the start of the run.
        sent_s: when it was sent, from the start of the run.
        e2e_s: from sending to the end of the response or its failure.
        status: HTTP status, when there was an answer.
        error_kind: None, or what went wrong: `http_<status>`, `connect`, `disconnect`, `timeout`,
            `stream_error` (an error event), `bad_audio`, `bad_stream`.
        error: the message.
        truncated: the audio ended early: the connection broke in it, its terminal event is
            missing, or it is shorter than its header says.
        first_byte_s: from sending to the first byte of the body.
        chunks: when how much audio became playable, from sending.
        audio_s: seconds of audio received.
        ttfa_s: from sending to the first sample of audio, containers' headers not counted.
        ttfa_audible_s: the same to the moment a player reaches the first audible sample.
        silent: there was audio and none of it audible.
        num_bytes: of audio, as sent.
    """

    index: int
    text: str
    arrival_s: float
    sent_s: float
    e2e_s: float
    status: int | None = None
    error_kind: str | None = None
    error: str | None = None
    truncated: bool = False
    first_byte_s: float | None = None
    chunks: tuple[ChunkArrival, ...] = ()
    audio_s: float = 0.0
    ttfa_s: float | None = None
    ttfa_audible_s: float | None = None
    silent: bool = False
    num_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Answered in full, with audio."""
        return self.error_kind is None and not self.truncated and self.audio_s > 0

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds taken per second of audio."""
        return self.e2e_s / self.audio_s if self.audio_s > 0 else None
