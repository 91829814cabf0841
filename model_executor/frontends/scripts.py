"""Which writing systems a text uses: runs of Chinese and English, and characters of neither.

`split_runs` decides who normalises what in a text of both languages. Nothing is rewritten here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = [
    "LONE_GREEK",
    "ScriptRun",
    "dominant_language",
    "is_han",
    "split_runs",
    "unsupported_letters",
]

ScriptRun = tuple[str, str]
"""(language, text); language is `en` or `zh`."""

_HAN_RANGES = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af\u3007"
_LATIN = "A-Za-z\u00c0-\u024f\u1e00-\u1eff"
LONE_GREEK = re.compile(r"(?<![\u0370-\u03ff])[µ\u0391-\u03c9](?![\u0370-\u03ff])")
"""A Greek letter that stands for itself, as in a unit or a formula."""
_HAN_MARK = re.compile("[，。、：；！？]")
_HAN_CHAR = re.compile(f"[{_HAN}]")
# A Latin word counts as English only when no digit touches it: "5kg" follows its surroundings.
_STRONG = re.compile(
    rf"(?P<zh>[{_HAN}]+)|(?P<en>(?<![0-9{_LATIN}./°])[{_LATIN}]+(?:['’.&-][{_LATIN}]+)*"
    rf"(?:-[0-9]+|\.)?"
    rf"(?![0-9{_LATIN}]))"
)


def is_han(char: str) -> bool:
    """Whether a character is a Chinese ideograph."""
    return any(low <= ord(char) <= high for low, high in _HAN_RANGES) or char == "〇"


def dominant_language(text: str, otherwise: str = "en") -> str:
    """`zh` when there are more Chinese characters than Latin words, else `en`.

    Text without either is Chinese when it has Chinese punctuation, else `otherwise`.
    """
    num_han = sum(1 for _ in _HAN_CHAR.finditer(text))
    num_words = sum(match.lastgroup == "en" for match in _STRONG.finditer(text))
    if num_han == num_words == 0:
        return "zh" if _HAN_MARK.search(text) else otherwise
    return "zh" if num_han > num_words else "en"


def split_runs(text: str, base: str) -> list[ScriptRun]:
    """Cut `text` into runs of one language; joined they are the text again.

    Digits and punctuation between two words of one language belong to that language, between two
    languages (and at the ends, where only one side has words) to `base` or the only neighbour.
    """
    runs: list[ScriptRun] = []
    end, last = 0, None
    for match in _STRONG.finditer(text):
        language = match.lastgroup or base
        between = text[end : match.start()]
        _append(runs, language if last in (None, language) else base, between)
        _append(runs, language, match[0])
        end, last = match.end(), language
    _append(runs, last or base, text[end:])
    return runs


def _append(runs: list[ScriptRun], language: str, text: str) -> None:
    if not text:
        return
    if runs and runs[-1][0] == language:
        runs[-1] = (language, runs[-1][1] + text)
    else:
        runs.append((language, text))


def unsupported_letters(text: str, languages: Iterable[str]) -> dict[str, str]:
    """Letters of scripts outside `languages`: {character: name of its script}, in order met.

    A lone Greek letter is a symbol, which normalisation names, and does not count.
    """
    han_allowed = "zh" in tuple(languages)
    found: dict[str, str] = {}
    for char in dict.fromkeys(LONE_GREEK.sub("", text)):
        if char.isascii() or not unicodedata.category(char).startswith("L"):
            continue
        script = _script_name(unicodedata.normalize("NFKC", char)[0])
        if script != "Latin" and not (han_allowed and script == "Chinese"):
            found[char] = script
    return found


def _script_name(char: str) -> str:
    if is_han(char):
        return "Chinese"
    name = unicodedata.name(char, "unknown script")
    if name.startswith("MODIFIER LETTER"):
        return "Latin"
    return name.split()[0].split("-")[0].title()
