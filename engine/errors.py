"""What can go wrong, as types that cross every room.

Errors of the caller (`RequestError` and below) carry a stable `code` and the name of the offending
parameter, so that the HTTP layer, the command line and Python callers tell the same story. This
module does not format HTTP answers.

    StrettoError
    ├── RequestError(ValueError)     the request cannot be served as it stands
    │   ├── UnknownVoiceError
    │   ├── UnknownModelError
    │   └── RequestTooLongError      it could never fit, now or later
    ├── CheckpointError              a model folder is incomplete or malformed
    ├── OverloadedError              try again later; carries `retry_after_s`
    ├── DeadlineExceededError        no audio within the request's deadline
    └── EngineDeadError              the engine process went away
"""

from __future__ import annotations


class StrettoError(Exception):
    """Base of all errors raised on purpose by Stretto."""

    code = "internal_error"


class RequestError(StrettoError, ValueError):
    """The request cannot be served as it stands.

    Args:
        message: what is wrong, naming the value and what would be right.
        param: name of the offending field of `SpeechRequest` or of the HTTP body, if one is.
    """

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class UnknownVoiceError(RequestError):
    """No voice of that name or form."""

    code = "unknown_voice"


class UnknownModelError(RequestError):
    """The name is no served model, folder or hub id."""

    code = "model_not_found"


class RequestTooLongError(RequestError):
    """The request could never fit the model's or the cache's limits."""

    code = "request_too_long"


class CheckpointError(StrettoError):
    """A model folder is incomplete, malformed or not of a known architecture."""

    code = "bad_checkpoint"


class OverloadedError(StrettoError):
    """The queue is full, or the work would be late; `retry_after_s` says when to try again."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceededError(StrettoError):
    """No audio was ready within the request's `deadline_s`."""

    code = "deadline_exceeded"


class EngineDeadError(StrettoError):
    """The engine process ended while the request was in flight, or is not up."""

    code = "engine_dead"


def describe_error(error: Exception) -> tuple[str, str]:
    """(message, code) of an error; what nobody foresaw is named without its details."""
    if isinstance(error, StrettoError):
        return str(error), error.code
    return f"internal error ({type(error).__name__})", StrettoError.code
