"""Text and token ids of ChatTTS: its tokenizer, its control tokens, the marks it was trained on.

`prepare` maps normalised text to the characters of ChatTTS's training text (commas and full
stops); `ChatTTSTokenizer` is the checkpoint's WordPiece tokenizer with what a speech prompt needs.
Prompts are put together in `chattts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from ...engine.errors import CheckpointError, RequestError
from .scripts import unsupported_letters
from .text_normalizer import CONTROL_TAG

__all__ = ["ChatTTSTokenizer", "check_scripts", "prepare", "strip_structure"]

_STRUCTURE = re.compile(
    r"\[(?:PAD|UNK|CLS|SEP|MASK|unused\d+|[SPE](?:asr|tts|break)|spk_emb|empty_spk)\]"
)
_MARKS = str.maketrans(
    dict.fromkeys(";:()-/\"", ",") | {"!": ".", "?": "."}
    | dict.fromkeys("：；（）", "，") | {"！": "。", "？": "。"}
)  # fmt: skip
_UNKNOWN_MARK = re.compile(r"[^\w\s,.，。、]|_")
_REPEATED = re.compile(r"([,.，。、])(?:\s*[,.，。、])+")
_CONTRACTIONS = re.compile(r"\b(I|we|she|he|they|you|who|it)'(ll|d|re)\b", re.I)
_FULL_FORMS = {"ll": "will", "d": "would", "re": "are"}
_ELISION = re.compile(r"(?<=[A-Za-z])'(?=[A-Za-z])")


def strip_structure(text: str) -> str:
    """`text` without the tokens that give a prompt its form; users may not write those."""
    return _STRUCTURE.sub("", text)


def prepare(text: str) -> str:
    """Normalised text in the characters ChatTTS was trained on.

    Its training text had no marks but commas and full stops and no apostrophes; contractions that
    would become another word without one ("we'll") are written out.
    """
    pieces: list[str] = []
    start = 0
    for tag in CONTROL_TAG.finditer(text):
        pieces += [_prepare_words(text[start : tag.start()]), tag[0]]
        start = tag.end()
    return "".join([*pieces, _prepare_words(text[start:])]).strip()


def _prepare_words(text: str) -> str:
    text = _CONTRACTIONS.sub(lambda m: f"{m[1]} {_FULL_FORMS[m[2].lower()]}", text)
    text = _ELISION.sub("", text).translate(_MARKS)
    text = _UNKNOWN_MARK.sub(" ", text)
    return _REPEATED.sub(_strongest, text)


def _strongest(match: re.Match[str]) -> str:
    """One mark for a run of them: the first full stop, else the first mark."""
    stop = next((char for char in match[0] if char in ".。"), match[1])
    return stop + (" " if match[0][-1].isspace() else "")


def check_scripts(text: str) -> None:
    """Refuse letters that no ChatTTS voice can speak.

    Raises:
        RequestError: naming the letters and their scripts.
    """
    found = unsupported_letters(text, ("en", "zh"))
    if found:
        letters = " ".join(list(found)[:8])
        scripts = ", ".join(dict.fromkeys(found.values()))
        raise RequestError(
            f"ChatTTS speaks English and Chinese; it cannot speak {letters} ({scripts})",
            param="text",
        )


class ChatTTSTokenizer:
    """The checkpoint's tokenizer: text to ids without truncation, padding or special frames.

    Raises:
        CheckpointError: the file is missing or broken, or lacks a token that prompts are made of.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f"the tokenizer file {path} is missing")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises bare Exception
            raise CheckpointError(f"{path} is not a tokenizer file: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.unknown_id = self.token_id("[UNK]")
        self.speaker_id = self.token_id("[spk_emb]")
        self._first_style_id = self.token_id("[break_0]")
        for token in ("[Stts]", "[Ptts]", "[empty_spk]", "[Sbreak]", "[Pbreak]"):
            self.token_id(token)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def token_id(self, token: str) -> int:
        """Id of a special token.

        Raises:
            CheckpointError: the tokenizer does not have it.
        """
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(f"the tokenizer has no {token} token")
        return int(token_id)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; characters it does not know become `[UNK]`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode_refined(self, token_ids: Iterable[int]) -> str:
        """Text of a refining pass: style tokens (`[break_0]` on) dropped, control tags kept."""
        kept = [token_id for token_id in token_ids if token_id < self._first_style_id]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))
