"""One entry per architecture: what turns a checkpoint folder into a frontend and a speech model.

Nothing outside a model's own files asks which model it is; this table is where the name ends.
Frontends are imported when their model is loaded, because their dependencies are heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...engine.errors import CheckpointError
from ..interfaces import Frontend, SpeechModelSpec
from . import chattts, default_voice
from .chattts import llama_config
from .checkpoint import Checkpoint
from .llama_speech import LlamaSpeech

if TYPE_CHECKING:
    from ..frontends.chattts_voices import EncodeReference

CreateFrontend = Callable[[Path, SpeechModelSpec, "EncodeReference | None"], Frontend]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What one architecture brings.

    Attributes:
        speech_spec: its declaration, from a checkpoint.
        create_frontend: its frontend, from the folder, the declaration and the codec's encoder.
    """

    speech_spec: Callable[[Checkpoint], SpeechModelSpec]
    create_frontend: CreateFrontend


def _chattts_frontend(
    folder: Path, spec: SpeechModelSpec, encode_reference: EncodeReference | None
) -> Frontend:
    from ..frontends.chattts import ChatTTSFrontend

    return ChatTTSFrontend.from_folder(folder, spec, encode_reference)


def _english_frontend(
    folder: Path, spec: SpeechModelSpec, encode_reference: EncodeReference | None
) -> Frontend:
    from ..frontends.english_voice import EnglishVoiceFrontend

    return EnglishVoiceFrontend.from_folder(folder, spec, encode_reference)


REGISTRY: Mapping[str, ModelEntry] = {
    "ChatTTS": ModelEntry(chattts.speech_spec, _chattts_frontend),
    "DefaultVoice": ModelEntry(default_voice.speech_spec, _english_frontend),
}


def find_entry(checkpoint: Checkpoint) -> ModelEntry:
    """The entry of a checkpoint's architecture.

    Raises:
        CheckpointError: the architecture is not known.
    """
    entry = REGISTRY.get(checkpoint.architecture)
    if entry is None:
        known = ", ".join(sorted(REGISTRY))
        raise CheckpointError(
            f"{checkpoint.path}: unknown architecture {checkpoint.architecture!r} (known: {known})"
        )
    return entry


def load_speech_model(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device
) -> LlamaSpeech:
    """The speech model with its weights, read tensor by tensor.

    Raises:
        CheckpointError: a file or tensor is missing or malformed, or the architecture unknown.
    """
    spec = find_entry(checkpoint).speech_spec(checkpoint)
    with (
        checkpoint.tensors("gpt/model.safetensors", dtype=torch.float32) as gpt,
        checkpoint.tensors("Embed.safetensors", dtype=torch.float32) as embed,
    ):
        return LlamaSpeech(spec, llama_config(checkpoint), gpt, embed, dtype=dtype, device=device)


def load_frontend(
    checkpoint: Checkpoint, encode_reference: EncodeReference | None = None
) -> Frontend:
    """The frontend of a checkpoint; it needs no weights.

    Args:
        encode_reference: recordings to codes; without it no voice is made of a recording.

    Raises:
        CheckpointError: a file is missing or malformed, or the architecture unknown.
    """
    entry = find_entry(checkpoint)
    return entry.create_frontend(checkpoint.path, entry.speech_spec(checkpoint), encode_reference)
