"""Text in, waveform out, on the tiny ChatTTS checkpoint: the promises, with the real parts.

Random weights make noise instead of speech, but every number is real: frames do not depend on the
company, streams equal the whole decode, and bad input is named.
"""

from __future__ import annotations

import io
import json
import shutil
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stretto.engine.build import build_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.errors import (
    CheckpointError,
    RequestError,
    RequestTooLongError,
    StrettoError,
    UnknownModelError,
    UnknownVoiceError,
)
from stretto.engine.offline import SpeechEngine
from stretto.engine.output import SpeechResult
from stretto.engine.request import Lookahead, Priority, SamplingParams, SpeechRequest, Voice

# Seconds on a quiet machine; a starved one may take its time.
pytestmark = pytest.mark.timeout(1200)

TINY = Path(__file__).parent / "assets" / "chattts_tiny" / "ckpt"

WORDS = "the small brown fox reads a long letter while seven bells ring over the quiet harbour"


def make_engine(**fields: object) -> SpeechEngine:
    """Frames are kept for comparison; see `Frames`."""
    settings = {"model": str(TINY), "dtype": "float32", "warmup": False} | fields
    return SpeechEngine(config=EngineConfig(**settings), build=build_recording_core)  # type: ignore[arg-type]


class Frames:
    """Keeps the frames of every sequence when it is removed from its executor."""

    def __init__(self, core: EngineCore) -> None:
        self.by_sequence: dict[str, npt.NDArray[np.int32]] = {}
        executor = core.executor
        remove = executor.remove_sequence

        def keep_and_remove(seq_id: str) -> None:
            self.by_sequence[seq_id] = executor.generated(seq_id)
            remove(seq_id)

        executor.remove_sequence = keep_and_remove  # type: ignore[method-assign]

    def of(self, request_id: str) -> npt.NDArray[np.int32]:
        """All frames of a request [num_frames, num_codebooks], segments in order."""
        prefix = f"{request_id}/speech/"
        names = sorted(
            (name for name in self.by_sequence if name.startswith(prefix)),
            key=lambda name: int(name.removeprefix(prefix)),
        )
        return np.concatenate([self.by_sequence[name] for name in names])


FRAMES: dict[int, Frames] = {}


def build_recording_core(config: EngineConfig) -> EngineCore:
    core = build_core(config)
    FRAMES[id(core)] = Frames(core)
    return core


def frames_of(engine: SpeechEngine, result: SpeechResult) -> npt.NDArray[np.int32]:
    return FRAMES[id(engine._core)].of(result.request_id)


@pytest.fixture(scope="module")
def engine() -> Iterator[SpeechEngine]:
    with make_engine() as engine:
        yield engine
        engine.check_integrity()


def mixed_requests(count: int) -> list[SpeechRequest]:
    """Requests that differ in length, voice, sampling, seed, class and segments."""
    words = WORDS.split()
    requests = []
    for index in range(count):
        size = 1 + index * 5 % len(words)
        sampling = SamplingParams(
            temperature=0.1 + 0.3 * (index % 4),
            top_p=0.5 + 0.1 * (index % 5),
            top_k=5 + index % 30,
            repetition_penalty=1.0 + 0.05 * (index % 3),
            max_new_tokens=3 + index * 7 % 29,
        )
        text = " ".join(words[index % 7 :][:size]) + ". "
        requests.append(
            SpeechRequest(
                text=text * (1 + index % 2),
                voice=Voice(seed=index % 5),
                seed=index,
                sampling=sampling,
                priority="bulk" if index % 3 == 0 else "interactive",
                vocoder_input="codes" if index % 11 == 0 else None,
            )
        )
    return requests


# Promise 3: your neighbours don't change your voice.


