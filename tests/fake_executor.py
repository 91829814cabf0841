"""An `Executor` without a model: frames follow from (seed, step), audio from frames and context.

Engine tests need something that is exact, quick and breakable. The fake checks what it is asked
(positions follow each other, sequences are known, windows hold the declared context), and its audio
depends on every frame within the context, so that a wrong window shows. How a text is spoken is
written in the text: `one @20|two @7` has two segments of 20 and 7 frames, `@0` stops at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stretto.benchmarks.sim_executor import weightless_spec
from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.errors import RequestError, UnknownVoiceError
from stretto.engine.interface import ModelInfo, VoiceInfo
from stretto.engine.request import SamplingParams, SpeechRequest, Voice
from stretto.model_executor.interfaces import (
    FloatArray,
    IntArray,
    Prompt,
    ResolvedSampling,
    SamplingDefaults,
    VocoderSpec,
)
from stretto.scheduler.interfaces import (
    ModelRunnerOutput,
    SchedulerOutput,
    VocoderBatch,
    VocoderJob,
)

LEFT, RIGHT = 5, 3  # context in frames
SAMPLES_PER_FRAME, TAIL = 8, 4
SAMPLE_RATE = 800  # 100 frames per second
END_ID = 1000


# At least three minutes of steps on the `slow` fake: it is in flight for as long as a test runs.
ENDLESS = SpeechRequest(text="long @100000", sampling=SamplingParams(max_new_tokens=120_000))


class FakeFrontend:
    """Segments are cut at `|`; a segment's length in frames is written after `@`."""

    voices = (VoiceInfo(id="alpha", name="Alpha"), VoiceInfo(id="beta", name="Beta"))
    default_voice = "alpha"
    languages = ("en",)

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        if "crash-encode" in request.text:
            raise RuntimeError("encode crashed")
        if not re.search(r"\w", request.text):
            raise RequestError("nothing speakable", param="text")
        return [self._prompt(text, request) for text in request.text.split("|")]

    def refine(self, request: SpeechRequest) -> list[Prompt]:
        return [
            Prompt(token_ids=_ids(text), output="text", text=text)
            for text in request.text.split("|")
        ]

    def encode_refined(
        self, request: SpeechRequest, refined: Sequence[Sequence[int]]
    ) -> list[Prompt]:
        if "crash-refined" in request.text:
            raise RuntimeError("encode_refined crashed")
        return [self._prompt(f"refined @{len(ids)}", request) for ids in refined]

    def _prompt(self, text: str, request: SpeechRequest) -> Prompt:
        voice = request.voice or self.default_voice
        name = voice if isinstance(voice, str) else f"value {voice.seed}"
        if isinstance(voice, str) and voice not in {v.id for v in self.voices}:
            raise UnknownVoiceError(f"unknown voice {voice!r}", param="voice")
        digest = blake2b(name.encode(), digest_size=4).digest()
        return Prompt(
            token_ids=_ids(text),
            speaker=np.array([int.from_bytes(digest, "big")], np.float32),
            speaker_position=0,
            text=text,
            pause_after_s=0.05,
        )


def _ids(text: str) -> IntArray:
    return np.frombuffer(text.encode("utf-32-le"), np.int32).copy()


@dataclass(slots=True)
class FakeSequence:
    prompt: Prompt
    sampling: ResolvedSampling
    computed: int = 0
    frames: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def target(self) -> int:
        """Frames until it stops."""
        found = re.search(r"@(\d+)", self.prompt.text)
        return int(found.group(1)) if found else 3 + len(self.prompt.text)

    def next_frame(self) -> int:
        speaker = 0 if self.prompt.speaker is None else self.prompt.speaker.tobytes()
        key = repr((self.sampling.seed, len(self.frames), speaker)).encode()
        return int.from_bytes(blake2b(key, digest_size=2).digest(), "big") % 997


@dataclass(slots=True)
class Faults:
    """Texts that fail, and where."""

    add: str | None = None
    model: str | None = None
    vocoder: str | None = None


