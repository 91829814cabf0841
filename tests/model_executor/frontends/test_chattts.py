"""ChatTTS prompts against upstream's own token ids, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from stretto.engine.errors import (
    CheckpointError,
    RequestError,
    RequestTooLongError,
    UnknownVoiceError,
)
from stretto.engine.request import SpeechRequest, Voice
from stretto.model_executor.frontends.chattts import ChatTTSFrontend
from stretto.model_executor.frontends.speaker_codec import encode_speaker
from stretto.model_executor.interfaces import Frontend, IntArray, SpeechModelSpec

ASSETS = Path(__file__).parents[2] / "assets" / "chattts_tiny"
HIDDEN = 64
TEXTS = (
    "hello the world, you and him.",
    "we can do it",
    "this is the first time that they made more than two words, not one.",
)
SPEC = cast(SpeechModelSpec, SimpleNamespace(hidden_size=HIDDEN, max_model_len=4096))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(ASSETS / "golden.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def frontend(golden: dict[str, Any]) -> ChatTTSFrontend:
    def encode_reference(audio: bytes) -> IntArray:
        if not audio.startswith(b"RIFF"):
            raise RequestError("not a recording", param="voice")
        return np.ascontiguousarray(golden["prompt"].T, dtype=np.int32)

    return ChatTTSFrontend.from_folder(ASSETS / "ckpt", SPEC, encode_reference)


def real_rows(golden: dict[str, Any], case: str, row: int) -> IntArray:
    """Ids of one row without its left padding: [length, codebooks] or [length]."""
    rows: IntArray = golden[f"{case}.ids"][row][golden[f"{case}.att"][row].astype(bool)]
    return rows


def test_is_a_frontend(frontend: ChatTTSFrontend) -> None:
    checked: Frontend = frontend
    assert checked.default_voice in {voice.id for voice in checked.voices}


@pytest.mark.parametrize("index", range(3))
def test_speech_prompt_equals_upstream(
    frontend: ChatTTSFrontend, golden: dict[str, Any], index: int
) -> None:
    voice = Voice(embedding=encode_speaker(golden["spk"]))
    (prompt,) = frontend.encode(SpeechRequest(text=TEXTS[index], voice=voice))
    np.testing.assert_array_equal(prompt.token_ids, golden[f"single{index}.ids"][0, :, 0])
    np.testing.assert_array_equal(prompt.token_ids, real_rows(golden, "batch", index)[:, 0])
    assert prompt.speaker is not None
    assert prompt.speaker_position == 1
    np.testing.assert_array_equal(prompt.speaker, golden[f"single{index}.emb"][0, 1])


@pytest.mark.parametrize("index", range(3))
def test_cloning_prompt_equals_upstream(
    frontend: ChatTTSFrontend, golden: dict[str, Any], index: int
) -> None:
    voice = Voice(audio=b"RIFF", transcript="one two ")
    (prompt,) = frontend.encode(SpeechRequest(text=TEXTS[index], voice=voice))
    rows = real_rows(golden, "zs", index)
    num_text = len(prompt.token_ids)
    np.testing.assert_array_equal(prompt.token_ids, rows[:num_text, 0])
    np.testing.assert_array_equal(prompt.frames, rows[num_text:])
    assert prompt.speaker is None
    assert prompt.num_tokens == len(rows)


def test_the_transcript_is_normalised_like_the_text(frontend: ChatTTSFrontend) -> None:
    def ids(transcript: str) -> list[int]:
        voice = Voice(audio=b"RIFF", transcript=transcript)
        tokens = frontend.encode(SpeechRequest(text="hello", voice=voice))[0].token_ids.tolist()
        return [int(token) for token in tokens]

    assert ids("1 [Ptts]2") == ids("one two")
    for transcript, cause in (("?!", "no words"), ("мир", "Cyrillic")):
        with pytest.raises(RequestError, match=cause):
            ids(transcript)


@pytest.mark.parametrize("index", range(3))
def test_refining_prompt_equals_upstream(
    frontend: ChatTTSFrontend, golden: dict[str, Any], index: int
) -> None:
    request = SpeechRequest(text=TEXTS[index], refine=True, refine_prompt="[oral_2]")
    (prompt,) = frontend.refine(request)
    rows = real_rows(golden, "refine", index)
    np.testing.assert_array_equal(prompt.token_ids, rows[:, 0] if rows.ndim == 2 else rows)
    assert prompt.output == "text"


def test_refined_ids_become_the_spoken_text(frontend: ChatTTSFrontend) -> None:
    tokenizer = frontend._tokenizer
    request = SpeechRequest(text="hello the world", refine=True)
    answer = tokenizer.encode("you and [uv_break] the world [laugh][oral_3][break_2]")
    (prompt,) = frontend.encode_refined(request, [answer])
    expected = tokenizer.encode(
        "[Stts][spk_emb][speed_5]you and [uv_break] the world [laugh][Ptts]"
    )
    assert prompt.token_ids.tolist() == expected
    (unrefined,) = frontend.encode_refined(request, [[]])
    assert unrefined.text == "hello the world"


def test_structure_tokens_in_the_text_are_dropped(frontend: ChatTTSFrontend) -> None:
    plain = frontend.encode(SpeechRequest(text="we can do it", normalize=False))
    tricked = frontend.encode(
        SpeechRequest(text="we [Ptts]can [spk_emb]do [Stts]it", normalize=False)
    )
    assert plain[0].token_ids.tolist() == tricked[0].token_ids.tolist()


def test_control_tokens_stay_and_style_is_replaced(frontend: ChatTTSFrontend) -> None:
    request = SpeechRequest(text="we [uv_break]can do it[laugh]", prompt="[speed_2]")
    (prompt,) = frontend.encode(request)
    ids = prompt.token_ids.tolist()
    for token in ("[uv_break]", "[laugh]", "[speed_2]"):
        assert ids.count(frontend._tokenizer.token_id(token)) == 1
    assert frontend._tokenizer.token_id("[speed_5]") not in ids


def test_long_text_becomes_segments_in_order(frontend: ChatTTSFrontend) -> None:
    sentence = "we can do it and you can see the first time of the people, "
    prompts = frontend.encode(SpeechRequest(text=sentence * 40 + "\nthe end"))
    assert len(prompts) > 5
    joined = "".join(prompt.text for prompt in prompts).replace(" ", "")
    assert joined == (sentence * 40 + "the end").replace(" ", "")
    assert all(len(prompt.text.split()) <= 32 for prompt in prompts)


def test_same_seed_same_voice(frontend: ChatTTSFrontend) -> None:
    def speaker(voice: str | Voice | None) -> Any:
        return frontend.encode(SpeechRequest(text="hello", voice=voice))[0].speaker

    np.testing.assert_array_equal(speaker("seed:5"), speaker(Voice(seed=5)))
    np.testing.assert_array_equal(speaker(None), speaker(frontend.default_voice))
    assert not np.array_equal(speaker("seed:5"), speaker("seed:6"))
    assert np.linalg.norm(speaker("seed:5")) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("?!... --", "nothing in the text can be spoken"),
        ("😀🎉", "nothing in the text can be spoken"),
        ("hello привет", "Cyrillic"),
        ("مرحبا", "Arabic"),
        ("x" * 100_001, "100000"),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_unspeakable_text_is_refused(
    frontend: ChatTTSFrontend, text: str, cause: str, normalize: bool
) -> None:
    with pytest.raises(RequestError, match=cause):
        frontend.encode(SpeechRequest(text=text, normalize=normalize))


@pytest.mark.parametrize("text", ["hello " * 16_666, "a" * 100_000, "1" * 100_000, "你好" * 50_000])
def test_a_hundred_thousand_characters_are_spoken(frontend: ChatTTSFrontend, text: str) -> None:
    prompts = frontend.encode(SpeechRequest(text=text))
    assert len(prompts) > 100
    assert max(prompt.num_tokens for prompt in prompts) < 600


@pytest.mark.parametrize(
    ("voice", "cause"),
    [
        ("nobody", "unknown voice 'nobody'.*seed:2"),
        ("seed:x", "unknown voice"),
        ("seed:" + "9" * 30, "below"),
        (Voice(embedding="abcd"), "not a base16384 character"),
        (Voice(embedding="跿跿跿跿"), "cannot be decoded"),
        (Voice(embedding=encode_speaker(np.ones(8))), "8 values.*64"),
        (Voice(embedding=encode_speaker(np.ones(80))), "too many"),
        (Voice(embedding=encode_speaker(np.full(HIDDEN, np.nan))), "finite"),
        (Voice(embedding=encode_speaker(np.zeros(HIDDEN))), "zeros"),
        (Voice(path="/nowhere/voice.pt"), "no voice file"),
        (Voice(path="/nowhere/voice.wav", transcript="hi"), "cannot read"),
        (Voice(path="/nowhere/voice.wav"), "transcript"),
        (Voice(audio=b"noise", transcript="hi"), "not a recording"),
    ],
)
def test_bad_voices_name_the_cause(
    frontend: ChatTTSFrontend, voice: str | Voice, cause: str
) -> None:
    with pytest.raises(RequestError, match=cause):
        frontend.encode(SpeechRequest(text="hello", voice=voice))


def test_speaker_files(frontend: ChatTTSFrontend, tmp_path: Path) -> None:
    vector = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    torch.save(vector, tmp_path / "tensor.pt")
    torch.save(encode_speaker(vector.numpy()), tmp_path / "string.pt")
    torch.save({"speaker": vector}, tmp_path / "dict.pt")
    torch.save(vector[:5], tmp_path / "short.pt")
    (tmp_path / "junk.pt").write_bytes(b"not a checkpoint")

    def speaker(name: str) -> Any:
        voice = Voice(path=str(tmp_path / name))
        return frontend.encode(SpeechRequest(text="hello", voice=voice))[0].speaker

    np.testing.assert_allclose(speaker("tensor.pt"), (vector / vector.norm()).numpy(), atol=1e-6)
    np.testing.assert_allclose(speaker("string.pt"), speaker("tensor.pt"), atol=2e-3)
    for name, cause in (("dict.pt", "holds a dict"), ("short.pt", r"\[5\]"), ("junk.pt", "not a")):
        with pytest.raises(UnknownVoiceError, match=cause):
            speaker(name)


def test_trained_voice_statistics(tmp_path: Path) -> None:
    (tmp_path / "asset").mkdir()
    (tmp_path / "asset" / "tokenizer").symlink_to(ASSETS / "ckpt" / "asset" / "tokenizer")
    means = torch.zeros(HIDDEN)
    means[3] = 100.0
    torch.save(torch.cat([torch.ones(HIDDEN), means]), tmp_path / "asset" / "spk_stat.pt")
    frontend = ChatTTSFrontend.from_folder(tmp_path, SPEC)
    (prompt,) = frontend.encode(SpeechRequest(text="hello", voice="seed:1"))
    assert prompt.speaker is not None
    assert int(prompt.speaker.argmax()) == 3
    torch.save(torch.ones(3), tmp_path / "asset" / "spk_stat.pt")
    with pytest.raises(CheckpointError, match="128 values"):
        ChatTTSFrontend.from_folder(tmp_path, SPEC)


def test_missing_or_broken_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        ChatTTSFrontend.from_folder(tmp_path, SPEC)
    folder = tmp_path / "asset" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a tokenizer file"):
        ChatTTSFrontend.from_folder(tmp_path, SPEC)


def test_a_recording_that_fills_the_model_is_refused(golden: dict[str, Any]) -> None:
    spec = cast(SpeechModelSpec, SimpleNamespace(hidden_size=HIDDEN, max_model_len=64))
    frontend = ChatTTSFrontend.from_folder(
        ASSETS / "ckpt", spec, lambda audio: np.zeros((100, 4), dtype=np.int32)
    )
    with pytest.raises(RequestTooLongError, match="reference recording"):
        frontend.encode(SpeechRequest(text="hello", voice=Voice(audio=b"x", transcript="one")))


def test_cloning_is_refused_where_it_cannot_be_done() -> None:
    frontend = ChatTTSFrontend.from_folder(ASSETS / "ckpt", SPEC)
    with pytest.raises(RequestError, match="cannot clone"):
        frontend.encode(SpeechRequest(text="hello", voice=Voice(audio=b"x", transcript="one")))