@pytest.mark.slow
def test_sixty_four_mixed_requests_sound_as_each_does_alone(engine: SpeechEngine) -> None:
    requests = mixed_requests(64)
    together = engine.generate(requests)
    for request, result in zip(requests, together, strict=True):
        alone = engine.generate(request)[0]
        np.testing.assert_array_equal(frames_of(engine, result), frames_of(engine, alone))
        np.testing.assert_allclose(result.audio, alone.audio, rtol=0, atol=1e-5)
        assert result.finish_reason == alone.finish_reason
    engine.check_integrity()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_num_batched_tokens": 7},
        {"max_num_seqs": 3},
        {"enable_prefix_caching": False},
        {"block_size": 4, "kv_cache_memory": "200KiB"},
        {"max_vocoder_frames": 60, "first_chunk_frames": 1, "chunk_growth": 1.3},
    ],
    ids=[
        "chunked prefill",
        "few at once",
        "no prefix cache",
        "preemption",
        "small vocoder batches",
    ],
)
def test_settings_change_nothing(engine: SpeechEngine, fields: dict[str, object]) -> None:
    requests = mixed_requests(16)
    expected = engine.generate(requests)
    with make_engine(**fields) as other:
        results = other.generate(requests)
        other.check_integrity()
        if "kv_cache_memory" in fields:
            assert other.stats().num_preemptions > 0, "the cache was meant to be too small"
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(frames_of(other, result), frames_of(engine, wanted))
            np.testing.assert_allclose(result.audio, wanted.audio, rtol=0, atol=1e-5)


def test_a_cached_voice_prompt_changes_nothing(engine: SpeechEngine) -> None:
    reference = recording(2.0)
    voice = Voice(audio=reference, transcript="some words")
    request = SpeechRequest(
        text="hello there", voice=voice, seed=3, sampling=SamplingParams(max_new_tokens=20)
    )
    with make_engine(enable_prefix_caching=False) as plain:
        wanted = plain.generate(request)[0]
    first, second = engine.generate(request)[0], engine.generate(request)[0]
    assert second.metrics.cached_tokens > first.metrics.cached_tokens
    for result in (first, second):
        np.testing.assert_allclose(result.audio, wanted.audio, rtol=0, atol=1e-5)


# Promise 4: streamed equals whole.

LONG = SpeechRequest(
    text=f"{WORDS}. {WORDS}.",
    voice=Voice(seed=2),
    seed=11,
    sampling=SamplingParams(min_new_tokens=120, max_new_tokens=140),
)


