"""The default voice's prompts: token grammar, chunk lengths, voices, refusals."""

from __future__ import annotations

import json
import lzma
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from stretto.engine.errors import CheckpointError, RequestError
from stretto.engine.request import SpeechRequest, Voice
from stretto.model_executor.frontends.english_voice import EnglishVoiceFrontend
from stretto.model_executor.frontends.phones import (
    FINAL_MARKS,
    PHONES,
    PUNCTUATION,
    TOKENS,
    WORD_SEPARATOR,
)
from stretto.model_executor.interfaces import Frontend, Prompt, SpeechEdges, SpeechModelSpec

DEFAULT_VOICE = Path(__file__).parents[3] / "assets" / "default"
HIDDEN = 16
SPEC = cast(SpeechModelSpec, SimpleNamespace(hidden_size=HIDDEN, max_model_len=4096))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("voice")
    for name in ("lexicon.txt.xz", "letter_to_sound.safetensors"):
        shutil.copy(DEFAULT_VOICE / name, path / name)
    (path / "asset").mkdir()
    speakers = {"rms": torch.full((HIDDEN,), 2.0), "slt": torch.ones(HIDDEN)}
    save_file(speakers, path / "asset" / "spk.safetensors")
    settings = {
        "duration_guard": {"frames_per_phone": 5.0, "factor": 2.0, "least": 0.5},
        "output": {
            "gains": {"slt": 0.5},
            "edges": {"threshold": 0.003, "lead_s": 0.06, "tail_s": 0.12},
        },
    }
    (path / "asset" / "stretto.json").write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def frontend(folder: Path) -> EnglishVoiceFrontend:
    return EnglishVoiceFrontend.from_folder(folder, SPEC)


def spoken(prompt: Prompt) -> str:
    """TEXT tokens of a prompt."""
    tokens = [TOKENS[token_id] for token_id in prompt.token_ids]
    assert tokens[:3] == ["[Stts]", "[spk_emb]", "[speed_2]"]
    assert tokens[-1] == "[Ptts]"
    return " ".join(tokens[3:-1])


def encode(frontend: EnglishVoiceFrontend, text: str) -> list[str]:
    return [spoken(prompt) for prompt in frontend.encode(SpeechRequest(text=text))]


def check_grammar(tokens: list[str]) -> None:
    """Words of phones, one separator or mark after each, a final mark at the end."""
    assert tokens[0] in PHONES
    assert tokens[-1] in FINAL_MARKS
    for token, following in pairwise(tokens):
        assert token in PHONES or following in PHONES


def test_is_a_frontend(frontend: EnglishVoiceFrontend) -> None:
    checked: Frontend = frontend
    assert checked.default_voice == "slt"
    assert [voice.id for voice in checked.voices] == ["slt", "rms"]


def test_the_example_of_the_inventory(frontend: EnglishVoiceFrontend) -> None:
    assert encode(frontend, "Hello, big world.") == ["hh ax0 l ow1 , b ih1 g _ w er1 l d ."]


def test_numbers_marks_and_a_missing_final_mark(frontend: EnglishVoiceFrontend) -> None:
    (text,) = encode(frontend, "Are you 5?!")
    assert text.endswith("f ay1 v ?")
    (text,) = encode(frontend, "yes, it is,")
    assert text.endswith("ih1 z .")
    (text,) = encode(frontend, "one... two [uv_break] three[laugh]")
    assert [token for token in text.split() if token in PUNCTUATION] == [",", ",", "."]


def test_styled_letters_are_letters(frontend: EnglishVoiceFrontend) -> None:
    assert encode(frontend, "𝐇𝐞𝐥𝐥𝐨, ｂｉｇ world") == encode(frontend, "Hello, big world")


def test_speaker_and_guard(frontend: EnglishVoiceFrontend) -> None:
    (prompt,) = frontend.encode(SpeechRequest(text="big world.", voice="rms"))
    assert prompt.speaker_position == 1
    np.testing.assert_array_equal(prompt.speaker, np.full(HIDDEN, 2.0, dtype=np.float32))
    assert prompt.max_new_frames == (2 * (12 + 7 * 5))
    assert prompt.min_new_frames == round((12 + 7 * 5) / 2)
    by_title = frontend.encode(SpeechRequest(text="hi", voice="male"))[0]
    np.testing.assert_array_equal(by_title.speaker, prompt.speaker)