class FakeExecutor:
    """See the module's docstring."""

    def __init__(self, *, num_kv_blocks: int = 256, max_model_len: int = 2048) -> None:
        self.num_kv_blocks = num_kv_blocks
        self.faults = Faults()
        self.live: dict[str, FakeSequence] = {}
        self.finished_frames: dict[str, list[int]] = {}
        self.batch_sizes: list[int] = []
        self.step_s = 0.0
        self.is_closed = False
        self.is_warm = False
        self.frontend = FakeFrontend()
        self.speech_spec = weightless_spec(
            codebook_size=END_ID + 1,
            eos_id=END_ID,
            text_vocab_size=0x110000,
            text_eos_id=END_ID,
            max_model_len=max_model_len,
            frame_rate=SAMPLE_RATE / SAMPLES_PER_FRAME,
            sampling=SamplingDefaults(
                temperature=0.5, top_p=0.7, top_k=20, repetition_penalty=1.0, max_new_tokens=500
            ),
            text_sampling=SamplingDefaults(
                temperature=0.7, top_p=0.7, top_k=20, repetition_penalty=1.0, max_new_tokens=100
            ),
        )
        self.vocoder_spec = VocoderSpec(
            input_kind="hidden",
            sample_rate=SAMPLE_RATE,
            samples_per_frame=SAMPLES_PER_FRAME,
            left_context=LEFT,
            right_context=RIGHT,
            tail_samples=TAIL,
        )
        self.model_info = ModelInfo(
            name="fake",
            architecture="fake",
            sample_rate=SAMPLE_RATE,
            frame_rate=SAMPLE_RATE / SAMPLES_PER_FRAME,
            languages=FakeFrontend.languages,
            voices=FakeFrontend.voices,
            default_voice=FakeFrontend.default_voice,
            max_text_chars=10_000,
            supports_refine=True,
        )

    def warmup(self) -> None:
        self.is_warm = True

    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        if self.faults.add is not None and self.faults.add in prompt.text:
            raise RuntimeError("add_sequence crashed")
        assert seq_id not in self.live
        self.live[seq_id] = FakeSequence(prompt, sampling)

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        fault = self.faults.model
        if fault is not None and any(
            fault in self.live[i.seq_id].prompt.text for i in output.scheduled
        ):
            raise RuntimeError("execute_model crashed")
        if self.step_s:
            time.sleep(self.step_s)
        self.batch_sizes.append(len(output.scheduled))
        sampled, stopped = [], set()
        for item in output.scheduled:
            sequence = self.live[item.seq_id]
            if item.first_new_block > 0:
                assert item.num_computed_tokens == sequence.computed, "a gap in the positions"
            sequence.computed = item.num_computed_tokens + item.num_scheduled_tokens
            if sequence.stopped:  # a step that was launched before its end was known
                sampled.append(item.seq_id)
                stopped.add(item.seq_id)
            elif item.samples:
                assert sequence.computed == sequence.prompt.num_tokens + len(sequence.frames)
                sampled.append(item.seq_id)
                if self._draw(sequence):
                    stopped.add(item.seq_id)
        return ModelRunnerOutput(tuple(sampled), frozenset(stopped))

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        return [self._decode_job(job) for job in batch.jobs]

    def generated(self, seq_id: str) -> IntArray:
        return np.array(self.live[seq_id].frames, np.int32)[:, None]

    def remove_sequence(self, seq_id: str) -> None:
        if sequence := self.live.pop(seq_id, None):
            self.finished_frames[seq_id] = sequence.frames

    def check_idle(self) -> None:
        if self.live:
            raise RuntimeError(f"sequences were not removed: {sorted(self.live)}")

    def close(self) -> None:
        self.is_closed = True

    @staticmethod
    def _draw(sequence: FakeSequence) -> bool:
        if len(sequence.frames) >= sequence.target:
            sequence.stopped = True
            return True
        sequence.frames.append(sequence.next_frame())
        return False

    def _decode_job(self, job: VocoderJob) -> FloatArray:
        sequence = self.live[job.seq_id]
        if self.faults.vocoder is not None and self.faults.vocoder in sequence.prompt.text:
            raise RuntimeError("execute_vocoder crashed")
        assert 0 <= job.window_start <= job.start < job.end <= job.window_end
        assert job.window_end <= len(sequence.frames)
        assert job.window_start == max(0, job.start - LEFT)
        window = sequence.frames[job.window_start : job.window_end]
        audio = decode(window)
        if not job.is_last:
            audio = np.concatenate([audio, np.zeros(TAIL, np.float32)])
        first = (job.start - job.window_start) * SAMPLES_PER_FRAME
        size = (job.end - job.start) * SAMPLES_PER_FRAME - (TAIL if job.is_last else 0)
        return audio[first : first + size]


def decode(frames: Sequence[int]) -> FloatArray:
    """The whole waveform of frames: each hears LEFT frames before it and RIGHT after it."""
    values: npt.NDArray[np.float64] = np.asarray(frames, np.float64)
    padded = np.pad(values, (LEFT, RIGHT))
    mixed = np.lib.stride_tricks.sliding_window_view(padded, LEFT + RIGHT + 1) @ np.arange(
        1.0, LEFT + RIGHT + 2
    )
    ramp = np.arange(SAMPLES_PER_FRAME)
    audio = (mixed[:, None] * 8 + ramp).reshape(-1) / 2**20
    return audio[: len(audio) - TAIL].astype(np.float32)


def whole_audio(executor: FakeExecutor, request_id: str, num_segments: int = 1) -> FloatArray:
    """What a finished request must have sounded like, decoded in one go."""
    pieces: list[FloatArray] = []
    for index in range(num_segments):
        frames = executor.finished_frames[f"{request_id}/speech/{index}"]
        if frames:
            pieces.append(decode(frames))
        if index < num_segments - 1:
            pieces.append(np.zeros(round(0.05 * SAMPLE_RATE), np.float32))
    return np.concatenate(pieces)


def build_fake_core(config: EngineConfig) -> EngineCore:
    """For engines in other processes: the model's name scripts the start.

    `fail-until:PATH` fails while the file exists; `slow` takes its time over every step and has
    room for very long sequences; anything else builds.
    """
    if config.model == "slow":
        executor = FakeExecutor(num_kv_blocks=30_000, max_model_len=200_000)
        executor.step_s = 0.002
        return assemble_core(executor, config)
    if config.model.startswith("fail-until:"):
        marker = Path(config.model.removeprefix("fail-until:"))
        if marker.exists():
            raise RuntimeError("not yet")
    return assemble_core(FakeExecutor(), config)


def voice(seed: int) -> Voice:
    return Voice(seed=seed)