@pytest.fixture(scope="module")
def whole(engine: SpeechEngine) -> SpeechResult:
    """The one-shot decode of each segment."""
    with make_engine(max_vocoder_frames=4096) as engine:
        result = engine.generate(replace(LONG, priority="bulk"))[0]
        assert engine.stats().vocoder_rows == result.metrics.num_segments
    assert result.metrics.frames >= 120
    return result


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 4, 12, 24])
def test_streamed_equals_whole(first: int, whole: SpeechResult) -> None:
    for steady in (8, 25, 50, 100):
        fields = {"first_chunk_frames": first, "max_chunk_frames": max(first, steady)}
        with make_engine(**fields) as engine:
            chunks = list(engine.stream(LONG))
        assert len(chunks) > 2
        audio = np.concatenate([chunk.audio for chunk in chunks])
        np.testing.assert_allclose(audio, whole.audio, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_low_lookahead_is_close_and_has_no_clicks(whole: SpeechResult) -> None:
    """Below -50 dB of the whole decode, at the joins too.

    The tiny vocoder is shallow: its whole look-ahead is 13 frames, so 10 stands for a low setting.
    """
    for steady in (8, 50):
        fields = {"first_chunk_frames": 4, "max_chunk_frames": steady, "low_lookahead_frames": 10}
        with make_engine(**fields) as engine:
            assert engine._core.executor.vocoder_spec.right_context == 13
            chunks = list(engine.stream(replace(LONG, lookahead="low")))
        audio = np.concatenate([chunk.audio for chunk in chunks])
        assert len(audio) == len(whole.audio)
        difference = audio - whole.audio
        assert difference.any(), "the low setting was meant to look ahead less"
        assert decibels(difference, whole.audio) < -50
        ends = np.cumsum([len(chunk.audio) for chunk in chunks])[:-1]
        for end in ends:
            join = slice(max(0, end - 64), end + 64)
            assert decibels(difference[join], whole.audio) < -50


def decibels(difference: npt.NDArray[np.float32], signal: npt.NDArray[np.float32]) -> float:
    """Level of a difference relative to a signal, by root mean square."""
    ratio = np.sqrt(np.mean(difference.astype(np.float64) ** 2)) / np.sqrt(
        np.mean(signal.astype(np.float64) ** 2)
    )
    return float(20 * np.log10(ratio + 1e-30))


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
@pytest.mark.parametrize("lookahead", ["exact", "low"])
def test_length_follows_from_frames(
    engine: SpeechEngine, priority: Priority, lookahead: Lookahead
) -> None:
    request = SpeechRequest(
        text="hello",
        seed=1,
        priority=priority,
        lookahead=lookahead,
        sampling=SamplingParams(min_new_tokens=31, max_new_tokens=31),
    )
    result = engine.generate(request)[0]
    assert result.finish_reason == "length"
    assert len(result.audio) == 31 * 512 - 256


# ChatTTS' own stages.


def test_refined_text_is_spoken(engine: SpeechEngine) -> None:
    request = SpeechRequest(
        text="hello there", seed=4, refine=True, sampling=SamplingParams(max_new_tokens=12)
    )
    results = [engine.generate(request)[0] for _ in range(2)]
    assert results[0].finish_reason == results[1].finish_reason
    np.testing.assert_array_equal(results[0].audio, results[1].audio)


def test_both_vocoder_inputs_are_decoded(engine: SpeechEngine) -> None:
    request = SpeechRequest(text="hello", seed=5, sampling=SamplingParams(max_new_tokens=20))
    hidden = engine.generate(replace(request, vocoder_input="hidden"))[0]
    codes = engine.generate(replace(request, vocoder_input="codes"))[0]
    default = engine.generate(request)[0]
    np.testing.assert_array_equal(hidden.audio, default.audio)
    assert len(codes.audio) == len(hidden.audio)
    assert not np.allclose(codes.audio, hidden.audio)


def test_a_voice_can_be_cloned(engine: SpeechEngine) -> None:
    request = SpeechRequest(
        text="hello",
        seed=5,
        voice=Voice(audio=recording(2.0), transcript="some words"),
        sampling=SamplingParams(max_new_tokens=20),
    )
    assert engine.model_info.supports_zero_shot
    result = engine.generate(request)[0]
    assert result.finish_reason in ("stop", "length")
    assert result.metrics.prompt_tokens > 80, "two seconds are more than 80 frames"


def recording(seconds: float) -> bytes:
    """A recording as the bytes of a wav file: a tone with a wobble."""
    t = np.arange(round(16000 * seconds)) / 16000
    samples = 0.4 * np.sin(2 * np.pi * (180 * t + 3 * np.sin(5 * t)))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


# Promise 7: bad input gets a clear error.


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"text": ""}, RequestError, "text is empty"),
        ({"text": " \n\t"}, RequestError, "text is empty"),
        ({"text": "?! ..., -"}, RequestError, "spoken"),
        ({"text": "\U0001f600\U0001f680"}, RequestError, "spoken"),
        ({"text": "hello", "voice": "nobody"}, UnknownVoiceError, "nobody"),
        ({"text": "hello", "voice": Voice(embedding="nonsense")}, RequestError, "speaker"),
        ({"text": "hello", "voice": Voice(path="nowhere.pt")}, RequestError, "nowhere.pt"),
        (
            {"text": "hello", "voice": Voice(audio=b"no audio", transcript="x")},
            RequestError,
            "reference|recording|audio",
        ),
        ({"text": "hello", "model": "another"}, UnknownModelError, "another"),
        ({"text": "hello", "sampling": SamplingParams(temperature=(1.0, 2.0))}, RequestError, "4"),
        (
            {"text": "hello", "sampling": SamplingParams(min_new_tokens=9, max_new_tokens=8)},
            RequestError,
            "min_new_tokens",
        ),
    ],
)
def test_bad_requests_are_refused(
    engine: SpeechEngine, fields: dict[str, object], error: type[RequestError], message: str
) -> None:
    with pytest.raises(error, match=message):
        engine.generate(SpeechRequest(**fields))  # type: ignore[arg-type]
    engine.check_integrity()


