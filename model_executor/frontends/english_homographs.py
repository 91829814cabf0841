"""English words with two readings, told apart by the words beside them.

Only readings that a neighbour decides with fair safety are here; everything else keeps the
lexicon's. No grammar is parsed.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["homograph"]

Phones = tuple[str, ...]
Word = str


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PAST_CUES = _words("had has have was were be been being i've he's just already he she it well")
_TO_CUES = _words("to will would can could should must may might did do does don't")
_LIVE_NOUNS = _words(
    "music show shows broadcast concert performance stream streaming tv television audience "
    "event events recording updates coverage band version album footage wire wires"
)
_DETERMINERS = _words("a an the this that these those my your his her its our their")
_PREPOSITIONS = _words("in on of with for from by at no any some every each")


def homograph(word: Word, before: Word, after: Word) -> Phones | None:
    """The reading of a word that has two, where its neighbours tell; None leaves the lexicon's."""
    choose = _HOMOGRAPHS.get(word)
    return choose(before, after) if choose else None


def _read(before: Word, after: Word) -> Phones:
    past = before in _PAST_CUES or after == "yesterday"
    return ("r", "eh1", "d") if past else ("r", "iy1", "d")


def _lead(before: Word, after: Word) -> Phones:
    metal = after in {"pipe", "pipes", "paint", "poisoning", "acid"}
    return ("l", "eh1", "d") if metal else ("l", "iy1", "d")


def _live(before: Word, after: Word) -> Phones:
    adjective = after in _LIVE_NOUNS or before in _DETERMINERS | {"broadcast", "go", "went"}
    return ("l", "ay1", "v") if adjective else ("l", "ih1", "v")


def _use(before: Word, after: Word) -> Phones:
    noun = before in _DETERMINERS | _PREPOSITIONS or after == "of" or before == "in"
    return ("y", "uw1", "s") if noun else ("y", "uw1", "z")


def _close(before: Word, after: Word) -> Phones:
    verb = before in _TO_CUES or before == "" or after in _DETERMINERS
    return ("k", "l", "ow1", "z") if verb else ("k", "l", "ow1", "s")


def _tear(before: Word, after: Word) -> Phones:
    verb = before in _TO_CUES or after in {"it", "up", "down", "apart", "the", "off"}
    return ("t", "eh1", "r") if verb else ("t", "ih1", "r")


def _wind(before: Word, after: Word) -> Phones:
    verb = before in _TO_CUES or after in {"up", "down"}
    return ("w", "ay1", "n", "d") if verb else ("w", "ih1", "n", "d")


def _minute(before: Word, after: Word) -> Phones:
    return ("m", "ih1", "n", "ax0", "t")


def _verb_or_noun(verb: str, noun: str) -> Callable[[Word, Word], Phones]:
    as_verb, as_noun = tuple(verb.split()), tuple(noun.split())

    def choose(before: Word, after: Word) -> Phones:
        is_verb = before in _TO_CUES or before in {"i", "we", "they", "you", "please", "not"}
        return as_verb if is_verb else as_noun

    return choose


_HOMOGRAPHS: dict[str, Callable[[Word, Word], Phones]] = {
    "read": _read,
    "lead": _lead,
    "live": _live,
    "use": _use,
    "close": _close,
    "tear": _tear,
    "wind": _wind,
    "minute": _minute,
    "record": _verb_or_noun("r ax0 k ao1 r d", "r eh1 k er0 d"),
    "present": _verb_or_noun("p r ax0 z eh1 n t", "p r eh1 z ax0 n t"),
    "object": _verb_or_noun("ax0 b jh eh1 k t", "aa1 b jh eh0 k t"),
    "project": _verb_or_noun("p r ax0 jh eh1 k t", "p r aa1 jh eh0 k t"),
    "permit": _verb_or_noun("p er0 m ih1 t", "p er1 m ih0 t"),
    "produce": _verb_or_noun("p r ax0 d uw1 s", "p r ow1 d uw0 s"),
    "refuse": _verb_or_noun("r ax0 f y uw1 z", "r eh1 f y uw0 z"),
    "contract": _verb_or_noun("k ax0 n t r ae1 k t", "k aa1 n t r ae0 k t"),
    "desert": _verb_or_noun("d ih0 z er1 t", "d eh1 z er0 t"),
    "excuse": _verb_or_noun("ih0 k s k y uw1 z", "ih0 k s k y uw1 s"),
    "house": lambda before, after: (
        ("hh", "aw1", "z") if before in {"to", "will", "can"} and after in {"the", "them", "us"}
        else ("hh", "aw1", "s")
    ),
}  # fmt: skip
