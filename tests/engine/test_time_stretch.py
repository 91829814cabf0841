"""Tempo without pitch, and the same samples however the stream is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from stretto.engine.output import FloatArray
from stretto.engine.time_stretch import TimeStretch

RATE = 24000


def tone(seconds: float, hertz: float = 220.0) -> FloatArray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def speech_like(seconds: float) -> FloatArray:
    """A gliding buzz with syllables and some noise."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * (140 * t + 8 * np.sin(2 * np.pi * 0.7 * t))
    buzz = np.sum([np.sin(phase * k) / k for k in range(1, 9)], axis=0)
    noise = np.random.default_rng(0).standard_normal(len(t)) * 0.02
    audio: FloatArray = 0.2 * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) * buzz + noise
    return audio.astype(np.float32)


def stretch(audio: FloatArray, speed: float, cuts: list[int]) -> FloatArray:
    stretcher = TimeStretch(speed, RATE)
    edges = [0, *cuts, len(audio)]
    pieces = [stretcher.feed(audio[start:end]) for start, end in pairwise(edges)]
    return np.concatenate([*pieces, stretcher.finish()])


def pitch(audio: FloatArray) -> float:
    middle = audio[len(audio) // 4 : -len(audio) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), n=1 << 19))
    return float(np.argmax(spectrum) * RATE / (1 << 19))


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.25, 2.0, 3.0, 4.0])
def test_the_cut_of_the_stream_does_not_matter(speed: float) -> None:
    audio = speech_like(3.0)
    whole = stretch(audio, speed, [])
    for cuts in ([1, 2, 3], [12_000], list(range(512, len(audio), 512)), [100, 60_000, 60_001]):
        np.testing.assert_array_equal(stretch(audio, speed, cuts), whole)


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.25, 2.0, 3.0, 4.0])
def test_duration_is_within_one_percent(speed: float) -> None:
    audio = speech_like(8.0)
    assert len(stretch(audio, speed, [])) == pytest.approx(len(audio) / speed, rel=0.01)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
def test_pitch_is_kept(speed: float) -> None:
    changed = stretch(tone(4.0), speed, [])
    assert pitch(changed) == pytest.approx(220.0, rel=0.01)
    level = float(np.sqrt(np.mean(changed[RATE // 4 : -RATE // 4] ** 2)))
    assert level == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_nothing_in_gives_nothing_out() -> None:
    stretcher = TimeStretch(2.0, RATE)
    assert len(stretcher.feed(np.zeros(0, np.float32))) == 0
    assert len(stretcher.finish()) == 0


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_speeds_are_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        TimeStretch(speed, RATE)
