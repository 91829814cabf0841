"""Written text to speakable text: `TextNormalizer`, for English, Chinese and both in one sentence.

Compatibility forms are folded, emoji and decoration dropped, control tags such as `[laugh]` kept,
and every run of one language goes to that language's rules. The result has words and the
punctuation marks `, . ? ! ; :` (full-width beside Chinese). What a model makes of those is its
frontend's business, as is cutting into segments: callers pass one sentence at a time.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from .chinese_rules import speak_chinese
from .english_rules import speak_english
from .scripts import LONE_GREEK, dominant_language, split_runs

__all__ = ["CONTROL_TAG", "TextNormalizer"]

CONTROL_TAG = re.compile(
    r"\[(?:uv_break|v_break|lbreak|llbreak|undefine|laugh|music|pure|"
    r"break_[0-7]|laugh_[0-2]|oral_[0-9]|speed_[0-9])\]"
)
"""Tags that a text may carry for models that know them."""

_KEPT_WIDE = frozenset("，。！？：；、（）“”‘’《》「」『』【】…—～￥·℃℉²³")
_DEGREES = re.compile(r"°\s?([CF])\b")
_VULGAR = re.compile(r"(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215f])")
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'}
)
_UNSPOKEN = frozenset("™®℠℗")
_GREEK = re.compile(rf"(?:{LONE_GREEK.pattern})(?![A-Za-z])")
_LONG_WORD = re.compile(r"[^\W_]{45,}")
_LONG_WORD_PIECE = 30
_SPACES = re.compile(r"\s+")
_LEADING = re.compile(r"^[\s,;:.，；：。、]+")
_SPEAKABLE = re.compile(r"[^\W_]")


class TextNormalizer:
    """Rewrites sentences into words. Thread-safe; results are cached."""

    def normalize(self, sentence: str, language: str | None = None, otherwise: str = "en") -> str:
        """Speakable text of one sentence; empty when nothing in it can be spoken.

        Args:
            sentence: at most a few hundred characters, for the rules' cost.
            language: `en` or `zh` for digits and symbols between words; None detects.
            otherwise: the language of a sentence that has no words to detect it by.
        """
        return _normalize(sentence, language or dominant_language(sentence, otherwise))


@lru_cache(maxsize=2048)
def _normalize(sentence: str, language: str) -> str:
    text = _fold(sentence)
    pieces: list[str] = []
    start = 0
    for tag in CONTROL_TAG.finditer(text):
        pieces += [_speak(text[start : tag.start()], language), tag[0]]
        start = tag.end()
    pieces.append(_speak(text[start:], language))
    spoken = _LEADING.sub("", _SPACES.sub(" ", "".join(pieces)).strip())
    return spoken if _SPEAKABLE.search(CONTROL_TAG.sub("", spoken)) else ""


def _fold(text: str) -> str:
    """Compatibility forms to plain ones; emoji, decoration and control characters dropped."""
    text = _VULGAR.sub(" ", unicodedata.normalize("NFC", text))
    text = _DEGREES.sub(lambda match: "℃" if match[1] == "C" else "℉", text)
    folded = _GREEK.sub(_greek_name, "".join(_fold_char(char) for char in text))
    return _LONG_WORD.sub(_break_word, folded)


def _fold_char(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else " "
    if char in _KEPT_WIDE:
        return char
    if char in _UNSPOKEN:
        return ""
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.digit(char))
    plain = unicodedata.normalize("NFKC", char).replace("\u2044", "/")
    category = unicodedata.category(plain[0])
    if category in ("So", "Sk", "Cn", "Co", "Cs", "Cf", "Me") and plain[0] not in "°℃℉":
        return "" if category in ("Cf", "Me", "Sk") else " "
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    return plain.translate(_QUOTES)


def _greek_name(match: re.Match[str]) -> str:
    """A lone Greek letter is a symbol: its name."""
    return f" {unicodedata.name(match[0]).split()[-1].lower()} "


def _break_word(match: re.Match[str]) -> str:
    word = match[0]
    steps = range(0, len(word), _LONG_WORD_PIECE)
    return " ".join(word[start : start + _LONG_WORD_PIECE] for start in steps)


def _speak(text: str, base: str) -> str:
    runs = split_runs(text, base)
    return "".join(
        speak_chinese(run) if language == "zh" else _speak_padded(run) for language, run in runs
    )


def _speak_padded(run: str) -> str:
    """English rules may trim; a run keeps the spaces that part it from its neighbours."""
    core = run.strip()
    lead = " " if run[:1].isspace() else ""
    return f"{lead}{speak_english(core)}{' ' if core and run[-1:].isspace() else ''}"
