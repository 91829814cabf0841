"""`describe`: the OpenAPI document, made from the types that parse requests and shape answers.

Paths and status codes are listed here by hand; every schema comes from `protocol`, so the
description cannot drift from what is parsed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from .errors import ErrorBody
from .protocol import (
    AudioModelList,
    BatchAnswer,
    BatchBody,
    Health,
    ModelList,
    ModelObject,
    SpeechBody,
    VoiceDeleted,
    VoiceList,
    VoiceObject,
)

_TYPES = (
    SpeechBody, BatchBody, BatchAnswer, VoiceList, VoiceObject, VoiceDeleted,
    ModelList, ModelObject, AudioModelList, Health, ErrorBody,
)  # fmt: skip
_AUDIO_TYPES = (
    "audio/mpeg", "audio/ogg", "audio/aac", "audio/flac", "audio/wav", "audio/pcm",
    "text/event-stream",
)  # fmt: skip
_REASONS = {
    400: "The request is wrong; `param` names the field.",
    401: "The API key is missing or wrong.",
    404: "There is no such thing.",
    409: "The name is taken.",
    413: "The body is too large.",
    429: "Too much load; see Retry-After.",
    500: "The server failed.",
    503: "Shutting down, or the engine is restarting.",
    504: "The engine fell silent.",
}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _json(kind: type, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(kind)}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _json(ErrorBody, _REASONS[status]) for status in statuses}


def _operation(
    summary: str, responses: dict[str, Any], *, body: dict[str, Any] | None = None, key: bool = True
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    if not key:
        operation["security"] = []
    return operation


def _parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {
        "name": name, "in": "path", "required": True, "description": description, "schema": schema,
    }  # fmt: skip


def _speech() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    audio = {
        "description": "Audio, chunked; or server-sent events with stream_format sse.",
        "content": dict.fromkeys(_AUDIO_TYPES, binary),
    }
    body = {"application/json": {"schema": _ref(SpeechBody)}}
    errors = _errors(400, 401, 404, 413, 429, 500, 503, 504)
    return _operation("Speak a text", {"200": audio, **errors}, body=body)


def _batch() -> dict[str, Any]:
    answer = _json(BatchAnswer, "One result per item, in order.")
    body = {"application/json": {"schema": _ref(BatchBody)}}
    errors = _errors(400, 401, 404, 413, 503)
    return _operation("Speak many texts", {"200": answer, **errors}, body=body)


def _upload() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    schema = {
        "type": "object",
        "required": ["name", "consent", "ref_text", "audio_sample"],
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
            "consent": {**text, "description": "What the speaker agreed to."},
            "ref_text": {**text, "description": "The words spoken in the recording."},
            "language": {"type": "string"},
            "audio_sample": {"type": "string", "format": "binary"},
        },
    }
    responses = {"201": _json(VoiceObject, "Kept."), **_errors(400, 401, 409, 413)}
    return _operation(
        "Upload a reference voice", responses, body={"multipart/form-data": {"schema": schema}}
    )


def _get(summary: str, kind: type, *statuses: int, key: bool = True) -> dict[str, Any]:
    return _operation(summary, {"200": _json(kind, "OK"), **_errors(*statuses)}, key=key)


def _paths() -> dict[str, Any]:
    voice = _parameter("voice", "Id of an uploaded voice.")
    model = _parameter("model", "Name of a served model.")
    deleted = _get("Delete an uploaded voice", VoiceDeleted, 401, 404)
    ready = _get("Would a request be served now?", Health, key=False)
    ready["responses"]["503"] = _json(Health, "Not now.")
    text = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return {
        "/v1/audio/speech": {"post": _speech()},
        "/v1/audio/speech/batch": {"post": _batch()},
        "/v1/audio/voices": {
            "get": _get("List voices", VoiceList, 401),
            "post": _upload(),
        },
        "/v1/audio/voices/{voice}": {"delete": {**deleted, "parameters": [voice]}},
        "/v1/audio/models": {"get": _get("List models, short form", AudioModelList, 401)},
        "/v1/models": {"get": _get("List models", ModelList, 401)},
        "/v1/models/{model}": {
            "get": {**_get("One model", ModelObject, 401, 404), "parameters": [model]}
        },
        "/health": {"get": _get("Is the process alive?", Health, key=False)},
        "/ready": {"get": ready},
        "/metrics": {"get": _operation("Prometheus metrics", text, key=False)},
    }


@lru_cache(maxsize=1)
def describe() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stretto",
            "version": "1",
            "description": "Text to speech. The audio call is OpenAI's; see docs/http-api.md.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }
