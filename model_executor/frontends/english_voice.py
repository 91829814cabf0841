"""The frontend of the default voice: English text to the phones it was trained on.

    [Stts] [spk_emb] [speed_k] phones and marks [Ptts]

Text is normalised, cut into chunks of the length the voice was trained for, and every word becomes
phones. The speed token is always that of the voice's own tempo: stretching the audio keeps a
request's speed more exactly, and is understood no worse (see the model card). The token inventory
is `phones`, words are read by `english_words`; nothing here runs the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from ...engine.errors import CheckpointError, RequestError, RequestTooLongError, UnknownVoiceError
from ...engine.interface import VoiceInfo
from ...engine.request import SpeechRequest, Voice
from ..interfaces import FloatArray, IntArray, Prompt, SpeechEdges, SpeechModelSpec
from .english_words import Pronouncer
from .letter_to_sound import LetterToSound
from .lexicon import load_lexicon
from .phones import FINAL_MARKS, PUNCTUATION, SPEAKER, TOKEN_IDS, WORD_SEPARATOR, encode_chunk
from .scripts import unsupported_letters
from .segmentation import Segment, SegmentLimits, segment_lines
from .text_normalizer import CONTROL_TAG, TextNormalizer

__all__ = ["DurationGuard", "EnglishVoiceFrontend", "VoiceOutput"]

_LIMITS = SegmentLimits(max_units=32, min_units=8)  # 16 short words
_SPEAKER_POSITION = encode_chunk(()).index(TOKEN_IDS[SPEAKER])
_PAUSE_TAG = re.compile(r"\[(?:uv_break|v_break|lbreak|llbreak|break_[1-7])\]")
_MIN_GUARD_FRAMES = 40
_PIECE = re.compile(r"[A-Za-z0-9']+|[,;:.?!]")
_KNOWN_VOICES = {
    "slt": ("Female", "American English, clear and even"),
    "rms": ("Male", "American English, deeper and calm"),
}
_NO_OTHER_VOICES = "the default voice model cannot take on other voices; ChatTTS models can"


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationGuard:
    """How many frames a chunk may take before it must be a runaway, and how many it must take.

    Attributes:
        frames_per_phone: expected frames of one phone, over both voices.
        frames_per_mark: expected frames of the pause at a punctuation mark inside the chunk.
        base_frames: silence at the ends, and room for the shortest chunks.
        factor: how many times the expected length is still believed.
        least: share of the expected length before which a chunk cannot have been said.
    """

    frames_per_phone: float = 4.2
    frames_per_mark: float = 14.0
    base_frames: float = 12.0
    factor: float = 1.6
    least: float = 0.0

    def max_frames(self, num_phones: int, num_marks: int) -> int:
        """The cap for a chunk."""
        return max(_MIN_GUARD_FRAMES, round(self.factor * self._expected(num_phones, num_marks)))

    def min_frames(self, num_phones: int, num_marks: int) -> int:
        """Frames before which a chunk does not end."""
        return round(self.least * self._expected(num_phones, num_marks))

    def _expected(self, num_phones: int, num_marks: int) -> float:
        phones, marks = self.frames_per_phone * num_phones, self.frames_per_mark * num_marks
        return self.base_frames + phones + marks


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOutput:
    """What is done to the audio of every segment.

    Attributes:
        gains: factor by voice that brings all voices to one level; 1 for voices not in it.
        edges: the silence that stays around speech; None leaves the model's own.
    """

    gains: Mapping[str, float] = field(default_factory=dict)
    edges: SpeechEdges | None = None


class EnglishVoiceFrontend:
    """Implements `Frontend` for the default voice. Thread-safe.

    Args:
        pronouncer: words to phones.
        speakers: vector [hidden_size] of each voice by name; the first is the default.
        guard: see `DurationGuard`.
        output: see `VoiceOutput`.
    """

    max_text_chars = 100_000

    def __init__(
        self,
        pronouncer: Pronouncer,
        speakers: dict[str, FloatArray],
        guard: DurationGuard,
        output: VoiceOutput,
    ) -> None:
        self._pronouncer = pronouncer
        self._speakers = speakers
        self._guard = guard
        self._output = output
        self._normalizer = TextNormalizer()

    @classmethod
    def from_folder(
        cls, folder: Path, spec: SpeechModelSpec, encode_reference: object = None
    ) -> EnglishVoiceFrontend:
        """The frontend of a checkpoint folder.

        Args:
            folder: with `lexicon.txt.xz`, `letter_to_sound.safetensors`, `asset/spk.safetensors`
                and, optionally, `duration_guard` and `output` in `asset/stretto.json`.
            encode_reference: not used; this model clones no voices.

        Raises:
            CheckpointError: a file is missing or malformed.
        """
        lexicon_path = folder / "lexicon.txt.xz"
        try:
            lexicon = load_lexicon(lexicon_path)
        except Exception as error:  # a missing file, broken xz or a malformed line
            raise CheckpointError(f"{lexicon_path} is no lexicon: {error}") from error
        rules = LetterToSound.from_file(folder / "letter_to_sound.safetensors")
        speakers = _load_speakers(folder / "asset" / "spk.safetensors", spec.hidden_size)
        settings = folder / "asset" / "stretto.json"
        guard, output = _load_guard(settings), _load_output(settings)
        return cls(Pronouncer(lexicon, rules), speakers, guard, output)

    @property
    def voices(self) -> tuple[VoiceInfo, ...]:
        """The trained speakers."""
        return tuple(_voice_info(name) for name in self._speakers)

    @property
    def default_voice(self) -> str:
        """The female voice."""
        return next(iter(self._speakers))

    @property
    def languages(self) -> tuple[str, ...]:
        """English alone."""
        return ("en",)

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        """See `Frontend.encode`."""
        _check_options(request)
        voice = self._voice(request.voice)
        prompts = [self._prompt(segment, voice) for segment in self._segments(request)]
        if not prompts:
            raise RequestError(
                "nothing in the text can be spoken: it has no word and no number", param="text"
            )
        return prompts

    def refine(self, request: SpeechRequest) -> list[Prompt]:
        """Always refused: see `Frontend.refine`."""
        raise RequestError(
            "the default voice model has no text refinement; ChatTTS models have", param="refine"
        )

    def encode_refined(
        self, request: SpeechRequest, refined: Sequence[Sequence[int]]
    ) -> list[Prompt]:
        """Always refused: see `Frontend.refine`."""
        return self.refine(request)

    def tokens(self, text: str) -> list[str]:
        """Phone and mark tokens of one normalised chunk; empty when it has no word."""
        pieces = _PIECE.findall(text)
        words = [piece for piece in pieces if piece not in PUNCTUATION]
        spoken = iter(self._pronouncer.pronounce(words))
        tokens: list[str] = []
        for piece in pieces:
            if piece in PUNCTUATION:
                _append_mark(tokens, piece)
            elif phones := next(spoken):
                tokens += (*phones, WORD_SEPARATOR)
        return _with_final_mark(tokens)

    def _segments(self, request: SpeechRequest) -> list[Segment]:
        text = CONTROL_TAG.sub("", _PAUSE_TAG.sub(", ", request.text))
        if len(text) > self.max_text_chars:
            raise RequestTooLongError(
                f"the text has {len(text)} characters, at most {self.max_text_chars} are taken",
                param="text",
            )
        _check_scripts(text)
        return segment_lines(text, _LIMITS, lambda sentence: self._spoken(sentence, request))

    def _spoken(self, sentence: str, request: SpeechRequest) -> str:
        spoken = self._normalizer.normalize(sentence, "en") if request.normalize else sentence
        return spoken if _PIECE.search(spoken) else ""

    def _voice(self, voice: str | Voice | None) -> str:
        if isinstance(voice, Voice):
            raise UnknownVoiceError(f"{_NO_OTHER_VOICES}. {self._known()}", param="voice")
        if voice is None:
            return self.default_voice
        name = voice.strip().lower()
        names = {_voice_info(speaker).name.lower(): speaker for speaker in self._speakers}
        name = names.get(name, name)
        if name not in self._speakers:
            raise UnknownVoiceError(f"unknown voice {voice[:80]!r}. {self._known()}", param="voice")
        return name

    def _known(self) -> str:
        return f"This model has: {', '.join(self._speakers)}"

    def _prompt(self, segment: Segment, voice: str) -> Prompt:
        tokens = self.tokens(segment.text)
        num_marks = sum(token in PUNCTUATION for token in tokens)
        num_phones = len(tokens) - num_marks - tokens.count(WORD_SEPARATOR)
        size = num_phones, max(num_marks - 1, 0)
        ids: IntArray = np.asarray(encode_chunk(tokens), dtype=np.int32)
        return Prompt(
            token_ids=ids,
            speaker=self._speakers[voice],
            speaker_position=_SPEAKER_POSITION,
            text=segment.text,
            max_new_frames=self._guard.max_frames(*size),
            min_new_frames=self._guard.min_frames(*size),
            pause_after_s=segment.pause_after_s,
            gain=self._output.gains.get(voice, 1.0),
            edges=self._output.edges,
        )


def _append_mark(tokens: list[str], mark: str) -> None:
    """A mark replaces the separator after a word; of several marks the strongest stays."""
    if not tokens:
        return
    if tokens[-1] == WORD_SEPARATOR or (mark in FINAL_MARKS and tokens[-1] not in FINAL_MARKS):
        tokens[-1] = mark


def _with_final_mark(tokens: list[str]) -> list[str]:
    if tokens and tokens[-1] not in FINAL_MARKS:
        tokens[-1] = FINAL_MARKS[0]
    return tokens


def _check_options(request: SpeechRequest) -> None:
    if request.language not in (None, "en"):
        raise RequestError(
            f"the default voice speaks English, not {request.language!r}; ChatTTS models speak "
            "English and Chinese",
            param="language",
        )
    if request.prompt:
        raise RequestError(
            "the default voice takes no control tokens (prompt); ChatTTS models do", param="prompt"
        )


def _check_scripts(text: str) -> None:
    found = unsupported_letters(text, ("en",))
    if found:
        letters = " ".join(list(found)[:8])
        scripts = list(dict.fromkeys(found.values()))
        other = " ChatTTS models speak Chinese." if "Chinese" in scripts else ""
        raise RequestError(
            f"the default voice speaks English; it cannot speak {letters} "
            f"({', '.join(scripts)}).{other}",
            param="text",
        )


def _voice_info(name: str) -> VoiceInfo:
    title, description = _KNOWN_VOICES.get(name, (name, "American English"))
    return VoiceInfo(id=name, name=title, language="en", description=description)


def _load_speakers(path: Path, hidden_size: int) -> dict[str, FloatArray]:
    try:
        vectors = load_file(str(path))
    except Exception as error:  # a missing file and several kinds of broken ones
        raise CheckpointError(f"{path} holds no speaker vectors: {error}") from error
    order = sorted(vectors, key=lambda name: (name not in _KNOWN_VOICES, name != "slt", name))
    speakers: dict[str, FloatArray] = {
        name: vectors[name].float().flatten().numpy().astype(np.float32) for name in order
    }
    wrong = [name for name, vector in speakers.items() if len(vector) != hidden_size]
    if wrong or not speakers:
        raise CheckpointError(f"{path}: every voice needs {hidden_size} values ({wrong})")
    return speakers


def _load_guard(path: Path) -> DurationGuard:
    given = _setting(path, "duration_guard")
    try:
        known = DurationGuard.__dataclass_fields__
        return DurationGuard(**{name: float(given[name]) for name in given if name in known})
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: duration_guard is malformed: {error}") from error


def _load_output(path: Path) -> VoiceOutput:
    given = _setting(path, "output")
    try:
        gains = {name: float(gain) for name, gain in given.get("gains", {}).items()}
        edges = given.get("edges")
        if edges is None:
            return VoiceOutput(gains=gains)
        values = {name: float(value) for name, value in edges.items()}
        return VoiceOutput(gains=gains, edges=SpeechEdges(**values))
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: output is malformed: {error}") from error


def _setting(path: Path, name: str) -> dict[str, Any]:
    """An object in `stretto.json`; empty where the file or the name is missing."""
    try:
        setting = json.loads(path.read_text(encoding="utf-8")).get(name, {})
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: {name} is malformed: {error}") from error
    if not isinstance(setting, dict):
        raise CheckpointError(f"{path}: {name} is malformed: {setting!r}")
    return setting
