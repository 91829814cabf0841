"""An executor that computes nothing and takes simulated time.

It stands where a loaded model would, so that the real `EngineCore`, both schedulers and the
delivery of audio run unchanged under a simulated clock. Frames end when the `SimModel` says so;
audio is silence of the right length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.interface import ModelInfo, VoiceInfo
from ..engine.request import SpeechRequest
from ..engine.work_queue import Done
from ..model_executor.interfaces import (
    FloatArray,
    IntArray,
    Prompt,
    ResolvedSampling,
    SamplingDefaults,
    SpeechModelSpec,
    VocoderSpec,
)
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from .platform import Platform, SimModel, VocoderWork

FrameCount = Callable[[str, int], int]
_SENTENCE = re.compile(r"[^.!?。！？]+[.!?。！？]*\s*")
_LOUDNESS = 0.1


class SimClock:
    """Simulated seconds; moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def restart(self) -> None:
        """Count from zero again."""
        self.now = 0.0

    def read(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds

    def wait_until(self, time: float) -> None:
        """Let time pass until `time`, if it has not come yet."""
        self.now = max(self.now, time)


class SimFrontend:
    """Splits at sentence ends and counts positions."""

    def __init__(self, model: SimModel) -> None:
        self._model = model

    voices = (VoiceInfo(id="sim", name="Sim"),)
    default_voice = "sim"
    languages = ("en", "zh")

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt a segment."""
        return [
            Prompt(token_ids=np.zeros(self._model.tokens_of(text), np.int32), text=text)
            for text in split(request.text, self._model.max_segment_chars)
        ]

    def refine(self, request: SpeechRequest) -> list[Prompt]:
        """Simulated models do not refine; the input processor refuses before asking."""
        raise NotImplementedError

    def encode_refined(
        self, request: SpeechRequest, refined: Sequence[Sequence[int]]
    ) -> list[Prompt]:
        """See `refine`."""
        raise NotImplementedError


def split(text: str, max_chars: int) -> list[str]:
    """Runs of whole sentences of at most `max_chars`, where the sentences allow it."""
    segments: list[str] = []
    for sentence in _SENTENCE.findall(text) or [text]:
        if segments and len(segments[-1]) + len(sentence) <= max_chars:
            segments[-1] += sentence
        else:
            segments.append(sentence)
    return segments


@dataclass(frozen=True, slots=True, eq=False)
class _SimAudio:
    """A vocoder batch under way; see `Pending`."""

    clock: SimClock
    ready_at: float
    audio: list[FloatArray]

    @property
    def is_done(self) -> bool:
        """True when its time has passed."""
        return self.clock.read() >= self.ready_at

    def wait(self) -> list[FloatArray]:
        """Let that time pass."""
        self.clock.wait_until(self.ready_at)
        return self.audio


class _BesideQueue:
    """The `WorkQueue` of an executor whose vocoder runs beside its steps."""

    depth = 0
    max_batches = 1

    def __init__(self, executor: SimExecutor) -> None:
        self._executor = executor

    def launch_model(self, output: SchedulerOutput) -> Done[ModelRunnerOutput]:
        """See `WorkQueue`."""
        return Done(self._executor.execute_model(output))

    def launch_vocoder(self, batch: VocoderBatch) -> _SimAudio:
        """See `WorkQueue`."""
        return self._executor.begin_vocoder(batch)


class SimExecutor:
    """An `Executor` whose work only moves a `SimClock`.

    Args:
        platform: shape and costs.
        clock: is advanced by every call that would take time.
        frames_of: frames of a segment by text and seed; None asks the platform's model.
    """

    def __init__(
        self, platform: Platform, clock: SimClock, frames_of: FrameCount | None = None
    ) -> None:
        self._platform = platform
        self._clock = clock
        self._frames_of = frames_of or platform.model.frames_of
        self._left: dict[str, int] = {}
        self._vocoder_free_at = 0.0
        self.work_queue = _BesideQueue(self) if platform.vocoder_beside else None
        self.frontend = SimFrontend(platform.model)
        self.num_kv_blocks = platform.model.num_kv_blocks
        self.speech_spec = _speech_spec(platform.model)
        self.vocoder_spec = _vocoder_spec(platform.model)
        self.model_info = _model_info(platform)

    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """Draw how many frames it will have."""
        self._left[seq_id] = self._frames_of(prompt.text, sampling.seed)

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Take a step's time; a sequence stops at the draw after its last frame."""
        context = sum(item.num_computed_tokens for item in output.scheduled)
        costs = self._platform.costs
        step_s = costs.step_s(len(output.scheduled), output.num_scheduled_tokens, context)
        self._clock.advance(step_s)
        sampled = tuple(item.seq_id for item in output.scheduled if item.samples)
        stopped = frozenset(seq_id for seq_id in sampled if self._left[seq_id] == 0)
        for seq_id in sampled:
            self._left[seq_id] -= 1
        return ModelRunnerOutput(sampled, stopped)

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        """Take a batch's time; silence of the right lengths."""
        return self.begin_vocoder(batch).wait()

    def begin_vocoder(self, batch: VocoderBatch) -> _SimAudio:
        """Audio that is ready when the batches before it and its own time have passed."""
        began = max(self._clock.read(), self._vocoder_free_at)
        self._vocoder_free_at = began + self._platform.costs.vocoder_s(VocoderWork.of(batch))
        per_frame = self._platform.model.samples_per_frame
        # Loud, because a real frontend may ask for silent ends to be cut off.
        lengths = [(job.end - job.start) * per_frame for job in batch.jobs]
        audio = [np.full(length, _LOUDNESS, dtype=np.float32) for length in lengths]
        return _SimAudio(self._clock, self._vocoder_free_at, audio)

    def generated(self, seq_id: str) -> IntArray:
        """Nothing was really drawn."""
        return np.zeros((0, 1), np.int32)

    def remove_sequence(self, seq_id: str) -> None:
        """Forget a sequence."""
        self._left.pop(seq_id, None)

    def warmup(self) -> None:
        """Nothing to warm."""

    def check_idle(self) -> None:
        """Raise when a sequence is still known."""
        if self._left:
            raise RuntimeError(f"{len(self._left)} sequences are still known")

    def close(self) -> None:
        """Nothing to release."""


def weightless_spec(**declared: Any) -> SpeechModelSpec:
    """The declaration of a model without weights: every size that is not given is 1."""
    sizes = ("num_codebooks", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
    return SpeechModelSpec(**{**dict.fromkeys(sizes, 1), **declared})


def _speech_spec(model: SimModel) -> SpeechModelSpec:
    return weightless_spec(
        codebook_size=2,
        eos_id=1,
        text_vocab_size=1,
        text_eos_id=None,
        max_model_len=model.max_model_len,
        frame_rate=model.frame_rate,
        sampling=SamplingDefaults(
            temperature=1.0,
            top_p=1.0,
            top_k=1,
            repetition_penalty=1.0,
            max_new_tokens=model.max_model_len,
        ),
    )


def _vocoder_spec(model: SimModel) -> VocoderSpec:
    return VocoderSpec(
        input_kind="codes",
        sample_rate=model.sample_rate,
        samples_per_frame=model.samples_per_frame,
        left_context=model.left_context,
        right_context=model.right_context,
    )


def _model_info(platform: Platform) -> ModelInfo:
    return ModelInfo(
        name=platform.name,
        architecture="simulated",
        sample_rate=platform.model.sample_rate,
        frame_rate=platform.model.frame_rate,
        languages=SimFrontend.languages,
        voices=SimFrontend.voices,
        default_voice=SimFrontend.default_voice,
        max_text_chars=1_000_000,
    )
