"""English words to phones: lexicon first, then suffixes, spelling, letter-to-sound.

`Pronouncer` reads one chunk of normalised text, so that homographs and lone letters can be told by
their neighbours. It does not normalise digits or symbols and does not cut text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from . import english_numbers
from .english_exceptions import EXCEPTIONS, SPELLED
from .english_homographs import homograph
from .lexicon import Lexicon, possessive_ending
from .phones import is_vowel

__all__ = ["Pronouncer", "Word"]

Phones = tuple[str, ...]
Word = str
LetterToSound = Callable[[str], Phones]

_VOWEL_LETTERS = frozenset("aeiouy")
_T_OR_D = frozenset({"t", "d"})
_VOICELESS = frozenset({"p", "k", "f", "s", "sh", "ch", "th"})
_MAX_SPELLED = 5
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONSONANT_CLUSTER = re.compile(r"[bcdfghjkmnpqrstvwxz]{5}")


class Pronouncer:
    """Words of a chunk to phones. Thread-safe.

    Args:
        lexicon: words with their phones.
        letter_to_sound: phones of a word that nothing else knows.
    """

    def __init__(self, lexicon: Lexicon, letter_to_sound: LetterToSound) -> None:
        self._lexicon = lexicon
        self._letter_to_sound = letter_to_sound

    def pronounce(self, words: Sequence[Word]) -> list[Phones]:
        """Phones of every word; words have ASCII letters, digits and apostrophes only.

        A word without any letter or digit gives no phones.
        """
        return [self._in_context(words, index) for index in range(len(words))]

    def _in_context(self, words: Sequence[Word], index: int) -> Phones:
        word = words[index]
        before = words[index - 1] if index else ""
        after = words[index + 1] if index + 1 < len(words) else ""
        if _is_letter_name(word, before, after):
            return self._spelled(word)
        reading = homograph(word.lower(), before.lower(), after.lower())
        if reading is not None:
            return reading
        return self._word(word)

    def _word(self, word: Word) -> Phones:
        if any(char.isdigit() for char in word):
            return self._with_digits(word)
        plain = word.lower().strip("'")
        if plain not in self._lexicon and _CAMEL.search(word):
            return tuple(phone for part in _CAMEL.split(word) for phone in self._word(part))
        known = self._known(plain)
        if known is not None and any(map(is_vowel, known)):
            return known
        if _is_acronym(word) or not _is_readable(plain):
            return self._spelled(plain)
        return self._letter_to_sound(plain)

    def _known(self, word: Word) -> Phones | None:
        """From the lexicon, as it stands or as a known word with a regular ending."""
        if word.removesuffix("'s") in SPELLED:
            return self._spelled(word)
        listed = self._listed(word) or self._inflected(word)
        return listed or self._prefixed(word) or self._compound(word)

    def _listed(self, word: Word) -> Phones | None:
        return EXCEPTIONS.get(word) or self._lexicon.get(word)

    def _inflected(self, word: Word) -> Phones | None:
        for ending, endings in _ENDINGS:
            if not word.endswith(ending) or len(word) < len(ending) + 3:
                continue
            root = word[: len(word) - len(ending)]
            for stem in _stems(root, ending):
                phones = self._listed(stem)
                if phones:
                    return phones + endings(phones)
        return None

    def _prefixed(self, word: Word) -> Phones | None:
        for prefix, phones in _PREFIXES.items():
            stem = word.removeprefix(prefix)
            if stem != word and len(stem) > 3:
                known = self._listed(stem) or self._inflected(stem)
                if known:
                    return phones + known
        return None

    def _compound(self, word: Word) -> Phones | None:
        """Two known words of four letters or more, the longest first word that works."""
        for cut in range(len(word) - 4, 3, -1):
            first, second = self._listed(word[:cut]), self._listed(word[cut:])
            if first and second:
                return first + second
        return None

    def _with_digits(self, word: Word) -> Phones:
        parts = re.findall(r"[0-9]+|[A-Za-z']+", word)
        spoken = [
            english_numbers.digits(part).split() if part[0].isdigit() else [part] for part in parts
        ]
        return tuple(phone for part in spoken for item in part for phone in self._word(item))

    def _spelled(self, word: Word) -> Phones:
        stem = word.removesuffix("'s")
        phones: Phones = ()
        for letter in stem.lower():
            phones += self._lexicon.letter_name(letter) or ()
        return phones + possessive_ending(phones) if phones and stem != word else phones


def _is_letter_name(word: Word, before: Word, after: Word) -> bool:
    """A lone capital beside another one ("U S A"), or any letter that is no word."""
    if len(word.removesuffix("'s")) != 1 or not word[0].isalpha():
        return False
    if word[0].lower() not in "ai":
        return True
    if word == "a":
        return before.lower() == "vitamin" or (len(after) == 1 and after in "bc")
    beside = (before, after.removesuffix("'s"))
    return word[0] == "A" and any(len(other) == 1 and other.isupper() for other in beside)


def _is_readable(word: Word) -> bool:
    has_vowel = _VOWEL_LETTERS.intersection(word)
    return bool(has_vowel) and not _CONSONANT_CLUSTER.search(word)


def _is_acronym(word: Word) -> bool:
    stem = word.removesuffix("'s").removesuffix("s") if word[:-1].isupper() else word
    return 1 < len(stem) <= _MAX_SPELLED and stem.isupper()


def _past(stem: Phones) -> Phones:
    if stem[-1] in _T_OR_D:
        return ("ax0", "d")
    return ("t",) if stem[-1] in _VOICELESS else ("d",)


def _constant(*phones: str) -> Callable[[Phones], Phones]:
    return lambda stem: phones


_PREFIXES: dict[str, Phones] = {
    "un": ("ax0", "n"),
    "re": ("r", "iy0"),
    "pre": ("p", "r", "iy0"),
    "non": ("n", "aa0", "n"),
    "mis": ("m", "ih0", "s"),
    "dis": ("d", "ih0", "s"),
    "sub": ("s", "ah0", "b"),
    "out": ("aw1", "t"),
    "anti": ("ae1", "n", "t", "iy0"),
    "semi": ("s", "eh1", "m", "iy0"),
    "multi": ("m", "ah1", "l", "t", "iy0"),
}
"""Prefixes of known words, with their phones."""

_ENDINGS: tuple[tuple[str, Callable[[Phones], Phones]], ...] = (
    ("s'", possessive_ending),
    ("'s", possessive_ending),
    ("'ll", _constant("ax0", "l")),
    ("'d", _constant("d")),
    ("'ve", _constant("ax0", "v")),
    ("'re", _constant("er0")),
    ("ings", _constant("ih0", "ng", "z")),
    ("ing", _constant("ih0", "ng")),
    ("ness", _constant("n", "ax0", "s")),
    ("less", _constant("l", "ax0", "s")),
    ("ment", _constant("m", "ax0", "n", "t")),
    ("able", _constant("ax0", "b", "ax0", "l")),
    ("fully", _constant("f", "ax0", "l", "iy0")),
    ("ful", _constant("f", "ax0", "l")),
    ("ship", _constant("sh", "ih0", "p")),
    ("like", _constant("l", "ay0", "k")),
    ("ly", _constant("l", "iy0")),
    ("ers", _constant("er0", "z")),
    ("er", _constant("er0")),
    ("est", _constant("ax0", "s", "t")),
    ("ed", _past),
    ("ies", _constant("z")),
    ("es", possessive_ending),
    ("s", possessive_ending),
)
"""Regular endings with the phones they add, longest first where one ends in another."""


def _stems(root: str, ending: str) -> list[str]:
    """Words of which `root + ending` is the regular form, likeliest first."""
    if ending == "ies":
        return [root + "y", root + "ie"]
    stems = [root]
    if ending[0] in "ei" or ending == "able":
        stems.append(root + "e")
        if len(root) > 3 and root[-1] == root[-2]:
            stems.insert(0, root[:-1])
        if ending[0] == "e" and root.endswith("i"):
            stems.insert(0, root[:-1] + "y")
    elif ending in ("ly", "ness", "ful", "less") and root.endswith("i"):
        stems.insert(0, root[:-1] + "y")
    return stems
