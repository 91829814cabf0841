"""ChatTTS voices: by name, by seed, by speaker string or `.pt` file, or cloned from a recording.

A voice becomes a `Conditioning`: either a speaker vector for the `[spk_emb]` position or the codes
and transcript of a recording. Encoding a recording is the vocoder's work and comes in as a
callable.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch

from ...engine.errors import CheckpointError, RequestError, UnknownVoiceError
from ...engine.interface import VoiceInfo
from ...engine.request import Voice
from ..interfaces import FloatArray, IntArray
from .speaker_codec import decode_base16384, decode_speaker, load_speaker_file, unit_speaker

__all__ = ["ChatTTSVoices", "Conditioning", "EncodeReference"]

EncodeReference = Callable[[bytes], IntArray]
"""Audio file bytes to codes int32 [num_frames, num_codebooks]; raises RequestError."""

_SEED_PREFIX = "seed:"
_LISTED_SEEDS = (2, 7, 11, 42, 99, 1234)
_MAX_CACHED_REFERENCES = 64
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioning:
    """What a voice adds to a prompt.

    Attributes:
        speaker: float32 [hidden_size], L2-normalised, or None.
        frames: int32 [num_frames, num_codebooks] of a recording, or None.
        transcript: what is said in the recording.
    """

    speaker: FloatArray | None = None
    frames: IntArray | None = None
    transcript: str = ""


class ChatTTSVoices:
    """The voices of one checkpoint. Thread-safe.

    Args:
        folder: the checkpoint; `asset/spk_stat.pt` ([2 * hidden_size]: deviations, then means,
            or the same as a base16384 string of float16) makes random voices sound as trained.
        hidden_size: of the speech model.
        encode_reference: None where recordings cannot be encoded.

    Raises:
        CheckpointError: `spk_stat.pt` is there but not of that form.
    """

    def __init__(
        self, folder: Path, hidden_size: int, encode_reference: EncodeReference | None
    ) -> None:
        self._hidden_size = hidden_size
        self._encode_reference = encode_reference
        self._references: OrderedDict[bytes, IntArray] = OrderedDict()
        self._lock = Lock()
        self._statistics = _load_statistics(folder / "asset" / "spk_stat.pt", hidden_size)

    @property
    def listed(self) -> tuple[VoiceInfo, ...]:
        """Some random voices by their seeds; any other `seed:N` works as well."""
        origin = "trained" if self._statistics is not None else "untrained (no asset/spk_stat.pt)"
        return tuple(
            VoiceInfo(
                id=f"{_SEED_PREFIX}{seed}",
                name=f"Random voice {seed}",
                language="multi",
                description=f"Drawn by seed {seed} from the {origin} distribution of voices",
            )
            for seed in _LISTED_SEEDS
        )

    def resolve(self, voice: str | Voice | None) -> Conditioning:
        """Conditioning of a voice; None is the first listed one.

        Raises:
            RequestError: no such voice, or its string, file or recording cannot be read.
        """
        if voice is None:
            return self._random(_LISTED_SEEDS[0])
        if isinstance(voice, str):
            return self._named(voice)
        if voice.seed is not None:
            return self._random(voice.seed)
        if voice.embedding is not None:
            vector = decode_speaker(voice.embedding, self._hidden_size)
            return Conditioning(speaker=unit_speaker(vector))
        return self._from_recording(voice) if voice.audio else self._from_file(voice)

    def _named(self, name: str) -> Conditioning:
        number = name.removeprefix(_SEED_PREFIX)
        if name.startswith(_SEED_PREFIX) and number.isascii() and number.isdigit():
            if len(number) < 19:
                return self._random(int(number))
            raise UnknownVoiceError("the seed of a voice must be below 10**18", param="voice")
        known = ", ".join(info.id for info in self.listed)
        raise UnknownVoiceError(
            f"unknown voice {name[:80]!r}; this model has {known}, any other {_SEED_PREFIX}N, "
            "speaker strings and reference recordings",
            param="voice",
        )

    def _random(self, seed: int) -> Conditioning:
        generator = torch.Generator().manual_seed(seed)
        vector = torch.randn(self._hidden_size, generator=generator, dtype=torch.float16)
        if self._statistics is not None:
            deviations, means = self._statistics.chunk(2)
            vector = vector * deviations + means
        return Conditioning(speaker=unit_speaker(vector))

    def _from_file(self, voice: Voice) -> Conditioning:
        path = Path(voice.path or "")
        if path.suffix == ".pt":
            return Conditioning(speaker=unit_speaker(load_speaker_file(path, self._hidden_size)))
        if not (voice.transcript or "").strip():
            raise RequestError(
                f"{path.name} is taken as a reference recording, which needs its transcript "
                "(ref_text); speaker files end in .pt",
                param="ref_text",
            )
        try:
            audio = path.read_bytes()
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}", param="voice") from error
        return self._clone(audio, voice.transcript or "")

    def _from_recording(self, voice: Voice) -> Conditioning:
        return self._clone(voice.audio or b"", voice.transcript or "")

    def _clone(self, audio: bytes, transcript: str) -> Conditioning:
        if self._encode_reference is None:
            raise RequestError("this model cannot clone a voice from a recording", param="voice")
        key = hashlib.sha256(audio).digest()
        with self._lock:
            frames = self._references.get(key)
            if frames is None:
                frames = self._encode_reference(audio)
                self._references[key] = frames
                if len(self._references) > _MAX_CACHED_REFERENCES:
                    self._references.popitem(last=False)
            else:
                self._references.move_to_end(key)
        return Conditioning(frames=frames, transcript=transcript)


def _load_statistics(path: Path, hidden_size: int) -> torch.Tensor | None:
    """float16 [2 * hidden_size], or None where the checkpoint has none."""
    if not path.exists():
        _logger.warning("%s is missing: random voices are drawn from a unit normal", path)
        return None
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(value, str):
            value = torch.frombuffer(bytearray(decode_base16384(value)), dtype=torch.float16)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise CheckpointError(f"{path} is not a readable .pt file") from error
    if not isinstance(value, torch.Tensor) or value.numel() != 2 * hidden_size:
        raise CheckpointError(f"{path} must hold {2 * hidden_size} values")
    return value.detach().flatten().to(torch.float16)
