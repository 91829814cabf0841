"""What a user asks for: `SpeechRequest`, with its `SamplingParams` and `Voice`.

Plain frozen data, checked for form when made (types, ranges, NaN). What only the model can judge
(does this voice exist, can this script be spoken, does it fit the cache) is checked by
`engine.input_processor`, once. Nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .errors import RequestError

Priority = Literal["interactive", "bulk"]
SeedMode = Literal["independent", "chattts"]
Lookahead = Literal["exact", "low"]
VocoderInput = Literal["hidden", "codes"]

MIN_SPEED, MAX_SPEED = 0.25, 4.0
MAX_SEED = 2**63 - 1


def _check_range(
    name: str,
    value: float | int | None,
    low: float,
    high: float,
    *,
    low_open: bool = False,
    whole: bool = False,
) -> None:
    if value is None:
        return
    wanted = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"{name} must be {kind}, got {value!r}", param=name)
    outside = not math.isfinite(value) or value < low or value > high
    if outside or (low_open and value == low):
        edge = "above" if low_open else "from"
        raise RequestError(f"{name} must be {edge} {low} to {high}, got {value!r}", param=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How frames are drawn. `None` means the model's own default.

    Attributes:
        temperature: above 0 to 10; one number, or one per codebook.
        top_p: mass kept, above 0 to 1. At least the 3 best codes are always kept (ChatTTS).
        top_k: codes kept, 1 or more. At least 3 are always kept (ChatTTS).
        repetition_penalty: above 0 to 10; 1 is none. Counts the last 16 generated frames.
        min_new_tokens: the end of speech is not drawn before so many frames.
        max_new_tokens: frames after which a segment is ended with finish reason `length`.
        seed_mode: `independent` draws noise from (seed, step, codebook) alone; `chattts`
            reproduces upstream's `manual_seed`, which reuses the same noise at every step.

    Raises:
        RequestError: a value is not finite, of the wrong type, or out of range.
    """

    temperature: float | tuple[float, ...] | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    min_new_tokens: int | None = None
    max_new_tokens: int | None = None
    seed_mode: SeedMode = "independent"

    def __post_init__(self) -> None:
        if isinstance(self.temperature, (tuple, list)):
            object.__setattr__(self, "temperature", tuple(self.temperature))
            if not self.temperature:
                raise RequestError("temperature must not be empty", param="temperature")
            for value in self.temperature:
                _check_range("temperature", value, 0.0, 10.0, low_open=True)
        else:
            _check_range("temperature", self.temperature, 0.0, 10.0, low_open=True)
        _check_range("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _check_range("top_k", self.top_k, 1, 1_000_000, whole=True)
        _check_range("repetition_penalty", self.repetition_penalty, 0.0, 10.0, low_open=True)
        _check_range("min_new_tokens", self.min_new_tokens, 0, 1_000_000, whole=True)
        _check_range("max_new_tokens", self.max_new_tokens, 1, 1_000_000, whole=True)
        if self.seed_mode not in ("independent", "chattts"):
            raise RequestError(
                f"seed_mode must be 'independent' or 'chattts', got {self.seed_mode!r}",
                param="seed_mode",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice given by value instead of by name. Exactly one form is set.

    Attributes:
        seed: a random voice of the model, drawn by this seed.
        embedding: a speaker string as ChatTTS users exchange them.
        path: a `.pt` file with a speaker embedding, or a recording (then `transcript` is needed).
            Paths come from local callers only; the HTTP server never makes one.
        audio: a recording as the bytes of an audio file (zero-shot; needs `transcript`).
        transcript: the words spoken in the recording.
    """

    seed: int | None = None
    embedding: str | None = None
    path: str | None = None
    audio: bytes | None = field(default=None, repr=False)
    transcript: str | None = None

    def __post_init__(self) -> None:
        forms = [self.seed, self.embedding, self.path, self.audio]
        if sum(form is not None for form in forms) != 1:
            raise RequestError(
                "a voice is given by exactly one of seed, embedding, path or audio", param="voice"
            )
        _check_range("voice seed", self.seed, 0, MAX_SEED, whole=True)
        if self.audio is not None and not (self.transcript or "").strip():
            raise RequestError(
                "a reference recording needs its transcript (ref_text)", param="ref_text"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """One text to speak.

    Attributes:
        text: what to say; normalised and cut into segments by the model's frontend.
        voice: a name from the engine's `voices`, a `Voice`, or None for the model's default.
        model: name of the model asked for; None means the one being served.
        language: `en`, `zh`, or None to detect.
        speed: tempo from 0.25 to 4; 1 is the model's own. Pitch does not change.
        seed: 0 or more; None draws one (reported in the result's metrics).
        sampling: see `SamplingParams`.
        priority: `interactive` requests are scheduled before `bulk` ones.
        deadline_s: seconds from submission after which the first audio is useless; None never.
        normalize: speak digits, dates, units as words; off leaves the text as it is.
        refine: run the model's own text refinement first, where it has one (ChatTTS).
        refine_prompt: control tokens for that stage, such as `[oral_2][laugh_0][break_6]`.
        prompt: control tokens for the speech stage, such as `[speed_5]`; None is the default.
        lookahead: `exact` streams samples equal to the whole decode; `low` starts earlier with
            a smaller vocoder look-ahead and a stated small difference.
        vocoder_input: `hidden` or `codes`, where the model has both; None is its default.

    Raises:
        RequestError: a field has the wrong type, is not finite or out of range, or text is empty.
    """

    text: str
    voice: str | Voice | None = None
    model: str | None = None
    language: str | None = None
    speed: float = 1.0
    seed: int | None = None
    sampling: SamplingParams = SamplingParams()
    priority: Priority = "interactive"
    deadline_s: float | None = None
    normalize: bool = True
    refine: bool = False
    refine_prompt: str | None = None
    prompt: str | None = None
    lookahead: Lookahead = "exact"
    vocoder_input: VocoderInput | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise RequestError(
                f"text must be a string, got {type(self.text).__name__}", param="text"
            )
        if not self.text.strip():
            raise RequestError("text is empty", param="text")
        if self.voice is not None and not isinstance(self.voice, (str, Voice)):
            raise RequestError("voice must be a name or a Voice", param="voice")
        _check_range("speed", self.speed, MIN_SPEED, MAX_SPEED)
        _check_range("seed", self.seed, 0, MAX_SEED, whole=True)
        _check_range("deadline_s", self.deadline_s, 0.0, 1e9, low_open=True)
        if self.priority not in ("interactive", "bulk"):
            raise RequestError(
                f"priority must be 'interactive' or 'bulk', got {self.priority!r}", param="priority"
            )
        if self.lookahead not in ("exact", "low"):
            raise RequestError(
                f"lookahead must be 'exact' or 'low', got {self.lookahead!r}", param="lookahead"
            )
