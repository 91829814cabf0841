"""English text to words: addresses, abbreviations, symbols, acronyms; digits by their own modules.

`speak_english` takes one sentence, or the English run of one, after folding of compatibility
forms. The result has letters, apostrophes and the marks `, ; : . ? !` only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from re import Match

from .english_abbreviations import (
    ALWAYS_SPELLED,
    AMBIGUOUS,
    BEFORE_NAME,
    BEFORE_NUMBER,
    EVERYWHERE,
    PRONOUNCED,
    WITH_STOP,
)
from .english_dates import speak_dates
from .english_numbers import cardinal, ordinal, roman_value
from .english_quantities import speak_quantities

__all__ = ["speak_english"]

_NOTHING_TO_DO = re.compile(r"[A-Z]?[a-z' ]*[,.?!]?")


def speak_english(text: str) -> str:
    """Words of a sentence."""
    if _NOTHING_TO_DO.fullmatch(text):
        return text
    text = _plain_letters(text.translate(_WIDE_MARKS))
    text = _spoken_addresses(text)
    text = _expanded(text)
    text = _spoken_romans(text)
    text = speak_quantities(speak_dates(text))
    text = _spoken_symbols(text)
    return _spelled_acronyms(text).strip()


_WIDE_MARKS = str.maketrans(
    {"，": ", ", "、": ", ", "。": ". ", "！": "! ", "？": "? ", "；": "; ", "：": ": ", "（": " (",
     "）": ") "}
)  # fmt: skip
_LIGATURES = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "th", "þ": "th", "ı": "i",
     "Æ": "Ae", "Œ": "Oe", "Ø": "O", "Ł": "L", "Đ": "D", "Þ": "Th"}
)  # fmt: skip


def _plain_letters(text: str) -> str:
    """Letters without their accents: "café" is looked up as "cafe"."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFD", text.translate(_LIGATURES))
    return "".join(char for char in decomposed if not unicodedata.combining(char))


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_URL = re.compile(
    r"(?<![\w@.])(?:https?://|www\.)[^\s<>\"]{1,300}"
    r"|(?<![\w@.])[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*"
    r"\.(?:com|org|net|edu|gov|io|ai|dev|co\.uk|de|fr|info|app)\b(?:/[^\s<>\"]{0,300})?"
)
_ADDRESS_MARKS = {
    ".": "dot", "@": "at", "/": "slash", "-": "dash", "_": "underscore", "+": "plus",
    "?": "question mark", "=": "equals", "&": "and", "#": "hash", ":": "colon", "%": "percent",
    "~": "tilde",
}  # fmt: skip
_ADDRESS_PART = re.compile(r"[A-Za-z]+|[0-9]+|[^\w\s]|_")
_TRAILING = re.compile(r"[.,;:!?)\]}'\"]+$")


def _spoken_addresses(text: str) -> str:
    if "@" in text or "." in text:
        text = _EMAIL.sub(_address, text)
        text = _URL.sub(_address, text)
    return text


def _address(match: Match[str]) -> str:
    whole = match[0]
    trailing = _TRAILING.search(whole)
    core = whole[: trailing.start()] if trailing else whole
    core = re.sub(r"^https?://", "", core).rstrip("/")
    core = re.sub(r"^www\.", "w w w.", core)
    words = [_ADDRESS_MARKS.get(part, part) for part in _ADDRESS_PART.findall(core)]
    spoken = " ".join(part for part in words if part[0].isalnum())
    return spoken + (trailing[0] if trailing else "")


def _alternatives(table: dict[str, str]) -> str:
    return "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True))


_INITIALISM = re.compile(r"\b(?:[A-Za-z]\.){2,}(?!\w)")
_STREET = re.compile(
    r"(?<=[a-z0-9]\s)(St|Dr|Ave|Blvd|Rd|Ln)(?:\.(?=\s*(?:,|$|\s[a-z]))|(?=,|\.?$))"
)
_STREETS = {
    "St": "Street", "Dr": "Drive", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane",
}  # fmt: skip
_BEFORE_NAME = re.compile(rf"\b({_alternatives(BEFORE_NAME)})\.?(?=\s[A-Z])")
_BEFORE_NUMBER = re.compile(
    rf"\b(?:({_alternatives(BEFORE_NUMBER)})\.\s?|([Vv]ol|[Ff]ig|pp)\s)(?=[0-9])"
)
_WITH_STOP = re.compile(rf"\b({_alternatives(WITH_STOP)})\.(?!\w)", re.IGNORECASE)
_EVERYWHERE = re.compile(rf"(?<![\w/.])({_alternatives(EVERYWHERE)})(?![\w/])")


def _expanded(text: str) -> str:
    """Abbreviations in full."""
    text = _STREET.sub(lambda match: _STREETS[match[1]], text)
    text = _BEFORE_NAME.sub(lambda match: BEFORE_NAME[match[1]], text)
    text = _BEFORE_NUMBER.sub(lambda match: f"{BEFORE_NUMBER[match[1] or match[2]]} ", text)
    text = _WITH_STOP.sub(_stopped, text)
    text = _EVERYWHERE.sub(lambda match: EVERYWHERE[match[1]], text)
    return _INITIALISM.sub(_initials, text)


def _ends_sentence(match: Match[str]) -> bool:
    return not match.string[match.end() :].strip("\"')” ")


