"""The messages between an engine process and its client, and how they are laid out.

A message is one msgpack frame; audio follows as a frame of its own, so that samples are never
copied into msgpack. Sockets and processes are `engine_process`' and its client's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from .errors import (
    CheckpointError,
    DeadlineExceededError,
    EngineDeadError,
    OverloadedError,
    RequestError,
    RequestTooLongError,
    StrettoError,
    UnknownModelError,
    UnknownVoiceError,
)
from .interface import EngineStats, ModelInfo
from .output import AudioChunk, FinishReason, RequestMetrics
from .request import SpeechRequest

Frame: TypeAlias = "bytes | memoryview"


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Begin a request."""

    request_id: str
    request: SpeechRequest


class Abort(msgspec.Struct, tag=True, frozen=True):
    """End a request."""

    request_id: str


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Ask for `stats` or an integrity check; answered by `Answer`."""

    call_id: int
    what: str


class Close(msgspec.Struct, tag=True, frozen=True):
    """End everything in flight and exit."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The model is loaded and warm."""

    model_info: ModelInfo


class ChunkHeader(msgspec.Struct, tag=True, frozen=True):
    """An `AudioChunk` but for its samples, which are the next frame (float32)."""

    request_id: str
    sample_rate: int
    index: int
    is_last: bool
    finish_reason: FinishReason | None
    error: str | None
    error_code: str | None
    metrics: RequestMetrics | None


class Failure(msgspec.Struct, frozen=True):
    """An exception, by the name of its type."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float = 0.0


class Refused(msgspec.Struct, tag=True, frozen=True):
    """A request was refused; it raises at the client."""

    request_id: str
    failure: Failure


class StartFailed(msgspec.Struct, tag=True, frozen=True):
    """The model could not be loaded; the process exits."""

    failure: Failure


class Answer(msgspec.Struct, tag=True, frozen=True):
    """To an `Ask`."""

    call_id: int
    stats: EngineStats | None = None
    failure: Failure | None = None


ToEngine: TypeAlias = Submit | Abort | Ask | Close
FromEngine: TypeAlias = Ready | ChunkHeader | Refused | StartFailed | Answer

_encoder = msgspec.msgpack.Encoder()
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)


def encode(message: ToEngine | FromEngine) -> bytes:
    """The frame of a message."""
    return _encoder.encode(message)


def decode_to_engine(frame: Frame) -> ToEngine:
    """A message from a client."""
    message: ToEngine = _to_engine.decode(frame)
    return message


def decode_from_engine(frame: Frame) -> FromEngine:
    """A message from an engine process."""
    message: FromEngine = _from_engine.decode(frame)
    return message


def encode_chunk(chunk: AudioChunk) -> list[Frame]:
    """Header and samples."""
    header = ChunkHeader(
        chunk.request_id,
        chunk.sample_rate,
        chunk.index,
        chunk.is_last,
        chunk.finish_reason,
        chunk.error,
        chunk.error_code,
        chunk.metrics,
    )
    return [encode(header), np.ascontiguousarray(chunk.audio).data.cast("B")]


def decode_chunk(header: ChunkHeader, frames: Sequence[Frame]) -> AudioChunk:
    """The chunk of a header and the frames behind it."""
    return AudioChunk(
        request_id=header.request_id,
        audio=np.frombuffer(frames[0], np.float32),
        sample_rate=header.sample_rate,
        index=header.index,
        is_last=header.is_last,
        finish_reason=header.finish_reason,
        error=header.error,
        error_code=header.error_code,
        metrics=header.metrics,
    )


_ERRORS: dict[str, type[StrettoError]] = {
    kind.__name__: kind
    for kind in (
        CheckpointError,
        DeadlineExceededError,
        EngineDeadError,
        RequestError,
        RequestTooLongError,
        StrettoError,
        UnknownModelError,
        UnknownVoiceError,
    )
}


def describe(error: BaseException) -> Failure:
    """An exception as a message."""
    return Failure(
        kind=type(error).__name__,
        message=str(error),
        param=getattr(error, "param", None),
        code=getattr(error, "code", None),
        retry_after_s=getattr(error, "retry_after_s", 0.0),
    )


def revive(failure: Failure) -> StrettoError:
    """The exception of a message; an unknown type becomes a `StrettoError` that names it."""
    if failure.kind == OverloadedError.__name__:
        return OverloadedError(failure.message, retry_after_s=failure.retry_after_s)
    kind = _ERRORS.get(failure.kind)
    if kind is None:
        return StrettoError(f"{failure.kind}: {failure.message}")
    if issubclass(kind, RequestError):
        return kind(failure.message, param=failure.param, code=failure.code)
    return kind(failure.message)
