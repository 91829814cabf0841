"""`JsonRunner`: aiohttp's runner, whose own answers to broken HTTP are OpenAI's JSON errors too.

What aiohttp cannot parse (a bad request line, an oversized header, TLS sent to a plain port) never
reaches the application or its middlewares; aiohttp answers it in plain text. Here the protocol says
the same as `errors` would. Errors of requests that were parsed are not handled here.
"""

from __future__ import annotations

import logging

from aiohttp import web

from .errors import ApiError, log_failure, new_request_id

logger = logging.getLogger(__name__)
_MAX_MESSAGE = 300


class _JsonProtocol(web.RequestHandler):
    """One connection; only what it says about errors differs from aiohttp's."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed, or whose handling failed outside.

        Raises:
            ConnectionError: part of another answer has been sent already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("another answer is under way on this connection")
        failure = _failure(status, message)
        request_id = new_request_id()
        if exc is not None:
            logger.debug("broken request %s", request_id, exc_info=exc)
            log_failure(failure, exc)
        response = failure.response()
        response.headers["x-request-id"] = request_id
        response.force_close()
        return response


def _failure(status: int, message: str | None) -> ApiError:
    if status >= 500:
        text = "internal error; the server's log has the details"
        return ApiError(status, text, code="internal_error")
    reason = " ".join((message or "it cannot be parsed").split())[:_MAX_MESSAGE]
    return ApiError(status, f"the request is not valid HTTP: {reason}", code="invalid_http")


class _JsonServer(web.Server):
    """Makes `_JsonProtocol`s for new connections."""

    def __call__(self) -> web.RequestHandler:
        return _JsonProtocol(self, loop=self._loop, **self._kwargs)


class JsonRunner(web.AppRunner):
    """Runs an application; see the module."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _JsonServer(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
