"""`make_app` and `run`: the application, and the process that serves it.

`run` starts the engine, listens, and on SIGTERM or SIGINT drains: running streams finish, new
speech is answered with 503, then it returns. Which engine is served is the caller's choice in
`make_app`; `run` takes the engine process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from os import environ

from aiohttp import web

from ..engine.config import EngineConfig
from ..engine.interface import EngineClient
from . import encoders, info, voice_routes
from .batch import batch
from .config import ServerConfig
from .memory import return_freed_memory
from .middleware import MIDDLEWARES, add_headers
from .runner import JsonRunner
from .services import SERVICES, Services, make_services
from .speech import speech
from .websocket import speech_stream

logger = logging.getLogger(__name__)
_POLL_S = 0.05


def make_app(
    config: ServerConfig, engine: EngineClient, *, max_num_seqs: int = 64
) -> web.Application:
    """The aiohttp application over a started engine.

    Args:
        config: the server's knobs.
        engine: speaks; must have been started, and is not closed by the application.
        max_num_seqs: requests the engine runs at once, for admission.
    """
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=config.max_body_mib << 20)
    app[SERVICES] = make_services(config, engine, max_num_seqs)
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(_own_services)
    app.add_routes(
        [
            web.post("/v1/audio/speech", speech),
            web.post("/v1/audio/speech/batch", batch),
            web.get("/v1/audio/speech/stream", speech_stream),
            web.get("/v1/audio/voices", voice_routes.list_voices),
            web.post("/v1/audio/voices", voice_routes.upload_voice),
            web.delete("/v1/audio/voices/{voice}", voice_routes.delete_voice),
            web.get("/v1/audio/models", info.audio_models),
            web.get("/v1/models", info.models),
            web.get("/v1/models/{model}", info.model),
            web.get("/health", info.health),
            web.get("/ready", info.ready),
            web.get("/metrics", info.metrics),
            web.get("/openapi.json", info.openapi),
            web.get("/", info.page),
            web.get("/static/{name}", info.static),
        ]
    )
    return app


async def _own_services(app: web.Application) -> AsyncIterator[None]:
    services = app[SERVICES]
    yield
    await services.synthesizer.close()
    services.pool.shutdown(wait=False, cancel_futures=True)


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner whose handlers are cancelled when their client leaves."""
    return JsonRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=5)


async def drain(services: Services) -> bool:
    """Refuse new speech and wait for what runs; False when `drain_timeout_s` passed first."""
    services.draining = True
    loop = asyncio.get_running_loop()
    end = loop.time() + services.config.drain_timeout_s
    closing = [asyncio.create_task(session.end_when_idle()) for session in services.sessions]
    while services.answering and loop.time() < end:
        await asyncio.sleep(_POLL_S)
    for task in closing:
        task.cancel()
    return not services.answering


async def serve(config: ServerConfig, engine: EngineClient, *, max_num_seqs: int) -> None:
    """Serve until SIGTERM or SIGINT, then drain. The engine is started and closed here.

    The process is taken to be the server's own: its signals and its allocator are set.
    """
    return_freed_memory()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await asyncio.gather(engine.start(), asyncio.to_thread(encoders.warm_up))
    try:
        app = make_app(config, engine, max_num_seqs=max_num_seqs)
        runner = make_runner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, config.host, config.port).start()
            for address in runner.addresses:
                logger.warning("serving on http://%s:%s", *address[:2])
            await stop.wait()
            finished = await drain(app[SERVICES])
            logger.warning("drained" if finished else "streams were cut after the drain timeout")
        finally:
            await runner.cleanup()
    finally:
        await engine.close()


def run(config: ServerConfig, engine_config: EngineConfig) -> None:
    """Serve a model from its own engine process until SIGTERM or SIGINT."""
    from ..engine.engine_process_client import EngineProcessClient

    if config.api_key is None and environ.get("STRETTO_API_KEY"):
        config = replace(config, api_key=environ["STRETTO_API_KEY"])
    engine = EngineProcessClient(engine_config)
    asyncio.run(serve(config, engine, max_num_seqs=engine_config.max_num_seqs))
