"""From a checkpoint's words to what a speech model declares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stretto.engine.errors import CheckpointError
from stretto.model_executor.models import default_voice
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.models.registry import find_entry
from tests.model_executor.tiny import ASSETS

SETTINGS: dict[str, Any] = {
    "sampling": {"temperature": 0.4, "top_p": 0.9, "top_k": 30, "repetition_penalty": 1.1},
    "max_new_tokens": 500,
}


def test_chattts_declares_what_was_published() -> None:
    checkpoint = load_checkpoint(str(ASSETS / "ckpt"))
    spec = find_entry(checkpoint).speech_spec(checkpoint)
    assert (spec.num_codebooks, spec.codebook_size, spec.eos_id) == (4, 626, 625)
    assert (spec.num_layers, spec.num_heads, spec.head_dim, spec.hidden_size) == (3, 4, 16, 64)
    assert spec.sampling.temperature == 0.3
    assert spec.text_sampling is not None
    assert spec.text_sampling.repetition_penalty == 1.0


def test_the_default_voice_brings_its_own_sampling() -> None:
    checkpoint = replace(load_checkpoint(str(ASSETS / "ckpt")), settings=SETTINGS)
    spec = default_voice.speech_spec(checkpoint)
    assert spec.sampling.top_k == 30
    assert spec.sampling.max_new_tokens == 500
    assert spec.text_eos_id is None


@pytest.mark.parametrize("settings", [{}, {"sampling": {}}, {**SETTINGS, "max_new_tokens": "many"}])
def test_missing_sampling_is_named(settings: dict[str, Any]) -> None:
    checkpoint = replace(load_checkpoint(str(ASSETS / "ckpt")), settings=settings)
    with pytest.raises(CheckpointError, match=r"stretto.json: missing or malformed sampling"):
        default_voice.speech_spec(checkpoint)


def test_an_unknown_architecture_is_answered_with_the_known_ones() -> None:
    checkpoint = replace(load_checkpoint(str(ASSETS / "ckpt")), architecture="Parrot")
    with pytest.raises(CheckpointError, match=r"unknown architecture 'Parrot'.*ChatTTS"):
        find_entry(checkpoint)
