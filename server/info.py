"""The small GET endpoints: models, health, readiness, metrics, the API's description, the page."""

from __future__ import annotations

from pathlib import Path
from time import time

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from ..engine.errors import EngineDeadError
from .openapi import describe
from .protocol import AudioModel, AudioModelList, Health, ModelList, ModelObject
from .services import SERVICES

_STARTED = int(time())
_STATIC = Path(__file__).parent / "static"
_TYPES = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_POLICY = "default-src 'self'; media-src blob:; img-src data:"


def json_response(value: msgspec.Struct, status: int = 200) -> web.Response:
    """A struct as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(status=status, body=body, content_type="application/json")


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models`."""
    name = request.app[SERVICES].catalog.model_name
    return json_response(ModelList(data=[ModelObject(id=name, created=_STARTED)]))


async def model(request: web.Request) -> web.Response:
    """`GET /v1/models/{model}`."""
    services = request.app[SERVICES]
    name = request.match_info["model"]
    services.catalog.check_model(name)
    return json_response(ModelObject(id=name, created=_STARTED))


async def audio_models(request: web.Request) -> web.Response:
    """`GET /v1/audio/models`, the form Open WebUI asks for."""
    name = request.app[SERVICES].catalog.model_name
    return json_response(AudioModelList(models=[AudioModel(id=name)]))


async def health(request: web.Request) -> web.Response:
    """`GET /health`: the server's process is alive."""
    return json_response(Health(status="ok"))


async def ready(request: web.Request) -> web.Response:
    """`GET /ready`: 200 when a request would be served now, else 503."""
    services = request.app[SERVICES]
    if services.is_ready:
        return json_response(Health(status="ready"))
    return json_response(Health(status="draining" if services.draining else "not_ready"), 503)


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`; a dead engine leaves its numbers as last seen."""
    services = request.app[SERVICES]
    try:
        stats = await services.engine.stats()
    except EngineDeadError:
        stats = None
    services.metrics.ready.set(services.is_ready)
    services.metrics.streams_active.set(services.admission.in_flight)
    services.metrics.buffered_bytes.set(services.synthesizer.budget.used)
    services.metrics.cache_bytes.set(services.synthesizer.cache.num_bytes)
    body = services.metrics.render(stats)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def openapi(request: web.Request) -> web.Response:
    """`GET /openapi.json`."""
    body = msgspec.json.encode(describe())
    return web.Response(body=body, content_type="application/json")


async def page(request: web.Request) -> web.Response:
    """`GET /`: the web page."""
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    return _file("index.html", headers)


async def static(request: web.Request) -> web.Response:
    """`GET /static/{name}`: what the page needs, and nothing else of the disk."""
    name = request.match_info["name"]
    if name not in _TYPES:
        raise web.HTTPNotFound
    return _file(name, {"Cache-Control": "no-cache"})


def _file(name: str, headers: dict[str, str]) -> web.Response:
    body = (_STATIC / name).read_bytes()
    return web.Response(body=body, content_type=_TYPES[name], charset="utf-8", headers=headers)
