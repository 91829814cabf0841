"""The JSON that crosses the HTTP edge, as msgspec types: parsed once, described once.

The same types make `/openapi.json`, so what is documented is what is parsed. They check form only;
`parse` turns them into the engine's `SpeechRequest`. Unknown fields are ignored, and null stands
for absence everywhere, because real clients send both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..engine.request import MAX_SEED, MAX_SPEED, MIN_SPEED, Priority
from .errors import ApiError, ErrorDetail

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
StreamFormat = Literal["audio", "sse"]
SampleRate = Literal[8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000]

Speed = Annotated[float, Meta(ge=MIN_SPEED, le=MAX_SPEED, description="Tempo; pitch stays.")]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED, description="Same seed, same audio.")]
Positive = Annotated[float, Meta(gt=0, le=10)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Mass = Annotated[float, Meta(gt=0, le=1)]

S = TypeVar("S")


class VoiceRef(Struct, frozen=True, kw_only=True):
    """A voice by id, OpenAI's second form."""

    id: str


class SpeechOptions(Struct, frozen=True, kw_only=True):
    """Everything about a request but its text; the batch call and the WebSocket share it."""

    model: str | None = None
    voice: str | VoiceRef | None = None
    speaker: Annotated[str, Meta(description="Another name for `voice`.")] | None = None
    instructions: (
        Annotated[str, Meta(max_length=4096, description="Ignored by models without it.")] | None
    ) = None
    response_format: AudioFormat | None = None
    speed: Speed | None = None
    stream_format: StreamFormat | None = None
    stream: (
        Annotated[bool, Meta(description="False waits for the whole file (default true).")] | None
    ) = None
    seed: Seed | None = None
    temperature: Positive | None = None
    top_p: Mass | None = None
    top_k: Count | None = None
    repetition_penalty: Positive | None = None
    max_new_tokens: Count | None = None
    ref_audio: (
        Annotated[str, Meta(description="Reference recording, base64 or a data: URI.")] | None
    ) = None
    ref_text: Annotated[str, Meta(description="The words spoken in ref_audio.")] | None = None
    language: Annotated[str, Meta(max_length=16)] | None = None
    normalize: bool | None = None
    sample_rate: SampleRate | None = None
    priority: Priority | None = None
    deadline_s: (
        Annotated[
            float, Meta(gt=0, le=1e9, description="Refuse if the first audio would be later.")
        ]
        | None
    ) = None


class SpeechBody(SpeechOptions, frozen=True, kw_only=True):
    """Body of `POST /v1/audio/speech`."""

    input: Annotated[str, Meta(min_length=1, description="The text to speak.")]


class BatchBody(SpeechOptions, frozen=True, kw_only=True):
    """Body of `POST /v1/audio/speech/batch`; fields beside `items` are the items' defaults."""

    items: Annotated[list[SpeechBody], Meta(min_length=1)]


class Usage(Struct, frozen=True, kw_only=True):
    """Prompt positions in, frames out."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class BatchResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item's outcome: `audio` (base64) or `error`."""

    index: int
    status: int
    audio: str | None = None
    content_type: str | None = None
    duration_s: float | None = None
    usage: Usage | None = None
    error: ErrorDetail | None = None


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """Answer of the batch call, results in the order of the items."""

    object: str = "list"
    results: list[BatchResult]


class AudioDelta(Struct, frozen=True, kw_only=True, tag="speech.audio.delta"):
    """Server-sent event: base64 of the next encoded bytes."""

    audio: str


class AudioDone(Struct, frozen=True, kw_only=True, tag="speech.audio.done"):
    """Server-sent event: the stream is whole."""

    usage: Usage


class SessionConfig(SpeechOptions, frozen=True, kw_only=True, tag="session.config"):
    """Client to WebSocket: settings of the utterances that follow."""


class InputText(Struct, frozen=True, kw_only=True, tag="input.text"):
    """Client to WebSocket: more text."""

    text: str


class InputDone(Struct, frozen=True, tag="input.done"):
    """Client to WebSocket: the text is whole."""


class Cancel(Struct, frozen=True, tag="cancel"):
    """Client to WebSocket: stop speaking now."""


class SessionClose(Struct, frozen=True, tag="session.close"):
    """Client to WebSocket: speak what is left, then close."""


ClientMessage = SessionConfig | InputText | InputDone | Cancel | SessionClose


class SessionCreated(Struct, frozen=True, tag="session.created"):
    """WebSocket to client: ready for text."""


class AudioStarted(Struct, frozen=True, kw_only=True, tag="audio.start"):
    """WebSocket to client: binary messages of this type follow."""

    content_type: str
    sample_rate: int


class UtteranceDone(Struct, frozen=True, kw_only=True, tag="audio.done"):
    """WebSocket to client: the utterance was sent whole."""

    audio_s: float
    usage: Usage


class Cancelled(Struct, frozen=True, kw_only=True, tag="cancelled"):
    """WebSocket to client: nothing more comes; `audio_s` seconds were sent."""

    audio_s: float


class StreamError(Struct, frozen=True, kw_only=True, tag="speech.audio.error"):
    """A failure, as server-sent event or WebSocket message."""

    error: ErrorDetail


ServerMessage = SessionCreated | AudioStarted | UtteranceDone | Cancelled | StreamError


class VoiceObject(Struct, frozen=True, kw_only=True):
    """A voice as listed."""

    id: str
    name: str
    language: str | None = None
    description: str = ""
    uploaded: bool = False
    object: str = "audio.voice"


class VoiceList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/audio/voices`."""

    voices: list[VoiceObject]
    object: str = "list"


class VoiceDeleted(Struct, frozen=True, kw_only=True):
    """Answer of `DELETE /v1/audio/voices/{id}`."""

    id: str
    deleted: bool = True
    object: str = "audio.voice.deleted"


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model as listed."""

    id: str
    created: int
    owned_by: str = "stretto"
    object: str = "model"


class ModelList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/models`."""

    data: list[ModelObject]
    object: str = "list"


class AudioModel(Struct, frozen=True, kw_only=True):
    """A model in the form Open WebUI asks for."""

    id: str


class AudioModelList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/audio/models`."""

    models: list[AudioModel]


class Health(Struct, frozen=True, kw_only=True):
    """Answer of `/health` and `/ready`."""

    status: str


def decode(data: bytes, kind: type[S]) -> S:
    """Parse a JSON body.

    Raises:
        ApiError: 400, when it is no JSON or not of that form; `param` names the field.
    """
    with _errors_told():
        return msgspec.json.decode(data, type=kind)


def decode_message(text: str) -> ClientMessage:
    """Parse a WebSocket message; raises as `decode` does."""
    with _errors_told():
        return _MESSAGES.decode(text)


_MESSAGES: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = path.strip("`.").split("`")[0] or None
        where = f"{param}: " if param else ""
        raise ApiError(400, where + message, param=param, code="invalid_value") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        message = f"the body is not valid JSON: {error}"
        raise ApiError(400, message, code="invalid_json") from None
