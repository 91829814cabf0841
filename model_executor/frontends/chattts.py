"""The ChatTTS frontend: text and voice to the prompts ChatTTS was trained with.

    speech   [Stts] [spk_emb] transcript style text [Ptts] reference frames
    refining [Sbreak] text [Pbreak] style

`[empty_spk]` stands for `[spk_emb]` where no speaker vector is given (cloned voices); `style` is
`[speed_5]` unless the request says otherwise. Nothing here runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...engine.errors import RequestError, RequestTooLongError
from ...engine.interface import VoiceInfo
from ...engine.request import SpeechRequest
from ..interfaces import Prompt, SpeechModelSpec
from .chattts_text import ChatTTSTokenizer, check_scripts, prepare, strip_structure
from .chattts_voices import ChatTTSVoices, Conditioning, EncodeReference
from .scripts import dominant_language
from .segmentation import Segment, SegmentLimits, segment_lines
from .text_normalizer import TextNormalizer
from .wetext_rules import warm_up

__all__ = ["ChatTTSFrontend"]

DEFAULT_STYLE = "[speed_5]"
_LIMITS = SegmentLimits(max_units=64, min_units=14)
_UNCUT = SegmentLimits(max_units=1_000_000, min_units=0)
_MAX_STYLE_CHARS = 400
_NO_VOICE = Conditioning()


class ChatTTSFrontend:
    """Implements `Frontend` for ChatTTS. Thread-safe.

    Args:
        tokenizer: of the checkpoint.
        voices: of the checkpoint.
        max_model_len: positions a sequence may have, generated frames included.
    """

    max_text_chars = 100_000

    def __init__(
        self, tokenizer: ChatTTSTokenizer, voices: ChatTTSVoices, max_model_len: int
    ) -> None:
        self._tokenizer = tokenizer
        self._voices = voices
        self._max_prompt_tokens = max_model_len - 1
        self._normalizer = TextNormalizer()

    @classmethod
    def from_folder(
        cls, folder: Path, spec: SpeechModelSpec, encode_reference: EncodeReference | None = None
    ) -> ChatTTSFrontend:
        """The frontend of a checkpoint folder in the published layout.

        Raises:
            CheckpointError: the tokenizer or `spk_stat.pt` is missing or malformed.
        """
        tokenizer = ChatTTSTokenizer(folder / "asset" / "tokenizer" / "tokenizer.json")
        voices = ChatTTSVoices(folder, spec.hidden_size, encode_reference)
        warm_up()
        return cls(tokenizer, voices, spec.max_model_len)

    @property
    def voices(self) -> tuple[VoiceInfo, ...]:
        """Some random voices by seed."""
        return self._voices.listed

    @property
    def default_voice(self) -> str:
        """The first listed voice."""
        return self.voices[0].id

    @property
    def languages(self) -> tuple[str, ...]:
        """English and Chinese."""
        return ("en", "zh")

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        """See `Frontend.encode`."""
        conditioning = self._conditioning(request)
        style = _style(request.prompt, DEFAULT_STYLE, "prompt")
        return [
            self._speech_prompt(segment, conditioning, style) for segment in self._segments(request)
        ]

    def refine(self, request: SpeechRequest) -> list[Prompt]:
        """See `Frontend.refine`."""
        style = _style(request.refine_prompt, "", "refine_prompt")
        return [
            self._prompt(f"[Sbreak]{segment.text}[Pbreak]{style}", segment, output_text=True)
            for segment in self._segments(request)
        ]

    def encode_refined(
        self, request: SpeechRequest, refined: Sequence[Sequence[int]]
    ) -> list[Prompt]:
        """See `Frontend.encode_refined`; a segment refined to nothing is spoken as it was."""
        conditioning = self._conditioning(request)
        style = _style(request.prompt, DEFAULT_STYLE, "prompt")
        prompts = []
        for segment, token_ids in zip(self._segments(request), refined, strict=True):
            text = strip_structure(self._tokenizer.decode_refined(token_ids)).strip()
            chosen = Segment(text=text or segment.text, pause_after_s=segment.pause_after_s)
            prompts.append(self._speech_prompt(chosen, conditioning, style))
        return prompts

    def _conditioning(self, request: SpeechRequest) -> Conditioning:
        conditioning = self._voices.resolve(request.voice)
        if conditioning.frames is None:
            return conditioning
        return replace(conditioning, transcript=self._transcript(conditioning, request))

    def _transcript(self, conditioning: Conditioning, request: SpeechRequest) -> str:
        """The transcript in the same spelling as the text that follows it."""
        text = strip_structure(conditioning.transcript)
        check_scripts(text)
        spoken = self._lines(text, _UNCUT, request)
        if not spoken:
            raise RequestError("the transcript (ref_text) has no words", param="ref_text")
        return " ".join(segment.text for segment in spoken) + " "

    def _segments(self, request: SpeechRequest) -> list[Segment]:
        text = strip_structure(request.text)
        if len(text) > self.max_text_chars:
            raise RequestTooLongError(
                f"the text has {len(text)} characters, at most {self.max_text_chars} are taken",
                param="text",
            )
        check_scripts(text)
        segments = self._lines(text, _LIMITS, request)
        if not segments:
            raise RequestError(
                "nothing in the text can be spoken: it has no word and no number", param="text"
            )
        return segments

    def _lines(self, text: str, limits: SegmentLimits, request: SpeechRequest) -> list[Segment]:
        language = dominant_language(text)
        return segment_lines(
            text, limits, lambda sentence: self._spoken(sentence, request, language)
        )

    def _spoken(self, sentence: str, request: SpeechRequest, otherwise: str) -> str:
        if request.normalize:
            sentence = prepare(self._normalizer.normalize(sentence, request.language, otherwise))
        return sentence if any(char.isalnum() for char in sentence) else ""

    def _speech_prompt(self, segment: Segment, conditioning: Conditioning, style: str) -> Prompt:
        speaker = "[empty_spk]" if conditioning.speaker is None else "[spk_emb]"
        text = f"[Stts]{speaker}{conditioning.transcript}{style}{segment.text}[Ptts]"
        return self._prompt(text, segment, conditioning)

    def _prompt(
        self,
        text: str,
        segment: Segment,
        conditioning: Conditioning = _NO_VOICE,
        output_text: bool = False,
    ) -> Prompt:
        ids = self._tokenizer.encode(text)
        has_speaker = conditioning.speaker is not None
        prompt = Prompt(
            token_ids=np.asarray(ids, dtype=np.int32),
            frames=conditioning.frames,
            speaker=conditioning.speaker,
            speaker_position=ids.index(self._tokenizer.speaker_id) if has_speaker else None,
            output="text" if output_text else "frames",
            text=segment.text,
            pause_after_s=segment.pause_after_s,
        )
        if prompt.num_tokens > self._max_prompt_tokens:
            raise RequestTooLongError(
                f"a segment needs {prompt.num_tokens} positions, the model has room for "
                f"{self._max_prompt_tokens}: shorten the reference recording or its transcript",
                param="text" if conditioning.frames is None else "voice",
            )
        return prompt


def _style(given: str | None, default: str, param: str) -> str:
    style = default if given is None else strip_structure(given)
    if len(style) > _MAX_STYLE_CHARS:
        raise RequestError(f"{param} must have at most {_MAX_STYLE_CHARS} characters", param=param)
    return style
