"""An executor that computes nothing and takes simulated time.

It stands where a loaded model would, so that the real `EngineCore`, both schedulers and the
delivery of audio run unchanged under a simulated clock. Frames end when the `SimModel` says so;
audio is a constant of the right length, quiet at a segment's ends as the `SimModel` says.
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
from ..model_executor.vocoder_wait import is_waited_for
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch, VocoderJob
from .platform import Platform, SimModel, VocoderWork, within

FrameCount = Callable[[str, int], int]
_SENTENCE = re.compile(r"[^.!?。！？]+[.!?。！？]*\s*")
_LOUDNESS = 0.1


class SimClock:
    """Simulated seconds; moves only when told to."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from zero again."""
        self.now = self._worked_until = 0.0

    @property
    def idle_s(self) -> float:
        """Seconds since work last took time."""
        return self.now - self._worked_until

    def read(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` of work pass."""
        self.now += seconds
        self._worked_until = self.now

    def wait_until(self, time: float) -> None:
        """Let time pass without work until `time`, if it has not come yet."""
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


@dataclass(slots=True, eq=False)
class _SimAudio:
    """A vocoder batch under way; see `Pending`.

    Attributes:
        left_s: that it still takes with nothing beside it.
        was_awaited: the core stood still for it, and has not gone on yet.
    """

    clock: SimClock
    left_s: float
    audio: list[FloatArray]
    was_awaited: bool = False

    @property
    def is_done(self) -> bool:
        """True when its time has passed."""
        return self.left_s <= 0.0

    def wait(self) -> list[FloatArray]:
        """Let that time pass."""
        if self.left_s > 0.0:
            self.clock.advance(self.left_s)
            self.left_s, self.was_awaited = 0.0, True
        return self.audio


class _BesideQueue:
    """The `WorkQueue` of an executor whose vocoder runs beside its steps."""

    depth = 0
    max_batches = 1

    def __init__(self, executor: SimExecutor, *, waits_for_beginnings: bool) -> None:
        self._executor = executor
        self._waits_for_beginnings = waits_for_beginnings
        self._num_seqs = 0

    def launch_model(self, output: SchedulerOutput) -> Done[ModelRunnerOutput]:
        """See `WorkQueue`."""
        self._num_seqs = len(output.scheduled)
        return Done(self._executor.execute_model(output))

    def launch_vocoder(self, batch: VocoderBatch) -> _SimAudio:
        """See `WorkQueue`."""
        audio = self._executor.begin_vocoder(batch)
        if self._waits_for_beginnings and is_waited_for(batch, self._num_seqs):
            audio.wait()
        return audio


@dataclass(slots=True)
class _SimSequence:
    """A sequence: frames it will have in all, and draws until its end."""

    num_frames: int
    left: int


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
        self._sequences: dict[str, _SimSequence] = {}
        self._cold_step_s = self._cold_vocoder_s = 0.0  # extra seconds of the next of each
        self._beside = _SimAudio(clock, 0.0, [])
        self._rng = np.random.default_rng(0)
        waits = platform.waits_for_beginnings
        self.work_queue = (
            _BesideQueue(self, waits_for_beginnings=waits) if platform.vocoder_beside else None
        )
        self.frontend = SimFrontend(platform.model)
        self.num_kv_blocks = platform.model.num_kv_blocks
        self.speech_spec = _speech_spec(platform.model)
        self.vocoder_spec = _vocoder_spec(platform.model)
        self.model_info = _model_info(platform)

    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """Draw how many frames it will have."""
        self._note_idle()
        self._clock.advance(self._platform.costs.request_s)
        drawn = self._frames_of(prompt.text, sampling.seed)
        self._sequences[seq_id] = _SimSequence(min(drawn, sampling.max_new_tokens), drawn)

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Take a step's time; a sequence stops at the draw after its last frame."""
        self._note_idle()
        context = sum(item.num_computed_tokens for item in output.scheduled)
        costs = self._platform.costs
        step_s = costs.step_s(len(output.scheduled), output.num_scheduled_tokens, context)
        self._run_step(step_s + self._extra_s(len(output.scheduled)), len(output.scheduled))
        sampled = tuple(item.seq_id for item in output.scheduled if item.samples)
        stopped = frozenset(seq_id for seq_id in sampled if self._sequences[seq_id].left == 0)
        for seq_id in sampled:
            self._sequences[seq_id].left -= 1
        return ModelRunnerOutput(sampled, stopped)

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        """Take a batch's time; audio of the right lengths."""
        return self.begin_vocoder(batch).wait()

    def begin_vocoder(self, batch: VocoderBatch) -> _SimAudio:
        """Audio that is ready when its time has passed; the one before it is done."""
        seconds = self._platform.costs.vocoder_s(VocoderWork.of(batch)) + self._cold_vocoder_s
        self._cold_vocoder_s = 0.0
        self._beside = _SimAudio(self._clock, seconds, [self._decode(job) for job in batch.jobs])
        return self._beside

    def _note_idle(self) -> None:
        """After a pause, work is slower at first; by how much is drawn anew each time."""
        if (idle_s := self._clock.idle_s) > 0.0:
            costs, share = self._platform.costs, self._rng.random()
            coldness = min(idle_s / costs.cold_after_s, 1.0)
            self._cold_step_s = coldness * within(costs.cold_step, share)
            self._cold_vocoder_s = coldness * within(costs.cold_vocoder, share)
            self._beside.was_awaited = False  # so long ago that it is part of the pause

    def _extra_s(self, num_seqs: int) -> float:
        """What a step takes longer because of what was before it."""
        extra_s, self._cold_step_s = self._cold_step_s, 0.0
        if self._beside.was_awaited:
            self._beside.was_awaited = False
            extra_s += within(self._platform.costs.step_after_batch, num_seqs)
        return extra_s

    def _run_step(self, alone_s: float, num_seqs: int) -> None:
        """Let a step's time pass; what of it has a batch beside it is slower, and so is that."""
        costs, beside = self._platform.costs, self._beside
        slowdown = within(costs.step_slowdown, num_seqs)
        vocoder_slowdown = within(costs.vocoder_slowdown, num_seqs)
        batch_s = beside.left_s * vocoder_slowdown
        both_s = min(batch_s, alone_s * slowdown)
        # Not by subtraction alone: a batch that is done must not be a rounding error away from it.
        beside.left_s = 0.0 if both_s == batch_s else beside.left_s - both_s / vocoder_slowdown
        self._clock.advance(both_s + max(alone_s - both_s / slowdown, 0.0))

    def _decode(self, job: VocoderJob) -> FloatArray:
        """float32 [samples] of a job: loud but for the segment's ends, so that delivery cuts as
        much as of real audio."""
        model = self._platform.model
        per_frame, rate = model.samples_per_frame, model.sample_rate
        num_frames = self._sequences[job.seq_id].num_frames
        first = round(model.quiet_lead_s * rate)
        last = num_frames * per_frame - round(model.quiet_tail_s * rate)
        at = np.arange(job.start * per_frame, job.end * per_frame)
        return np.where((at >= first) & (at < last), np.float32(_LOUDNESS), np.float32(0.0))

    def generated(self, seq_id: str) -> IntArray:
        """Nothing was really drawn."""
        return np.zeros((0, 1), np.int32)

    def remove_sequence(self, seq_id: str) -> None:
        """Forget a sequence."""
        self._sequences.pop(seq_id, None)

    def warmup(self) -> None:
        """Nothing to warm."""

    def check_idle(self) -> None:
        """Raise when a sequence is still known."""
        if self._sequences:
            raise RuntimeError(f"{len(self._sequences)} sequences are still known")

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
