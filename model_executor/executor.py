"""`LocalExecutor`: a loaded model on this machine, behind the `Executor` interface.

It puts the room together (checkpoint, speech model, attention, frame store, runner, vocoder,
frontend) and passes calls on. It decides nothing and computes nothing itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..engine.interface import ModelInfo
from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from .attention.selector import KVCacheShape, create_attention
from .cuda_graphs import decode_buckets
from .frame_store import FIRST_PAGES, PAGE_SIZE, FrameStore
from .interfaces import (
    FloatArray,
    Frontend,
    IntArray,
    Prompt,
    ResolvedSampling,
    SpeechModelSpec,
    VocoderSpec,
    WorkQueue,
)
from .memory import count_blocks
from .model_runner import ModelRunner, StepPhase
from .models.checkpoint import Checkpoint, load_checkpoint
from .models.llama_speech import LlamaSpeech
from .models.registry import load_frontend, load_speech_model
from .vocoder_graphs import VocoderGraphs
from .vocoder_runner import VocoderRunner
from .vocoder_stream import DeviceQueue
from .vocoder_thread import ThreadQueue
from .vocoders.frame_vocoder import FrameVocoder, load_vocoder
from .vocoders.reference_audio import make_encode_reference
from .warmup import warm_up

logger = logging.getLogger(__name__)

_WEIGHTS_WORTH_A_THREAD = 20_000_000

_MAX_TEXT_CHARS = 100_000
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorConfig:
    """What of the engine's settings this room needs; the meanings are those of `EngineConfig`."""

    model: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    kv_cache_memory: str = "auto"
    block_size: int = 16
    attention_backend: str = "auto"
    enforce_eager: bool = False
    num_threads: int = 0
    max_vocoder_frames: int = 512


def _preferred_threads(spec: SpeechModelSpec) -> int:
    """1 for a model so small that waking a second thread costs more than it brings; else 0.

    A step of the default voice (4 M weights) takes 3.0 ms with one thread and 6.4 with two; at
    ChatTTS's size (189 M) two threads win at every batch size.
    """
    weights = 12 * spec.num_layers * spec.hidden_size**2
    return 1 if weights < _WEIGHTS_WORTH_A_THREAD else 0


