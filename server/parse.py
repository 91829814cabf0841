"""From HTTP body to `SpeechJob`: the one place where names, aliases and references are resolved.

After this a request is valid in form and nothing inside checks it again. What only the model can
judge (scripts, lengths in tokens) is left to the engine, whose errors carry the same shape.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from ..engine.errors import UnknownModelError, UnknownVoiceError
from ..engine.interface import EngineClient
from ..engine.request import SamplingParams, SpeechRequest, Voice
from .config import ServerConfig
from .encoders import content_type, default_rate, supports_rate
from .errors import ApiError
from .protocol import AudioFormat, SpeechBody, SpeechOptions, VoiceObject
from .voice_store import VoiceStore, check_recording

OPENAI_VOICES = (
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx",
    "nova", "sage", "shimmer", "verse", "marin", "cedar",
)  # fmt: skip
OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """How audio leaves: format and sample rate in Hz."""

    audio_format: AudioFormat
    sample_rate: int

    @property
    def content_type(self) -> str:
        """The MIME type."""
        return content_type(self.audio_format, self.sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechJob:
    """A parsed request: what the engine speaks, and how the answer is delivered."""

    request: SpeechRequest
    output: OutputSpec
    stream: bool
    sse: bool


def parse_aliases(text: str) -> dict[str, str]:
    """Read `alias=voice,alias=voice`.

    Raises:
        ValueError: a part is not of that form.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (alias.strip() and voice.strip()) for alias, _, voice in pairs):
        raise ValueError(f"voice aliases must be alias=voice,alias=voice, got {text!r}")
    return {alias.strip(): voice.strip() for alias, _, voice in pairs}