def _stopped(match: Match[str]) -> str:
    word, at_end = match[1], _ends_sentence(match)
    if word.lower() in AMBIGUOUS and (at_end or word[0].islower()):
        return match[0]
    return WITH_STOP[word.lower()] + ("." if at_end else "")


def _initials(match: Match[str]) -> str:
    after_digit = match.string[: match.start()].rstrip()[-1:].isdigit()
    if after_digit and match[0].lower() in ("a.m.", "p.m."):
        return match[0]  # a clock time, for `english_dates`
    return match[0].replace(".", " ").upper().strip() + ("." if _ends_sentence(match) else "")


_REGNAL = re.compile(
    r"\b((?:King|Queen|Pope|Henry|Louis|Charles|George|Edward|Elizabeth|James|William|Richard|"
    r"Philip|Pius|Benedict|Paul|Francis|Frederick|Napoleon|Nicholas|Catherine|Leo|Gregory)\s)"
    r"([IVX]{2,6}|V|X)\b(?!'(?!s))"
)
_NUMBERED = re.compile(
    r"\b((?:[Cc]hapter|[Pp]art|[Vv]olume|[Ss]ection|[Aa]ct|[Ss]cene|[Bb]ook|[Tt]ype|[Pp]hase|"
    r"[Ll]evel|[Aa]rticle|[Aa]ppendix|[Ff]igure|[Tt]able|War|Bowl|Mark)\s)([IVXLC]{1,8})\b(?!'(?!s))"
)
_AFTER_NAME = re.compile(r"(?<=[a-z]\s)(II|III|IV|VI{1,3}|IX|XI{1,3}|XIV|XV|XVI{0,3})\b(?!'(?!s))")


def _spoken_romans(text: str) -> str:
    """Roman numerals where what stands before makes them safe."""
    text = _REGNAL.sub(lambda m: _roman(m, "the ", ordinal), text)
    text = _NUMBERED.sub(lambda m: _roman(m, "", cardinal), text)
    return _AFTER_NAME.sub(lambda m: cardinal(roman_value(m[1]) or 0), text)


def _roman(match: Match[str], article: str, speak: Callable[[int], str]) -> str:
    value = roman_value(match[2])
    is_pronoun = match[2] == "I" and match[1][0].islower()
    return match[0] if value is None or is_pronoun else f"{match[1]}{article}{speak(value)}"


_SYMBOLS = tuple(
    (re.compile(pattern), spoken)
    for pattern, spoken in (
        (r"\bC\+\+", "C plus plus"),
        (r"\b([CF])#", r"\1 sharp"),
        (r"#(?=\w)", " hashtag "),
        (r"&", " and "),
        (r"@", " at "),
        (r"%", " percent "),
        (r"(?<=\s)\+(?=\s)", " plus "),
        (r"=", " equals "),
        (r"≈", " is about "),
        (r"≤", " is at most "),
        (r"≥", " is at least "),
        (r"(?<=\w)\s?<\s(?=\w)", " is less than "),
        (r"(?<=\w)\s?>\s(?=\w)", " is greater than "),
        (r"©", " copyright "),
        (r"²", " squared "),
        (r"³", " cubed "),
        (r"£", " pounds "),
        (r"€", " euros "),
        (r"\$", " dollars "),
        (r"\band/or\b", "and or"),
        (r"/(?=(?:second|minute|hour|day|night|week|month|year|person|head|gallon)\b)", " per "),
        (r"(?<=\w)/(?=\w)", " slash "),
        (r"(?:\.\s?){2,}|…+", ", "),
        (r"\s+-+\s+|--+|[–—―]", ", "),
        (r"(?<=\w)[-‐‑](?=\w)", " "),
        (r"\s?[()\[\]{}|]\s?", ", "),
        (r"(?<![A-Za-z])'|'(?![A-Za-z])", " "),
        (r"[^A-Za-z0-9',;:.?!\s]", " "),
        (r"\s+(?=[,;:.?!])", ""),
        (r"[,;:]+(?=[.?!,;:])", ""),
        (r"(?<=[.?!,;:])[,;:]+", ""),
        (r"(?<=[,;:])(?=[A-Za-z])", " "),
        (r"\s{2,}", " "),
    )
)
_PLURAL_S = re.compile(r"(?<=[a-z]s)'(?=\s|$)")


def _spoken_symbols(text: str) -> str:
    text = _PLURAL_S.sub("", text)
    for pattern, spoken in _SYMBOLS:
        text = pattern.sub(spoken, text)
    return text


_CAPITALS = re.compile(r"\b([A-Z]{2,6})(s|'s)?\b")


def _spelled_acronyms(text: str) -> str:
    """Letters of acronyms apart ("F B I"); a text all in capitals is taken for shouting."""
    is_shouted = text.isupper() and sum(len(word) > 3 for word in text.split()) > 1
    return _CAPITALS.sub(lambda match: _acronym(match, is_shouted), text)


def _acronym(match: Match[str], is_shouted: bool) -> str:
    letters, ending = match[1], match[2]
    unreadable = not set(letters) & set("AEIOUY")
    if is_shouted or letters in PRONOUNCED or not (letters in ALWAYS_SPELLED or unreadable):
        return match[0]
    return " ".join(letters) + ("'s" if ending else "")
