"""`POST /v1/audio/speech/batch`: many texts in one call, results in order, as base64.

Items are spoken side by side as ordinary requests of priority `bulk`; an item that fails tells its
own error and spoils no other.
"""

from __future__ import annotations

import asyncio
import base64

import msgspec
from aiohttp import web

from .errors import ApiError, log_failure, to_api_error
from .info import json_response
from .protocol import BatchAnswer, BatchBody, BatchResult, SpeechBody, SpeechOptions, decode
from .services import SERVICES, Services

_SIDE_BY_SIDE = 32  # items of one call in the engine at once; more would only wait there


async def batch(request: web.Request) -> web.Response:
    """Handle the call."""
    services = request.app[SERVICES]
    body = decode(await request.read(), BatchBody)
    limit = services.config.max_batch_items
    if len(body.items) > limit:
        message = f"{len(body.items)} items; at most {limit} are allowed"
        raise ApiError(400, message, param="items", code="invalid_value")
    turn = asyncio.Semaphore(_SIDE_BY_SIDE)
    calls = [
        _speak(services, turn, index, with_defaults(item, body))
        for index, item in enumerate(body.items)
    ]
    return json_response(BatchAnswer(results=await asyncio.gather(*calls)))


def with_defaults(item: SpeechBody, defaults: SpeechOptions) -> SpeechBody:
    """An item whose open fields are taken from `defaults`; its priority is `bulk` at last."""
    missing = {
        name: getattr(defaults, name)
        for name in SpeechOptions.__struct_fields__
        if getattr(item, name) is None
    }
    missing["priority"] = item.priority or defaults.priority or "bulk"
    return msgspec.structs.replace(item, **missing)


async def _speak(
    services: Services, turn: asyncio.Semaphore, index: int, item: SpeechBody
) -> BatchResult:
    async with turn:
        try:
            job = services.catalog.job(item)
            answer = services.speak(job)
            audio = await answer.whole()
        except Exception as error:
            failure = to_api_error(error)
            log_failure(failure, error)
            return BatchResult(index=index, status=failure.status, error=failure.detail)
        return BatchResult(
            index=index,
            status=200,
            audio=base64.b64encode(audio).decode(),
            content_type=job.output.content_type,
            duration_s=round(answer.audio_s, 6),
            usage=answer.usage,
        )
