"""Constant silence at the ends, whatever the pieces; level and pauses of a request's segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from stretto.engine.delivery import Delivery
from stretto.engine.edge_trim import EdgeTrim
from stretto.model_executor.interfaces import Prompt, SpeechEdges

RATE = 1000
EDGES = SpeechEdges(threshold=0.1, lead_s=0.006, tail_s=0.012)
LEAD, TAIL = 6, 12
QUIET = 0.05
Samples = npt.NDArray[np.float32]


def speech(before: int, after: int, pause: int = 0) -> Samples:
    """Ten loud samples, a pause, ten loud samples, between quiet ones."""
    parts = [(before, QUIET), (10, 0.5), (pause, QUIET), (10, -0.5), (after, QUIET)]
    return np.concatenate([np.full(count, value, np.float32) for count, value in parts])


def trimmed(audio: Samples, cuts: Sequence[int]) -> Samples:
    trim = EdgeTrim(EDGES, RATE)
    pieces = np.split(audio, sorted(min(cut, len(audio)) for cut in cuts))
    last = len(pieces) - 1
    out = [trim.feed(piece, ends=index == last) for index, piece in enumerate(pieces)]
    return np.concatenate(out)


@given(
    before=st.integers(0, 30),
    after=st.integers(0, 40),
    pause=st.integers(0, 40),
    cuts=st.lists(st.integers(0, 130), max_size=8),
)
def test_the_ends_are_constant_and_the_rest_is_untouched(
    before: int, after: int, pause: int, cuts: list[int]
) -> None:
    audio = speech(before, after, pause)
    out = trimmed(audio, cuts)
    loud = np.flatnonzero(np.abs(out) > EDGES.threshold)
    assert loud[0] == LEAD
    assert len(out) - 1 - loud[-1] == TAIL
    inner = audio[before : len(audio) - after]
    np.testing.assert_array_equal(out[LEAD : LEAD + len(inner)], inner)
    np.testing.assert_array_equal(out, trimmed(audio, []))


def test_speech_is_not_held_back() -> None:
    trim = EdgeTrim(EDGES, RATE)
    first = trim.feed(speech(before=20, after=5), ends=False)
    assert len(first) == LEAD + 20 + 5
    assert len(trim.feed(np.full(30, QUIET, np.float32), ends=False)) == TAIL - 5
    assert len(trim.feed(np.full(1, 0.5, np.float32), ends=False)) == 30 - (TAIL - 5) + 1


def test_a_segment_that_says_nothing_is_dropped() -> None:
    assert len(trimmed(np.full(50, QUIET, np.float32), [7, 20])) == 0


PROMPT = Prompt(token_ids=np.zeros(1, np.int32), gain=0.5, edges=EDGES, pause_after_s=0.01)


def delivered(prompts: Sequence[Prompt]) -> Samples:
    delivery = Delivery(prompts, RATE, speed=1.0)
    audio = 2 * speech(before=20, after=30)
    return np.concatenate(
        [delivery.push(index, audio, ends=True) for index in reversed(range(len(prompts)))]
    )


def test_gain_comes_before_the_threshold_and_pauses_after_the_trim() -> None:
    out = delivered([PROMPT, PROMPT])
    each = LEAD + 20 + TAIL
    assert len(out) == each + 10 + each
    assert np.abs(out).max() == np.float32(0.5)
    assert not out[each : each + 10].any()


def test_without_settings_samples_pass_untouched() -> None:
    plain = replace(PROMPT, gain=1.0, edges=None)
    np.testing.assert_array_equal(delivered([plain]), 2 * speech(before=20, after=30))
