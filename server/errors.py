"""What goes wrong, told the way OpenAI's clients expect: status, JSON body, headers.

`ApiError` is the one exception handlers raise; `to_api_error` maps the engine's errors and
aiohttp's onto it. This module decides nothing about when an error happens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextvars import ContextVar
from uuid import uuid4

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..engine.errors import (
    DeadlineExceededError,
    EngineDeadError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)

logger = logging.getLogger(__name__)
_REQUEST_ID: ContextVar[str | None] = ContextVar("request_id")


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The inner object of an error answer, in OpenAI's shape."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error answer."""

    error: ErrorDetail


class ApiError(Exception):
    """An error answer: `status` and what its body says.

    Args:
        status: HTTP status.
        message: for people; names what was wrong and what would be right.
        type: OpenAI's class of error; derived from the status when not given.
        param: name of the offending field.
        code: stable name of the error.
        headers: added to the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(
            message=message, type=type or _type_of(status), param=param, code=code
        )
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON of the answer."""
        return msgspec.json.encode(ErrorBody(error=self.detail))

    def response(self) -> web.Response:
        """The whole answer."""
        return web.Response(
            status=self.status,
            body=self.body(),
            content_type="application/json",
            headers={**self.headers, "Cache-Control": "no-store"},
        )


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def retry_after(seconds: float) -> dict[str, str]:
    """The `Retry-After` header, whole seconds from 1 to 120 (OpenAI's clients obey up to that)."""
    return {"Retry-After": str(min(120, max(1, math.ceil(seconds))))}


def draining() -> ApiError:
    """The answer to new work while the server shuts down."""
    headers = {**retry_after(5), "Connection": "close"}
    return ApiError(503, "the server is shutting down", code="shutting_down", headers=headers)


def engine_failure(code: str | None, message: str | None) -> ApiError:
    """The error behind a terminal chunk with finish reason `error`."""
    if code == EngineDeadError.code:
        return _engine_dead(message or "the engine stopped")
    if code == DeadlineExceededError.code:
        late = message or "no audio was ready in time"
        return ApiError(503, late, code=code, headers=retry_after(2))
    return ApiError(500, message or "the engine failed", code=code or "internal_error")


def _engine_dead(message: str) -> ApiError:
    return ApiError(
        503, f"the engine is restarting: {message}", code="engine_dead", headers=retry_after(2)
    )


def to_api_error(error: BaseException) -> ApiError:
    """The answer to any exception; unknown ones become a 500 that tells no internals."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OverloadedError):
        headers = retry_after(error.retry_after_s)
        return ApiError(429, str(error), code=error.code, headers=headers)
    if isinstance(error, EngineDeadError):
        return _engine_dead(str(error))
    if isinstance(error, RequestError):
        status = 404 if isinstance(error, UnknownModelError) else 400
        param = "input" if error.param == "text" else error.param
        return ApiError(status, error.message, param=param, code=error.code)
    if isinstance(error, web.HTTPException):
        return _from_http(error)
    if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        return ApiError(400, f"the body is malformed: {error}", code="invalid_value")
    return ApiError(500, "internal error; the server's log has the details", code="internal_error")


def _from_http(error: web.HTTPException) -> ApiError:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    message = error.text or error.reason
    return ApiError(error.status, message, code=codes.get(error.status), headers=headers)


def new_request_id() -> str:
    """Begin an answer: the id its `x-request-id` tells, and the log of its failures."""
    request_id = f"req_{uuid4().hex}"
    _REQUEST_ID.set(request_id)
    return request_id


def current_request_id() -> str:
    """The id of the answer that this task, or the one that started it, is making."""
    return _REQUEST_ID.get(None) or new_request_id()


def log_failure(failure: ApiError, cause: BaseException) -> None:
    """Log what clients are not told: the trace behind a 500, under the id they were given."""
    if failure.status == 500:
        logger.error("%s: %s", current_request_id(), failure, exc_info=cause)
