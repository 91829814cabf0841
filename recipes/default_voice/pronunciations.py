"""The pronunciation lexicon that ships with the voice: Debian's word list read by flite.

Words flite's lookup cannot read (contractions) are taken from what the source voice says, except
for a few that it says wrongly. Possessives are left to a rule in the frontend's lexicon.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from string import ascii_lowercase

from stretto.model_executor.frontends.phones import PHONES, VOWELS

from .flite import Voice, is_listed, pronounce

__all__ = ["CONTRACTIONS", "build_lexicon", "dictionary_words", "listed_names", "word_phones"]

WORD_LIST = Path("/usr/share/dict/american-english")

_CONTRACTED = """
    don't i'm i've i'd i'll we'll we're we've we'd you're you'll you've you'd he's she's it's
    they're they'll they've they'd that's what's who's where's there's here's let's can't won't
    wasn't weren't hadn't doesn't didn't wouldn't couldn't shouldn't o'clock ma'am how's why's
    when's he'll she'll he'd she'd it'll that'll there'll who'll ain't needn't"""

CONTRACTIONS = tuple(_CONTRACTED.split())

_CORRECTED = {
    "isn't": "ih1 z ax0 n t",
    "hasn't": "hh ae1 z ax0 n t",
    "haven't": "hh ae1 v ax0 n t",
    "aren't": "aa1 r ax0 n t",
    "mustn't": "m ah1 s ax0 n t",
    "y'all": "y ao1 l",
    "jan": "jh ae1 n",
    "i": "ay1",
}
"""What flite says wrongly, or differently in running text than in its lookup."""


def _with_stress(phones: Iterable[str]) -> tuple[str, ...]:
    """Give bare vowels a digit: none of flite's lookups without one is stressed."""
    return tuple(phone + "0" if phone in VOWELS else phone for phone in phones)


@cache
def _spoken(word: str) -> tuple[str, ...]:
    """Phones of a short word as the source voice says it, first vowel stressed."""
    phones: list[str] = []
    stress = "1"
    for name, _ in _slt().speak(word).segments:
        if name == "pau":
            continue
        if name in VOWELS:
            name, stress = name + stress, "0"
        phones.append(name)
    return tuple(phones)


@cache
def _slt() -> Voice:
    return Voice("slt")


@cache
def word_phones(word: str) -> tuple[str, ...]:
    """Phones of one lower-case word, all of them in ``phones.PHONES``."""
    if word in _CORRECTED:
        return tuple(_CORRECTED[word].split())
    return _spoken(word) if "'" in word else _with_stress(pronounce(word))


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha()


def dictionary_words(path: Path = WORD_LIST) -> list[str]:
    """Plain lower-case words of Debian's wamerican, sorted."""
    lines = path.read_text().splitlines()
    return sorted({line.strip().lower() for line in lines if _is_word(line.strip())})


def listed_names() -> list[str]:
    """Words, most of them names, of the recogniser's dictionary that flite's lexicon lists too."""
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    words = (line.split()[0] for line in path.read_text().splitlines())
    return sorted({word for word in words if _is_word(word) and is_listed(word)})


def build_lexicon() -> dict[str, tuple[str, ...]]:
    """Pronunciations of the plain words of both lists, and of the contractions."""
    words = {*dictionary_words(), *listed_names(), *CONTRACTIONS, *_CORRECTED, *ascii_lowercase}
    entries = {word: word_phones(word) for word in words}
    known = set(PHONES)
    return {word: phones for word, phones in entries.items() if phones and known.issuperset(phones)}
