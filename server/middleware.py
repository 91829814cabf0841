"""Around every handler: request ids, errors as OpenAI's JSON, the API key, CORS, draining, counts.

Handlers raise; nothing else in the server builds error answers.
"""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler

from .errors import (
    ApiError,
    current_request_id,
    draining,
    log_failure,
    new_request_id,
    to_api_error,
)
from .services import SERVICES, Services

_OPEN_PATHS = frozenset({"/", "/health", "/ready", "/metrics", "/openapi.json", "/favicon.ico"})
_LISTINGS = frozenset({"/v1/models", "/v1/audio/voices", "/v1/audio/models"})


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into a JSON error, and count every answer."""
    services = request.app[SERVICES]
    new_request_id()
    services.answering += 1
    status = 499  # the client left before there was an answer
    try:
        response = await handler(request)
        status = response.status
        return response
    except (ConnectionError, web.GracefulExit):
        raise
    except Exception as error:
        failure = to_api_error(error)
        log_failure(failure, error)
        status = failure.status
        _count_failure(services, failure)
        return failure.response()
    finally:
        services.answering -= 1
        services.metrics.http_requests.labels(_route(request), str(status)).inc()


def _count_failure(services: Services, failure: ApiError) -> None:
    code = failure.detail.code or failure.detail.type
    services.metrics.failed.labels(code).inc()
    if failure.status == 429:
        services.metrics.rejections.labels(code).inc()


def _route(request: web.Request) -> str:
    """The route's pattern, never the raw path: clients must not make new metric labels."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who has the key; the page, health, metrics and description are open."""
    config = request.app[SERVICES].config
    if config.api_key is None or request.method == "OPTIONS" or _is_open(request):
        return await handler(request)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    given = given if scheme.lower() == "bearer" else _key_of_websocket(request)
    # aiohttp hands over bytes that are no UTF-8 as surrogates.
    offered = given.strip().encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(offered, config.api_key.encode()):
        message = "missing or wrong API key; send it as 'Authorization: Bearer KEY'"
        headers = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, message, code="invalid_api_key", headers=headers)
    return await handler(request)


def _is_open(request: web.Request) -> bool:
    if request.path in _OPEN_PATHS or request.path.startswith("/static/"):
        return True
    listing = request.method in ("GET", "HEAD") and request.path in _LISTINGS
    return listing and request.app[SERVICES].config.open_listing


def _key_of_websocket(request: web.Request) -> str:
    """Browsers cannot set headers on a WebSocket; OpenAI's convention is a subprotocol."""
    prefix = "openai-insecure-api-key."
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    keys = [part.strip()[len(prefix) :] for part in offered if part.strip().startswith(prefix)]
    return keys[0] if keys else ""


@web.middleware
async def refuse_when_draining(request: web.Request, handler: Handler) -> web.StreamResponse:
    """While the server shuts down, answer new speech with 503."""
    if request.app[SERVICES].draining and request.path.startswith("/v1/audio/speech"):
        raise draining()
    return await handler(request)


@web.middleware
async def check_length(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a body that says it is too large before any of it is read.

    What reads a body keeps its own limit; this one is for what no reader would take.
    """
    config = request.app[SERVICES].config
    limit = max(config.max_body_mib, config.max_reference_mib + 1) << 20  # a form around a file
    if (request.content_length or 0) > limit:
        message = f"the body has {request.content_length} bytes; at most {limit} are allowed"
        raise ApiError(413, message, code="body_too_large", headers={"Connection": "close"})
    return await handler(request)


@web.middleware
async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer browsers' CORS questions, when an origin is allowed."""
    origin = request.app[SERVICES].config.cors_origin
    if origin is None or request.method != "OPTIONS":
        return await handler(request)
    # OpenAI's client for browsers sends a dozen headers of its own, so any may be sent.
    asked = request.headers.get("Access-Control-Request-Headers", "Authorization, Content-Type")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": asked,
            "Access-Control-Max-Age": "600",
        },
    )


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer: an id to quote in reports, and the allowed origin if there is one."""
    if isinstance(response, web.HTTPException):  # raised before any middleware, as for Expect
        _say_in_json(response)
    response.headers["x-request-id"] = current_request_id()
    origin = request.app[SERVICES].config.cors_origin
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "x-request-id, Retry-After"


def _say_in_json(answer: web.HTTPException) -> None:
    answer.body = body = to_api_error(answer).body()
    answer.content_type = "application/json"
    answer.headers["Content-Length"] = str(len(body))  # it was set before this hook


MIDDLEWARES = (answer_errors, answer_preflight, check_key, refuse_when_draining, check_length)