class Catalog:
    """The names clients may use: models, voices, aliases, uploads."""

    def __init__(self, engine: EngineClient, store: VoiceStore, config: ServerConfig) -> None:
        self._engine = engine
        self._store = store
        self._config = config
        self._aliases = parse_aliases(config.voice_aliases)

    @property
    def model_name(self) -> str:
        """The name the model is served under."""
        return self._config.served_model_name or self._engine.model_info.name

    def check_model(self, name: str | None) -> None:
        """Accept the served name, the model's own, `default` and OpenAI's; raise otherwise."""
        own = self._engine.model_info.name
        if name not in (None, "", "default", own, self.model_name, *OPENAI_MODELS):
            message = f"the model {name!r} is not served here; {self.model_name!r} is"
            raise UnknownModelError(message, param="model")

    def voices(self) -> list[VoiceObject]:
        """The model's voices, then the uploaded ones."""
        own = [
            VoiceObject(
                id=voice.id,
                name=voice.name,
                language=voice.language,
                description=voice.description,
            )
            for voice in self._engine.model_info.voices
        ]
        uploads = [
            VoiceObject(id=v.id, name=v.name, language=v.language, uploaded=True)
            for v in self._store.list()
        ]
        return own + uploads

    def is_reserved(self, name: str) -> bool:
        """Whether an upload may not take this name."""
        return name in self._own_ids() or name in self._aliases or name in OPENAI_VOICES

    def resolve_voice(self, name: str | None) -> str | Voice | None:
        """A voice the engine knows, or an uploaded one by value; None is the default.

        Raises:
            UnknownVoiceError: no such voice, alias or upload.
        """
        if not name:
            return None
        own = self._own_ids()
        alias = self._alias_map(own).get(name)
        if name in own or alias is not None:
            return name if name in own else alias
        stored = self._store.get(name)
        if stored is None:
            known = ", ".join(repr(v) for v in own[:20])
            raise UnknownVoiceError(f"unknown voice {name!r}; known are {known}", param="voice")
        try:
            return Voice(audio=self._store.recording(name), transcript=stored.transcript)
        except OSError:  # deleted between the two reads
            raise UnknownVoiceError(f"unknown voice {name!r}", param="voice") from None

    def _own_ids(self) -> list[str]:
        return [voice.id for voice in self._engine.model_info.voices]

    def _alias_map(self, own: list[str]) -> Mapping[str, str]:
        """OpenAI's names spread over the model's voices, overridden by the configured ones."""
        spread = {alias: own[i % len(own)] for i, alias in enumerate(OPENAI_VOICES)} if own else {}
        return {**spread, **self._aliases}

    def job(self, body: SpeechBody) -> SpeechJob:
        """The job a body asks for.

        Raises:
            ApiError: a value is wrong, or asks for what the model does not do.
            RequestError: a name is unknown or a value out of range.
        """
        self._check_text(body.input)
        return self._job(body.input, body)

    def template(self, options: SpeechOptions) -> SpeechJob:
        """The job of a text still to come; raises as `job` does."""
        return self._job("-", options)

    def _job(self, text: str, options: SpeechOptions) -> SpeechJob:
        self.check_model(options.model)
        output = self.output(options)
        request = SpeechRequest(
            text=text,
            voice=self.voice_of(options),
            language=options.language,
            speed=1.0 if options.speed is None else options.speed,
            seed=options.seed,
            sampling=_sampling(options),
            priority=options.priority or "interactive",
            deadline_s=options.deadline_s,
            normalize=options.normalize is not False,
        )
        sse = options.stream_format == "sse"
        return SpeechJob(
            request=request, output=output, stream=sse or options.stream is not False, sse=sse
        )

    def output(self, options: SpeechOptions) -> OutputSpec:
        """Format and rate; the rate defaults to what suits format and model."""
        audio_format = options.response_format or "mp3"
        native = self._engine.model_info.sample_rate
        rate = options.sample_rate or default_rate(audio_format, native)
        if not supports_rate(audio_format, rate):
            message = f"{audio_format} cannot carry a sample rate of {rate}"
            raise ApiError(400, message, param="sample_rate", code="unsupported_value")
        return OutputSpec(audio_format=audio_format, sample_rate=rate)

    def voice_of(self, options: SpeechOptions) -> str | Voice | None:
        """The voice asked for: a reference recording wins over a name."""
        if options.ref_audio is not None:
            return self._reference(options.ref_audio, options.ref_text)
        named = options.voice if options.voice is not None else options.speaker
        return self.resolve_voice(named if isinstance(named, str) or named is None else named.id)

    def check_zero_shot(self, param: str) -> None:
        """Raise unless the model can speak like a recording."""
        if not self._engine.model_info.supports_zero_shot:
            message = f"the model {self.model_name!r} cannot imitate a recording"
            raise ApiError(400, message, param=param, code="unsupported_value")

    def _check_text(self, text: str) -> None:
        limit = min(self._config.max_input_chars, self._engine.model_info.max_text_chars)
        if len(text) > limit:
            message = f"input has {len(text)} characters; at most {limit} are allowed"
            raise ApiError(400, message, param="input", code="string_too_long")

    def _reference(self, encoded: str, transcript: str | None) -> Voice:
        self.check_zero_shot("ref_audio")
        data = _decode_base64(encoded)
        config = self._config
        check_recording(
            data,
            max_bytes=config.max_reference_mib << 20,
            max_s=config.max_reference_s,
            param="ref_audio",
        )
        return Voice(audio=data, transcript=transcript)


def _decode_base64(encoded: str) -> bytes:
    """The bytes of a base64 string or a base64 `data:` URI. Nothing is ever fetched or opened."""
    head, comma, tail = encoded.partition(",")
    is_uri = head.startswith("data:")
    if is_uri and not (comma and head.endswith(";base64")):
        message = "ref_audio must be base64 or a base64 data: URI"
        raise ApiError(400, message, param="ref_audio", code="invalid_value")
    try:
        return base64.b64decode(tail if is_uri else encoded, validate=True)
    except (binascii.Error, ValueError):
        message = "ref_audio must be base64 or a base64 data: URI; paths and URLs are not opened"
        raise ApiError(400, message, param="ref_audio", code="invalid_value") from None


def _sampling(options: SpeechOptions) -> SamplingParams:
    return SamplingParams(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        repetition_penalty=options.repetition_penalty,
        max_new_tokens=options.max_new_tokens,
    )
