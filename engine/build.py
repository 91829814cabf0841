"""From an `EngineConfig` to an `EngineCore`: settings are resolved once, parts are put together.

`"auto"` values become plain ones in a new config, which is logged and never changed again. Every
component gets its own small config from it.
"""

from __future__ import annotations

import logging
from dataclasses import fields, replace

from ..model_executor.interfaces import Executor
from ..scheduler.interfaces import ChunkSchedule, SchedulerConfig, VocoderSchedulerConfig
from ..scheduler.scheduler import Scheduler
from ..scheduler.vocoder_scheduler import VocoderScheduler
from .config import EngineConfig
from .core import EngineCore
from .input_processor import InputLimits, InputProcessor
from .request import SamplingParams, SpeechRequest

logger = logging.getLogger(__name__)

_WARMUP_TEXTS = {"en": "Hello, it is 5 o'clock.", "zh": "你好，现在五点。"}
_WARMUP_FRAMES = 8


def assemble_core(executor: Executor, config: EngineConfig) -> EngineCore:
    """The core around a loaded executor; warms it up when `config.warmup`.

    Raises:
        ValueError: a limit is out of range.
    """
    if config.warmup:
        executor.warmup()
        _speak_once(_make_core(executor, config))
    return _make_core(executor, config)


def _make_core(executor: Executor, config: EngineConfig) -> EngineCore:
    return EngineCore(
        executor,
        Scheduler(_scheduler_config(executor, config)),
        VocoderScheduler(_vocoder_config(executor, config)),
        InputProcessor(executor, _limits(executor, config)),
    )


def _speak_once(core: EngineCore) -> None:
    """A few frames of each language, from text to waveform: what is loaded or compiled at first use
    (dictionaries, rules, kernels) is ready then. The core is thrown away with its counters."""
    for language in core.executor.frontend.languages:
        request = SpeechRequest(
            text=_WARMUP_TEXTS.get(language, "1"),
            language=language,
            seed=0,
            sampling=SamplingParams(max_new_tokens=_WARMUP_FRAMES),
        )
        core.add_request(f"warmup-{language}", core.processor.process(request))
    while core.has_work:
        for chunk in core.step():
            if chunk.finish_reason == "error":
                logger.warning("warm-up request %s failed: %s", chunk.request_id, chunk.error)


def _scheduler_config(executor: Executor, config: EngineConfig) -> SchedulerConfig:
    return SchedulerConfig(
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        num_blocks=executor.num_kv_blocks,
        block_size=config.block_size,
        max_model_len=executor.speech_spec.max_model_len,
        enable_prefix_caching=config.enable_prefix_caching,
    )


def _vocoder_config(executor: Executor, config: EngineConfig) -> VocoderSchedulerConfig:
    vocoder = executor.vocoder_spec
    return VocoderSchedulerConfig(
        left_context=vocoder.left_context,
        right_context=vocoder.right_context,
        low_right_context=min(config.low_lookahead_frames, vocoder.right_context),
        frame_s=vocoder.samples_per_frame / vocoder.sample_rate,
        max_batch_frames=config.max_vocoder_frames,
        chunks=ChunkSchedule(
            first_frames=config.first_chunk_frames,
            growth=config.chunk_growth,
            max_frames=config.max_chunk_frames,
        ),
    )


def _limits(executor: Executor, config: EngineConfig) -> InputLimits:
    in_cache = executor.num_kv_blocks * config.block_size
    return InputLimits(
        max_positions=min(executor.speech_spec.max_model_len, in_cache),
        default_seed=config.seed,
        default_voice=config.default_voice,
        model_names=("default", config.model),
    )


def build_core(config: EngineConfig) -> EngineCore:
    """Load the model that `config` names and make it ready to serve.

    Raises:
        CheckpointError: the model's files are incomplete or malformed.
        UnknownModelError: no such model.
        ValueError: a setting is out of range or impossible here.
    """
    from ..model_executor.executor import ExecutorConfig, LocalExecutor

    config = resolve_config(config)
    logger.info("%s", config)
    names = [field.name for field in fields(ExecutorConfig)]
    settings = {name: getattr(config, name) for name in names}
    return assemble_core(LocalExecutor(ExecutorConfig(**settings)), config)


def resolve_config(config: EngineConfig) -> EngineConfig:
    """The same settings with device and dtype as they are on this machine.

    Raises:
        ValueError: a setting is unknown or impossible here.
    """
    from ..model_executor.executor import resolve_device, resolve_dtype

    device = resolve_device(config.device)
    dtype = str(resolve_dtype(config.dtype, device)).removeprefix("torch.")
    return replace(config, device=device.type, dtype=dtype)  # type: ignore[arg-type]
