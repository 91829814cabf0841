"""Long text to segments: nothing lost, nothing too long, line breaks kept, pauses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.model_executor.frontends.segmentation import (
    Segment,
    SegmentLimits,
    segment_lines,
    units,
)

LIMITS = SegmentLimits(max_units=24, min_units=6)


def segments(text: str, limits: SegmentLimits = LIMITS) -> list[Segment]:
    return segment_lines(text, limits, lambda sentence: sentence)


def texts(text: str) -> list[str]:
    return [segment.text for segment in segments(text)]


def test_units_count_words_and_chinese_characters() -> None:
    assert units("two words") == 4
    assert units("internationalization") == 5
    assert units("你好，世界") == 4
    assert units("你好 world[laugh] 3.") == 6


def test_sentences_with_abbreviations() -> None:
    assert texts("Dr. Smith went to St. Louis by train. He paid $3.50 for all of it.") == [
        "Dr. Smith went to St. Louis by train.",
        "He paid $3.50 for all of it.",
    ]
    assert texts("今天天气非常好我们去公园。你明天到底想去哪里玩呢？") == [
        "今天天气非常好我们去公园。",
        "你明天到底想去哪里玩呢？",
    ]


def test_cut_at_clauses_before_words() -> None:
    text = "when the sun was going down, the old man walked home, but nobody saw him there"
    assert texts(text) == [
        "when the sun was going down,",
        "the old man walked home, but nobody saw him there",
    ]


def test_a_clause_over_the_limit_is_cut_evenly_at_words() -> None:
    pieces = texts(" ".join(["word"] * 26))
    assert [len(piece.split()) for piece in pieces] == [9, 9, 8]


def test_short_neighbours_are_merged_within_a_line_only() -> None:
    assert texts("Hi. Yes. No.") == ["Hi. Yes. No."]
    assert texts("Hi.\nYes.\r\nNo.") == ["Hi.", "Yes.", "No."]
    assert texts("好。是。") == ["好。是。"]


def test_pauses_follow_punctuation() -> None:
    first, second, third = segments(
        "one two three four five six seven, eight nine ten eleven twelve thirteen fourteen. "
        "The next one is here now.\nend"
    )[:3]
    assert first.text.endswith(",")
    assert 0 < first.pause_after_s < second.pause_after_s < 0.45
    last_of_line = segments("One line.\nAnother.")[0]
    assert last_of_line.pause_after_s == pytest.approx(0.45)
    assert third.pause_after_s == pytest.approx(0.45)


def test_what_normalisation_leaves_empty_is_dropped() -> None:
    kept = segment_lines("Yes. ***\n!!!", LIMITS, lambda s: s if s[0].isalpha() else "")
    assert [segment.text for segment in kept] == ["Yes."]
    assert segment_lines("\n \n", LIMITS, str) == []


ALPHABET = st.sampled_from([*"ab1 .,;:!?-()[]'\"\n", "你", "好", "。", "，", "[laugh]", "…", "😀"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(ALPHABET, max_size=120).map("".join), st.integers(4, 40))
def test_nothing_is_lost_and_nothing_is_too_long(text: str, max_units: int) -> None:
    limits = SegmentLimits(max_units=max_units, min_units=4)
    pieces = segments(text, limits)
    assert "".join("".join(p.text.split()) for p in pieces) == "".join(text.split())
    for piece in pieces:
        words = piece.text.split()
        assert units(piece.text) <= max_units or len(words) <= 1


@pytest.mark.parametrize("text", ["a" * 100_000, "你" * 100_000, "," * 100_000, "ab, " * 25_000])
def test_very_long_lines(text: str) -> None:
    pieces = texts(text)
    assert "".join("".join(piece.split()) for piece in pieces) == "".join(text.split())
