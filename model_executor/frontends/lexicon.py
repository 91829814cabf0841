"""The compressed pronunciation lexicon of the default voice: how it is stored and read.

Format of ``lexicon.txt.xz``: UTF-8 text, one entry per line, ``word`` TAB ``code``, sorted by
word; ``word`` is lower case with letters and apostrophes; ``code`` has one character per phone,
``chr(48 + index)`` where ``index`` is the phone's place in ``phones.PHONES``. One pronunciation
per word. The module knows nothing of words outside the list.
"""

import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path

from .phones import PHONES

__all__ = ["Lexicon", "load_lexicon", "possessive_ending", "save_lexicon"]

_FIRST = 48
_CODES = {phone: chr(_FIRST + index) for index, phone in enumerate(PHONES)}


_SIBILANTS = frozenset({"s", "z", "sh", "zh", "ch", "jh"})
_VOICELESS = frozenset({"p", "t", "k", "f", "th"})


class Lexicon:
    """Words to phones; entries stay encoded until they are asked for."""

    def __init__(self, encoded: Mapping[str, str]) -> None:
        self._encoded = encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __contains__(self, word: str) -> bool:
        return word in self._encoded

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def get(self, word: str) -> tuple[str, ...] | None:
        """Phones of a lower-case word, such as ``("hh", "ax0", "l", "ow1")``, or None.

        A possessive ("dog's") that is not listed is its listed stem with the ending by rule.
        """
        code = self._encoded.get(word)
        if code is not None:
            return tuple(PHONES[ord(char) - _FIRST] for char in code)
        stem = self.get(word[:-2]) if word.endswith("'s") else None
        return None if stem is None else stem + possessive_ending(stem)

    def letter_name(self, letter: str) -> tuple[str, ...] | None:
        """Phones of the name of a letter; the entry "a" is the article."""
        return ("ey1",) if letter == "a" else self.get(letter)


def possessive_ending(stem: tuple[str, ...]) -> tuple[str, ...]:
    """Phones of 's (or the plural s) after a word: ax z, s or z by its last phone."""
    if stem[-1] in _SIBILANTS:
        return ("ax0", "z")
    return ("s",) if stem[-1] in _VOICELESS else ("z",)


def load_lexicon(path: Path) -> Lexicon:
    """Read ``lexicon.txt.xz``."""
    text = lzma.decompress(path.read_bytes()).decode()
    return Lexicon(dict(line.split("\t") for line in text.splitlines()))


def save_lexicon(path: Path, entries: Mapping[str, tuple[str, ...]]) -> None:
    """Write ``lexicon.txt.xz`` from words and their phones."""
    lines = (
        f"{word}\t{''.join(map(_CODES.__getitem__, entries[word]))}" for word in sorted(entries)
    )
    path.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
