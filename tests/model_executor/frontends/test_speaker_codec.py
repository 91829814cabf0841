"""base16384 and speaker strings: round trips, the format's own examples, damaged input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.engine.errors import UnknownVoiceError
from stretto.model_executor.frontends.speaker_codec import (
    decode_base16384,
    decode_speaker,
    encode_base16384,
    encode_speaker,
    unit_speaker,
)

ASSETS = Path(__file__).parents[2] / "assets" / "chattts_tiny"


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=80))
def test_base16384_round_trip(data: bytes) -> None:
    assert decode_base16384(encode_base16384(data)) == data


def test_base16384_of_upstream_bytes() -> None:
    text = json.loads((ASSETS / "upstream_config.json").read_text(encoding="utf-8"))["spk_stat"]
    data = decode_base16384(text)
    assert len(data) == 2 * 2 * 64
    assert encode_base16384(data) == text


def test_base16384_layout() -> None:
    assert encode_base16384(b"") == ""
    assert encode_base16384(b"\xff" * 7) == chr(0x4E00 + 0x3FFF) * 4
    assert encode_base16384(b"\x80") == chr(0x4E00 + 0x2000) + chr(0x3D01)


@pytest.mark.parametrize("text", ["a", "一", "一丁丂", "一丁\u3d06", "\u3d01"])
def test_damaged_base16384(text: str) -> None:
    with pytest.raises(ValueError, match=r"cut short|base16384"):
        decode_base16384(text)


def test_speaker_string_round_trip() -> None:
    vector = np.random.default_rng(0).normal(size=768)
    decoded = decode_speaker(encode_speaker(vector), 768)
    np.testing.assert_array_equal(decoded.numpy(), vector.astype(np.float16))
    assert np.linalg.norm(unit_speaker(decoded)) == pytest.approx(1.0, abs=2e-3)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_string_is_refused_or_read(text: str) -> None:
    with pytest.raises(UnknownVoiceError):
        decode_speaker(text, 768)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.binary(max_size=80))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with pytest.raises(UnknownVoiceError):
        decode_speaker(encode_base16384(data), 768)