def test_voices_are_levelled_and_their_ends_constant(frontend: EnglishVoiceFrontend) -> None:
    slt, rms = (
        frontend.encode(SpeechRequest(text="hi.", voice=voice))[0] for voice in ("slt", "rms")
    )
    assert (slt.gain, rms.gain) == (0.5, 1.0)
    assert slt.edges == rms.edges == SpeechEdges(threshold=0.003, lead_s=0.06, tail_s=0.12)


def test_speed_is_left_to_the_stretching_of_audio(frontend: EnglishVoiceFrontend) -> None:
    slow, plain = (
        frontend.encode(SpeechRequest(text="big world.", speed=speed))[0] for speed in (0.7, 1.0)
    )
    np.testing.assert_array_equal(slow.token_ids, plain.token_ids)
    assert slow.max_new_frames == plain.max_new_frames


def test_long_sentences_are_cut_to_what_the_voice_was_trained_for(
    frontend: EnglishVoiceFrontend,
) -> None:
    text = "the quick brown fox jumps over the lazy dog, " * 30 + "and " * 60
    prompts = frontend.encode(SpeechRequest(text=text))
    for prompt in prompts:
        tokens = spoken(prompt).split()
        check_grammar(tokens)
        words = sum(token == WORD_SEPARATOR or token in PUNCTUATION for token in tokens)
        assert words <= 16


@pytest.mark.parametrize("normalize", [True, False])
def test_hundred_thousand_characters(frontend: EnglishVoiceFrontend, normalize: bool) -> None:
    request = SpeechRequest(text="word and another, 12. " * 4_545, normalize=normalize)
    assert len(frontend.encode(request)) > 1_000


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(st.sampled_from("abeXTS019 .,;:?!'-$%()\n😀é"), min_size=1, max_size=80))
def test_any_text_is_refused_or_well_formed(frontend: EnglishVoiceFrontend, text: str) -> None:
    try:
        request = SpeechRequest(text=text)
        prompts = frontend.encode(request)
    except RequestError:
        assert not any(char.isalnum() for char in text)
        return
    for prompt in prompts:
        check_grammar(spoken(prompt).split())
        assert prompt.max_new_frames is not None
        assert prompt.max_new_frames > 0


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (SpeechRequest(text="?!"), "nothing in the text"),
        (SpeechRequest(text="😀"), "nothing in the text"),
        (SpeechRequest(text="你好"), "Chinese.*ChatTTS"),
        (SpeechRequest(text="hello мир"), "Cyrillic"),
        (SpeechRequest(text="a" * 100_001), "100000"),
        (SpeechRequest(text="hi", voice="nobody"), "nobody.*slt, rms"),
        (SpeechRequest(text="hi", voice=Voice(seed=3)), "slt, rms"),
        (SpeechRequest(text="hi", voice=Voice(audio=b"x", transcript="y")), "ChatTTS"),
        (SpeechRequest(text="hi", language="zh"), "'zh'"),
        (SpeechRequest(text="hi", prompt="[speed_3]"), "control tokens"),
    ],
)
def test_refusals_name_the_cause(
    frontend: EnglishVoiceFrontend, request_: SpeechRequest, cause: str
) -> None:
    with pytest.raises(RequestError, match=cause):
        frontend.encode(request_)


def test_refining_is_refused(frontend: EnglishVoiceFrontend) -> None:
    request = SpeechRequest(text="hi", refine=True)
    with pytest.raises(RequestError, match="no text refinement"):
        frontend.refine(request)
    with pytest.raises(RequestError, match="no text refinement"):
        frontend.encode_refined(request, [[1]])


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "voice"
    shutil.copytree(folder, copy)
    (copy / "asset" / "stretto.json").write_text('{"duration_guard": {"factor": "much"}}')
    with pytest.raises(CheckpointError, match="duration_guard"):
        EnglishVoiceFrontend.from_folder(copy, SPEC)
    for output in ('{"edges": {"threshold": 1}}', '{"gains": {"slt": "loud"}}', "3"):
        (copy / "asset" / "stretto.json").write_text(f'{{"output": {output}}}')
        with pytest.raises(CheckpointError, match="output"):
            EnglishVoiceFrontend.from_folder(copy, SPEC)
    save_file({"slt": torch.ones(3)}, copy / "asset" / "spk.safetensors")
    with pytest.raises(CheckpointError, match="16 values"):
        EnglishVoiceFrontend.from_folder(copy, SPEC)
    (copy / "asset" / "spk.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no speaker vectors"):
        EnglishVoiceFrontend.from_folder(copy, SPEC)
    (copy / "lexicon.txt.xz").write_bytes(lzma.compress(b"no tab here"))
    with pytest.raises(CheckpointError, match="no lexicon"):
        EnglishVoiceFrontend.from_folder(copy, SPEC)
