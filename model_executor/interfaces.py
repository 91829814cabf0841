"""The seam for a model: a frontend, a speech model, a vocoder, and one registry line.

What a model declares here drives the core; nothing outside a model's own files asks which model it
is. `Prompt` is the hop from frontend to runner, `Executor` is all that the engine knows of this
room. The types are plain (numpy at most); modules and tensors stay behind the protocols.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..engine.interface import ModelInfo, VoiceInfo
from ..engine.request import SeedMode, SpeechRequest, VocoderInput
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
OutputKind = Literal["frames", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEdges:
    """The silence that stays around a segment, whatever the model put there.

    Attributes:
        threshold: magnitude of a sample, of full scale, above which it is speech.
        lead_s: seconds before the first such sample.
        tail_s: seconds after the last one.
    """

    threshold: float
    lead_s: float
    tail_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """What the speech model is given for one segment.

    Positions are the text tokens followed by the prompt frames (zero-shot).

    Attributes:
        token_ids: int32 [num_text_tokens].
        frames: int32 [num_prompt_frames, num_codebooks], or None.
        speaker: float32 [hidden_size]; replaces the embedding at `speaker_position`.
        speaker_position: index of that position, or None.
        output: `frames` to speak; `text` for a text-refining pass (drawn from the text head).
        text: the segment as it will be spoken, for logs and errors.
        max_new_frames: a cap that the frontend knows from the text (a runaway guard), or None.
        min_new_frames: fewer cannot say the text; the end is not drawn before (`SamplingParams` may
            say otherwise).
        pause_after_s: silence to insert after the segment's audio.
        gain: factor on the segment's samples.
        edges: constant silence around the segment's audio (after `gain`); None leaves it alone.
        vocoder_input: which of the vocoder's `input_kinds` to decode from; None is its default.
        features: further arrays that a model family needs ([num_positions, ...] each).
    """

    token_ids: IntArray
    frames: IntArray | None = None
    speaker: FloatArray | None = None
    speaker_position: int | None = None
    output: OutputKind = "frames"
    text: str = ""
    max_new_frames: int | None = None
    min_new_frames: int = 0
    pause_after_s: float = 0.0
    gain: float = 1.0
    edges: SpeechEdges | None = None
    vocoder_input: VocoderInput | None = None
    features: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Positions of the prompt."""
        return len(self.token_ids) + (0 if self.frames is None else len(self.frames))

    def prefix_keys(self) -> list[Hashable]:
        """One key a position; equal keys and equal salts mean equal inputs."""
        keys: list[Hashable] = self.token_ids.tolist()
        if self.frames is not None:
            keys.extend(tuple(frame) for frame in self.frames.tolist())
        return keys

    def prefix_salt(self) -> bytes:
        """Digest of the conditioning that `prefix_keys` does not show."""
        digest = hashlib.sha256()
        if self.speaker is not None:
            digest.update(b"speaker%d" % (self.speaker_position or 0))
            digest.update(self.speaker.tobytes())
        for name in sorted(self.features):
            digest.update(name.encode() + self.features[name].tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSampling:
    """`SamplingParams` with the model's defaults filled in; what the sampler reads.

    Attributes:
        temperature: one per codebook.
        seed: in force for this segment; already derived from (request seed, segment index).
    """

    temperature: tuple[float, ...]
    top_p: float
    top_k: int
    repetition_penalty: float
    min_new_tokens: int
    max_new_tokens: int
    seed: int
    seed_mode: SeedMode = "independent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """A model's own sampling; `SpeechRequest.sampling` overrides field by field."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_new_tokens: int
    min_new_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechModelSpec:
    """What a speech model declares.

    Attributes:
        num_codebooks: ids in a frame.
        codebook_size: ids of a codebook's head, the end id included.
        eos_id: drawn in any codebook, it ends the sequence; that draw is not a frame.
        text_vocab_size: ids of the text embedding (and of the text head, for refining).
        text_eos_id: ends a `text` output; None when the model cannot refine.
        max_model_len: positions a sequence may have.
        frame_rate: frames per second of audio.
    """

    num_codebooks: int
    codebook_size: int
    eos_id: int
    text_vocab_size: int
    text_eos_id: int | None
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_model_len: int
    frame_rate: float
    sampling: SamplingDefaults
    text_sampling: SamplingDefaults | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderSpec:
    """What a vocoder declares.

    Attributes:
        input_kind: `hidden` states or `codes`, what it decodes by default.
        sample_rate: samples per second.
        samples_per_frame: samples that a frame adds (ChatTTS: 512).
        left_context: frames before a frame that its samples depend on.
        right_context: frames after it; the exact look-ahead of streaming.
        tail_samples: a whole decode has `num_frames * samples_per_frame - tail_samples`
            samples (ChatTTS: 256, from the centred inverse STFT).
        other_input_kinds: what else it can decode.
    """

    input_kind: VocoderInput
    sample_rate: int
    samples_per_frame: int
    left_context: int
    right_context: int
    tail_samples: int = 0
    other_input_kinds: tuple[VocoderInput, ...] = ()

    @property
    def input_kinds(self) -> tuple[VocoderInput, ...]:
        """All that it can decode, the default first."""
        return (self.input_kind, *self.other_input_kinds)


class Frontend(Protocol):
    """Text and voices to prompts. CPU only; thread-safe after construction."""

    @property
    def voices(self) -> tuple[VoiceInfo, ...]:
        """Voices by name."""

    @property
    def default_voice(self) -> str:
        """Name of the voice of requests without one."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Language codes it can speak."""

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        """Prompts of the segments, in order; at least one.

        Raises:
            RequestError: nothing speakable, unknown voice, unsupported script or option.
        """

    def refine(self, request: SpeechRequest) -> list[Prompt]:
        """Prompts (`output="text"`) whose answers `encode_refined` takes, one a segment.

        Raises:
            RequestError: the model cannot refine.
        """

    def encode_refined(
        self, request: SpeechRequest, refined: Sequence[Sequence[int]]
    ) -> list[Prompt]:
        """Like `encode`, from the token ids that the refining pass drew for each segment."""


T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """Work that was launched and may not be done yet."""

    @property
    def is_done(self) -> bool:
        """True when `wait` would return at once."""

    def wait(self) -> T_co:
        """The result. Failures of the work raise here or at its launch."""


class WorkQueue(Protocol):
    """An executor's work, launched now and collected later, each kind in order.

    Attributes:
        depth: steps that may be launched before the oldest is collected; 0 where nothing is won.
        max_batches: vocoder batches that may be in flight; later decisions are better decisions.
    """

    depth: int
    max_batches: int

    def launch_model(self, output: SchedulerOutput) -> Pending[ModelRunnerOutput]:
        """Queue one step; see `Executor.execute_model`."""

    def launch_vocoder(self, batch: VocoderBatch) -> Pending[list[FloatArray]]:
        """Queue one vocoder batch; see `Executor.execute_vocoder`."""


class Executor(Protocol):
    """All that the engine knows of models and devices. Not thread-safe: one caller."""

    @property
    def model_info(self) -> ModelInfo:
        """What is loaded."""

    @property
    def speech_spec(self) -> SpeechModelSpec:
        """Declared by the speech model."""

    @property
    def vocoder_spec(self) -> VocoderSpec:
        """Declared by the vocoder."""

    @property
    def frontend(self) -> Frontend:
        """The model's frontend."""

    @property
    def num_kv_blocks(self) -> int:
        """Blocks that fit the memory given to the KV cache."""

    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """Make a sequence known before it is first scheduled."""

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Run one step and draw the next frames of the sequences that sample."""

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        """Waveforms [samples] of the jobs, in order, each exact for its own window."""

    def generated(self, seq_id: str) -> IntArray:
        """What a sequence has drawn: int32 [num_frames, num_codebooks], or [n, 1] text ids."""

    def remove_sequence(self, seq_id: str) -> None:
        """Forget a sequence and free its slot; unknown ids are ignored."""

    def warmup(self) -> None:
        """Run every shape once so that the first request is as fast as the hundredth."""

    def check_idle(self) -> None:
        """Raise when sequences or slots are still held though nothing is in flight."""

    def close(self) -> None:
        """Release device memory and threads."""