class LocalExecutor:
    """Implements `Executor`. Loading happens in the constructor.

    Raises:
        CheckpointError: the model's files are incomplete or malformed.
        UnknownModelError: no such model.
        ValueError: a setting is unknown or impossible on this machine.
    """

    def __init__(self, config: ExecutorConfig) -> None:
        self._config = config
        checkpoint = load_checkpoint(config.model)
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.dtype, device)
        model = load_speech_model(checkpoint, dtype=dtype, device=device)
        self._spec = model.spec
        if num_threads := config.num_threads or _preferred_threads(model.spec):
            torch.set_num_threads(num_threads)
        # On CUDA the vocoder is not what a step waits for, and float32 is exact.
        matmul_dtype = dtype if device.type == "cpu" else torch.float32
        vocoder = load_vocoder(checkpoint, device=device, matmul_dtype=matmul_dtype)
        self._vocoder = VocoderRunner(vocoder)
        self._num_blocks = count_blocks(
            model.spec,
            memory=config.kv_cache_memory,
            block_size=config.block_size,
            max_num_seqs=config.max_num_seqs,
            dtype=dtype,
            device=device,
        )
        self._runner = self._create_runner(model, dtype, device)
        self._queue: WorkQueue | None = None
        self._thread: ThreadQueue | None = None
        self._graphs: VocoderGraphs | None = None
        if device.type == "cuda":
            self._queue = DeviceQueue(self._runner, self._launch_vocoder, device)
            if not config.enforce_eager:
                self._graphs = self._create_graphs(vocoder)
        elif 2 * torch.get_num_threads() <= _num_cores():  # else the stages would share cores
            self._thread = ThreadQueue(self._runner.execute, self._windows, self._vocoder)
            self._queue = self._thread
        self._encode_reference = make_encode_reference(checkpoint)
        self._frontend = load_frontend(checkpoint, self._encode_reference)
        self._info = self._describe(checkpoint)
        logger.info(
            "%s on %s in %s: %d KV blocks of %d positions, %d threads",
            *(checkpoint.name, device, dtype, self._num_blocks, config.block_size),
            torch.get_num_threads(),
        )

    @property
    def model_info(self) -> ModelInfo:
        """See `Executor`."""
        return self._info

    @property
    def speech_spec(self) -> SpeechModelSpec:
        """See `Executor`."""
        return self._spec

    @property
    def vocoder_spec(self) -> VocoderSpec:
        """See `Executor`."""
        return self._vocoder.spec

    @property
    def frontend(self) -> Frontend:
        """See `Executor`."""
        return self._frontend

    @property
    def num_kv_blocks(self) -> int:
        """See `Executor`."""
        return self._num_blocks

    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """See `Executor`."""
        self._runner.add_sequence(seq_id, prompt, sampling)

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """See `Executor`."""
        return self._runner.execute(output)

    @property
    def work_queue(self) -> WorkQueue | None:
        """The way to launch work without waiting for it; None where the stages share cores."""
        return self._queue

    def execute_vocoder(self, batch: VocoderBatch) -> list[FloatArray]:
        """See `Executor`."""
        if self._queue is not None:
            return self._queue.launch_vocoder(batch).wait()
        return self._vocoder.decode(self._windows(batch), batch.jobs)

    def _windows(self, batch: VocoderBatch) -> list[torch.Tensor]:
        """Hidden states or codes [T, ...] of the windows of the jobs."""
        default = self._vocoder.input_kinds[0]
        windows = []
        for job in batch.jobs:
            codes, hidden = self._runner.window(job.seq_id, job.window_start, job.window_end)
            kind = self._runner.prompt(job.seq_id).vocoder_input or default
            windows.append(hidden if kind == "hidden" else codes)
        return windows

    def _launch_vocoder(self, batch: VocoderBatch) -> list[torch.Tensor]:
        if self._graphs is not None:
            return self._graphs.launch(batch)
        return self._vocoder.launch(self._windows(batch), batch.jobs)

    def _launch_windows(self, batch: VocoderBatch) -> list[torch.Tensor]:
        """Without states: those of streams are in the graphs."""
        waveforms = self._vocoder.launch(self._windows(batch), batch.jobs)
        for job in batch.jobs:
            self._vocoder.forget(job.seq_id)
        return waveforms

    def generated(self, seq_id: str) -> IntArray:
        """See `Executor`."""
        return self._runner.generated(seq_id)

    def remove_sequence(self, seq_id: str) -> None:
        """See `Executor`."""
        self._runner.remove_sequence(seq_id)
        self._states.forget(seq_id)

    def warmup(self) -> None:
        """See `Executor`."""
        warm_up(self, self._config.max_num_seqs, self._config.max_num_batched_tokens)
        self._states.warmup()

    def watch_steps(self, on_phase: Callable[[StepPhase], None]) -> None:
        """Have `on_phase` called where each phase of a step begins; see `ModelRunner.on_phase`."""
        self._runner.on_phase = on_phase

    def check_idle(self) -> None:
        """See `Executor`."""
        held = self._runner.num_sequences
        assert not held, f"{held} sequences are still held"
        assert not self._runner.store.num_sequences, "frames of no sequence are still held"
        self._runner.store.check_integrity()
        assert not self._states.num_streams, "vocoder states of no sequence are still held"

    def close(self) -> None:
        """See `Executor`. The executor may not be used afterwards."""
        if self._thread is not None:
            self._thread.close()
        del self._runner, self._vocoder, self._queue, self._thread, self._graphs

    @property
    def _states(self) -> VocoderRunner | ThreadQueue | VocoderGraphs:
        """Who keeps what the vocoder knows of running sequences."""
        return self._thread or self._graphs or self._vocoder

    def _create_runner(
        self, model: LlamaSpeech, dtype: torch.dtype, device: torch.device
    ) -> ModelRunner:
        config, spec = self._config, model.spec
        shape = KVCacheShape.of(
            spec,
            num_blocks=self._num_blocks,
            block_size=config.block_size,
            dtype=dtype,
            device=device,
        )
        attention = create_attention(config.attention_backend, shape)
        capture = device.type == "cuda" and not config.enforce_eager
        capture = capture and getattr(attention, "takes_padding", False)
        width = spec.hidden_size if "hidden" in self._vocoder.input_kinds else 0
        num_pages = FIRST_PAGES
        if capture:  # half of what all sequences at their longest would take
            longest = -(-spec.max_model_len // PAGE_SIZE)
            num_pages = max(num_pages, config.max_num_seqs * longest // 2)
        return ModelRunner(
            model,
            attention,
            FrameStore(spec.num_codebooks, width, device, num_pages=num_pages),
            block_size=config.block_size,
            graph_buckets=decode_buckets(config.max_num_seqs) if capture else (),
        )

    def _create_graphs(self, vocoder: FrameVocoder) -> VocoderGraphs:
        config = self._config
        return VocoderGraphs(
            vocoder,
            self._runner.store,
            self._runner.prompt,
            self._launch_windows,
            # A stream outlives its sequence's steps by the chunks that are still to be decoded.
            num_streams=2 * config.max_num_seqs,
            max_batch_frames=config.max_vocoder_frames,
        )

    def _describe(self, checkpoint: Checkpoint) -> ModelInfo:
        frontend, vocoder = self._frontend, self._vocoder.spec
        return ModelInfo(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            sample_rate=vocoder.sample_rate,
            frame_rate=self._spec.frame_rate,
            languages=frontend.languages,
            voices=frontend.voices,
            default_voice=frontend.default_voice,
            max_text_chars=_MAX_TEXT_CHARS,
            supports_zero_shot=self._encode_reference is not None,
            supports_refine=self._spec.text_eos_id is not None,
        )


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch finds no CUDA device")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of weights and KV called `name`; `auto` is float32 on CPU, where a request then
    sounds the same in any company, and bfloat16 on CUDA.

    Raises:
        ValueError: an unknown type, or half precision on CPU.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise ValueError(f"dtype must be auto or one of {', '.join(_DTYPES)}, got {name!r}")
    if name == "float16" and device.type == "cpu":
        raise ValueError("dtype float16 needs CUDA; on CPU use float32 or bfloat16")
    return _DTYPES[name]
