"""Words to phones: lexicon, endings, homographs, letters, and how often the fallback is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.letter_to_sound import evaluate, is_held_out, trainable_words
from stretto.engine.errors import CheckpointError
from stretto.model_executor.frontends.english_exceptions import EXCEPTIONS
from stretto.model_executor.frontends.english_words import Pronouncer
from stretto.model_executor.frontends.letter_to_sound import LetterToSound
from stretto.model_executor.frontends.lexicon import Lexicon, load_lexicon
from stretto.model_executor.frontends.phones import PHONES, is_vowel

DEFAULT_VOICE = Path(__file__).parents[3] / "assets" / "default"


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load_lexicon(DEFAULT_VOICE / "lexicon.txt.xz")


@pytest.fixture(scope="module")
def rules() -> LetterToSound:
    return LetterToSound.from_file(DEFAULT_VOICE / "letter_to_sound.safetensors")


@pytest.fixture(scope="module")
def pronouncer(lexicon: Lexicon, rules: LetterToSound) -> Pronouncer:
    return Pronouncer(lexicon, rules)


def phones(pronouncer: Pronouncer, text: str) -> list[str]:
    return [" ".join(word) for word in pronouncer.pronounce(text.split())]


def test_lexicon_words(pronouncer: Pronouncer) -> None:
    assert phones(pronouncer, "Hello world don't") == [
        "hh ax0 l ow1",
        "w er1 l d",
        "d ow1 n t",
    ]


@pytest.mark.parametrize(
    ("word", "spoken"),
    [
        ("stretto's", "s t r eh1 t ow1 z"),
        ("blogged", "b l aa1 g d"),
        ("vlogger", None),
        ("zipless", "z ih1 p l ax0 s"),
        ("texted", "t eh1 k s t ax0 d"),
        ("emailed", "iy1 m ey0 l d"),
        ("cats'", "k ae1 t s"),
        ("relogging", "r iy0 l ao1 g ih0 ng"),
        ("DevOps", "d eh1 v aa1 p s"),
        ("who'll", None),
        ("catdoggy", None),
    ],
)
def test_forms_of_known_words(pronouncer: Pronouncer, word: str, spoken: str | None) -> None:
    (found,) = phones(pronouncer, word)
    assert found
    assert set(found.split()) <= set(PHONES)
    if spoken is not None:
        assert found == spoken


@pytest.mark.parametrize(
    ("text", "index", "spoken"),
    [
        ("i will read it", 2, "r iy1 d"),
        ("she has read it", 2, "r eh1 d"),
        ("a live show", 1, "l ay1 v"),
        ("we live here", 1, "l ih1 v"),
        ("lead the way", 0, "l iy1 d"),
        ("a lead pipe", 1, "l eh1 d"),
        ("use it", 0, "y uw1 z"),
        ("no use", 1, "y uw1 s"),
        ("please record it", 1, "r ax0 k ao1 r d"),
        ("a record", 1, "r eh1 k er0 d"),
        ("close to me", 0, "k l ow1 z"),
        ("very close to me", 1, "k l ow1 s"),
    ],
)
def test_homographs(pronouncer: Pronouncer, text: str, index: int, spoken: str) -> None:
    assert phones(pronouncer, text)[index] == spoken


def test_letters_and_acronyms(pronouncer: Pronouncer) -> None:
    assert phones(pronouncer, "U S A") == ["y uw1", "eh1 s", "ey1"]
    assert phones(pronouncer, "a cat") == ["ax0", "k ae1 t"]
    assert phones(pronouncer, "five A M") == ["f ay1 v", "ey1", "eh1 m"]
    assert phones(pronouncer, "T V's") == ["t iy1", "v iy1 z"]
    assert phones(pronouncer, "XKCQ") == [
        " ".join(phones(pronouncer, "X K C Q")),
    ]
    assert phones(pronouncer, "b2b") == ["b iy1 t uw1 b iy1"]
    assert phones(pronouncer, "tv usb") == ["t iy1 v iy1", "y uw1 eh1 s b iy1"]
    assert phones(pronouncer, "''") == [""]


def test_unknown_words_have_a_stressed_vowel(pronouncer: Pronouncer, lexicon: Lexicon) -> None:
    for word in ("blorfington", "quexity", "snarvelish", "pythonista", "zendaya", "strettissimo"):
        assert word not in lexicon
        (spoken,) = pronouncer.pronounce([word])
        assert set(spoken) <= set(PHONES)
        assert any(is_vowel(phone) and phone.endswith("1") for phone in spoken)


def test_fallback_on_held_out_words(rules: LetterToSound, lexicon: Lexicon) -> None:
    entries = trainable_words(lexicon)
    held_out = [word for word in entries if is_held_out(word)][::6]
    accuracy = evaluate(rules, {word: entries[word] for word in held_out})
    assert accuracy.words > 500
    assert accuracy.errors_unstressed / accuracy.phones < 0.12
    assert accuracy.errors / accuracy.phones < 0.14


def test_long_or_empty_words_do_not_break_the_fallback(rules: LetterToSound) -> None:
    assert rules("") == ()
    assert rules("123") == ()
    assert rules("ab" * 500)


def test_damaged_model_file(tmp_path: Path) -> None:
    path = tmp_path / "letter_to_sound.safetensors"
    with pytest.raises(CheckpointError, match="no letter-to-sound model"):
        LetterToSound.from_file(path)
    path.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="no letter-to-sound model"):
        LetterToSound.from_file(path)


def test_exceptions_use_the_inventory() -> None:
    for word, spoken in EXCEPTIONS.items():
        assert set(spoken) <= set(PHONES), word
        assert any(is_vowel(phone) for phone in spoken), word