@pytest.mark.parametrize("speed", [float("nan"), -1.0, 0.0, 5.0, float("inf"), "1", True])
def test_bad_speeds_are_refused(speed: float) -> None:
    with pytest.raises(RequestError, match="speed"):
        SpeechRequest(text="hello", speed=speed)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_p": 1.1},
        {"top_k": 0},
        {"repetition_penalty": -1.0},
        {"max_new_tokens": 0},
        {"seed_mode": "other"},
    ],
)
def test_bad_sampling_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(fields))):
        SamplingParams(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "hello \U0001f600 there",
        "hello 你好 there",
        "a" * 300,
        "word " * 200,
        "Dr. Smith paid $3.50 on 2024-05-01!",
        "[uv_break] hello [laugh]",
        "\x00\x07hello",
    ],
)
def test_odd_texts_are_spoken_or_refused_clearly(engine: SpeechEngine, text: str) -> None:
    request = SpeechRequest(text=text, seed=1, sampling=SamplingParams(max_new_tokens=4))
    try:
        result = engine.generate(request)[0]
    except RequestError:
        return
    assert result.finish_reason in ("stop", "length")
    engine.check_integrity()


@pytest.mark.slow
def test_a_hundred_thousand_characters(engine: SpeechEngine) -> None:
    text = (WORDS + ". ") * (100_000 // (len(WORDS) + 2) + 1)
    request = SpeechRequest(
        text=text[:100_000], seed=1, priority="bulk", sampling=SamplingParams(max_new_tokens=1)
    )
    result = engine.generate(request)[0]
    assert result.finish_reason in ("stop", "length")
    assert result.metrics.num_segments > 100


def test_text_beyond_the_limit_is_refused_with_the_limit(engine: SpeechEngine) -> None:
    limit = engine.model_info.max_text_chars
    with pytest.raises(RequestTooLongError, match=str(limit)):
        engine.generate("a" * (limit + 1))


# Broken checkpoints.


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "ckpt"))


def break_missing(folder: Path) -> str:
    (folder / "asset" / "Vocos.safetensors").unlink()
    return "Vocos.safetensors"


def break_file(folder: Path) -> str:
    path = folder / "asset" / "Decoder.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return "Decoder.safetensors"


def break_shape(folder: Path) -> str:
    path = folder / "asset" / "gpt" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"intermediate_size": 96}))
    return "mlp|shape"


def break_config(folder: Path) -> str:
    (folder / "asset" / "gpt" / "config.json").write_text("{")
    return "config.json"


def break_tokenizer(folder: Path) -> str:
    shutil.rmtree(folder / "asset" / "tokenizer")
    return "tokenizer"


@pytest.mark.parametrize(
    "break_it", [break_missing, break_file, break_shape, break_config, break_tokenizer]
)
def test_a_broken_checkpoint_is_named(copy: Path, break_it: object) -> None:
    assert callable(break_it)
    message = break_it(copy)
    with pytest.raises(CheckpointError, match=message):
        make_engine(model=str(copy))


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(StrettoError, match="empty"):
        make_engine(model=str(tmp_path / "empty"))
