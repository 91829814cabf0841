"""The token inventory of the default voice, as plain data.

Frontend, recipe and evaluation must agree on every id, so the list lives here once. It holds no
pronunciation rules, no lexicon and no normalisation: those turn text into these tokens.

A prompt of one chunk is

    [Stts] [spk_emb] [speed_k] TEXT [Ptts]

where the embedding row of ``[spk_emb]`` is replaced by the speaker vector, and TEXT is phones of
words with exactly one separator between two words and one final mark at the end: either
``WORD_SEPARATOR`` or one of ``PUNCTUATION`` (a mark replaces the separator, it does not follow
it). "Hello, big world." is

    hh ax0 l ow1 , b ih1 g _ w er1 l d .

TEXT always ends with one of ``FINAL_MARKS``. There are no letter tokens: words outside the
lexicon become phones by letter-to-sound rules or are spelt by letter names.
"""

from collections.abc import Iterable

__all__ = [
    "CONSONANTS",
    "FINAL_MARKS",
    "PHONES",
    "PUNCTUATION",
    "SPEEDS",
    "SPEED_TOKENS",
    "TOKENS",
    "TOKEN_IDS",
    "VOWELS",
    "WORD_SEPARATOR",
    "encode_chunk",
    "is_vowel",
]


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PAD = "[PAD]"
START = "[Stts]"
SPEAKER = "[spk_emb]"
END_OF_TEXT = "[Ptts]"

SPEEDS = (0.7, 0.85, 1.0, 1.2, 1.4)
"""Speaking rates the voice was trained at; 1.0 is the source voice's own."""

SPEED_TOKENS = tuple(f"[speed_{index}]" for index in range(len(SPEEDS)))
WORD_SEPARATOR = "_"
PUNCTUATION = (",", ";", ":", ".", "?", "!")
FINAL_MARKS = (".", "?", "!")

CONSONANTS = _split("b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh")
VOWELS = _split("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw")
"""Without stress. As tokens each takes the digit 0 (unstressed) or 1 (stressed)."""

PHONES = CONSONANTS + tuple(vowel + stress for vowel in VOWELS for stress in "01")

TOKENS = (
    *(PAD, START, SPEAKER, END_OF_TEXT),
    *SPEED_TOKENS,
    WORD_SEPARATOR,
    *PUNCTUATION,
    *PHONES,
)
TOKEN_IDS = {token: index for index, token in enumerate(TOKENS)}


def is_vowel(phone: str) -> bool:
    """Whether a phone token is a vowel, that is, carries a stress digit."""
    return phone[-1] in "01"


def encode_chunk(tokens: Iterable[str], speed_index: int = SPEEDS.index(1.0)) -> list[int]:
    """Token ids of a whole prompt for the TEXT ``tokens`` of one chunk.

    Raises KeyError for a token outside the inventory.
    """
    prompt = (START, SPEAKER, SPEED_TOKENS[speed_index], *tokens, END_OF_TEXT)
    return [TOKEN_IDS[token] for token in prompt]
