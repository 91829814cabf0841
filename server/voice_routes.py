"""Voices over HTTP: list, upload a reference recording, delete.

Uploads are multipart forms, read part by part and bounded in size before anything is decoded.
"""

from __future__ import annotations

import asyncio
from time import time

from aiohttp import BodyPartReader, web

from .errors import ApiError
from .info import json_response
from .protocol import VoiceDeleted, VoiceList, VoiceObject
from .services import SERVICES
from .voice_store import StoredVoice, check_recording

_AUDIO_FIELDS = frozenset({"audio_sample", "ref_audio", "file"})
_TEXT_FIELDS = frozenset({"name", "consent", "ref_text", "language"})
_MAX_TEXT = 10_000


async def list_voices(request: web.Request) -> web.Response:
    """`GET /v1/audio/voices`."""
    catalog = request.app[SERVICES].catalog
    voices = await asyncio.to_thread(catalog.voices)
    return json_response(VoiceList(voices=voices))


async def delete_voice(request: web.Request) -> web.Response:
    """`DELETE /v1/audio/voices/{voice}`; only uploaded voices can go."""
    name = request.match_info["voice"]
    services = request.app[SERVICES]
    if not await asyncio.to_thread(services.store.delete, name):
        raise ApiError(404, f"no uploaded voice {name!r}", param="voice", code="unknown_voice")
    return json_response(VoiceDeleted(id=name))


async def upload_voice(request: web.Request) -> web.Response:
    """`POST /v1/audio/voices`: name, consent, ref_text and audio_sample as a multipart form."""
    services = request.app[SERVICES]
    services.catalog.check_zero_shot("audio_sample")
    config = services.config
    texts, recording = await _read_form(request, config.max_reference_mib << 20)
    name = _required(texts, "name")
    if services.catalog.is_reserved(name):
        raise ApiError(409, f"the name {name!r} is taken", param="name", code="voice_exists")
    voice = StoredVoice(
        id=name,
        name=name,
        transcript=_required(texts, "ref_text"),
        consent=_required(texts, "consent"),
        created_at=int(time()),
        language=texts.get("language"),
        duration_s=check_recording(
            recording,
            max_bytes=config.max_reference_mib << 20,
            max_s=config.max_reference_s,
            param="audio_sample",
        ),
    )
    await asyncio.to_thread(services.store.add, voice, recording)
    listed = VoiceObject(id=name, name=name, language=voice.language, uploaded=True)
    return json_response(listed, 201)


async def _read_form(request: web.Request, max_bytes: int) -> tuple[dict[str, str], bytes]:
    if request.content_type != "multipart/form-data":
        raise ApiError(400, "send a multipart/form-data body", code="invalid_value")
    texts: dict[str, str] = {}
    recording = b""
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name in _TEXT_FIELDS:
                data = await _read_part(part, _MAX_TEXT)
                texts[part.name] = data.decode("utf-8").strip()
            elif part.name in _AUDIO_FIELDS:
                recording = await _read_part(part, max_bytes)
    except (ValueError, AssertionError, LookupError) as error:
        message = f"the multipart body is malformed: {error}"
        raise ApiError(400, message, code="invalid_value") from None
    return texts, recording


async def _read_part(part: BodyPartReader, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk():
        data += chunk
        if len(data) > max_bytes:
            message = f"{part.name} is larger than {max_bytes} bytes"
            raise ApiError(413, message, param=part.name, code="body_too_large")
    return bytes(data)


def _required(texts: dict[str, str], name: str) -> str:
    if not (value := texts.get(name, "")):
        raise ApiError(400, f"the field {name} is missing", param=name, code="missing_field")
    return value
