"""`EngineConfig`: every knob of the engine, with its default. The command line reads these fields.

`"auto"` values are resolved once, when the engine is built, into a new config that is logged.
Components get their own small configs from here; none of them sees this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..scheduler.interfaces import ChunkSchedule

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_CHUNKS = ChunkSchedule()

_LOWEST = {
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "block_size": 1,
    "first_chunk_frames": 1,
    "max_chunk_frames": 1,
    "chunk_growth": 1,
    "low_lookahead_frames": 0,
    "max_vocoder_frames": 1,
    "num_threads": 0,
    "seed": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How the engine runs. See each field's `help` metadata for its meaning and unit.

    Raises:
        ValueError: a number is below what makes sense.
    """

    model: str = field(default="default", metadata={"help": "default, a folder, or a hub id"})
    device: Device = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    dtype: Dtype = field(default="auto", metadata={"help": "auto, float32, bfloat16 or float16"})
    max_num_seqs: int = field(default=64, metadata={"help": "sequences running at once"})
    max_num_batched_tokens: int = field(
        default=2048, metadata={"help": "positions computed in one step, prefill included"}
    )
    kv_cache_memory: str = field(
        default="auto", metadata={"help": "memory for the KV cache, such as 512MiB, or auto"}
    )
    block_size: int = field(default=16, metadata={"help": "positions in one KV block"})
    enable_prefix_caching: bool = field(
        default=True, metadata={"help": "share the blocks of equal prompt prefixes"}
    )
    first_chunk_frames: int = field(
        default=_CHUNKS.first_frames, metadata={"help": "frames in the first streamed chunk"}
    )
    max_chunk_frames: int = field(
        default=_CHUNKS.max_frames, metadata={"help": "largest streamed chunk, frames"}
    )
    chunk_growth: float = field(
        default=_CHUNKS.growth, metadata={"help": "each chunk is so many times the one before"}
    )
    low_lookahead_frames: int = field(
        default=16, metadata={"help": "vocoder look-ahead of low-latency streams, frames"}
    )
    max_vocoder_frames: int = field(
        default=512, metadata={"help": "frames, context included, in one vocoder batch"}
    )
    attention_backend: str = field(
        default="auto", metadata={"help": "auto, reference, cpu_paged, triton, varlen, xformers"}
    )
    enforce_eager: bool = field(default=False, metadata={"help": "no CUDA graphs"})
    num_threads: int = field(
        default=0, metadata={"help": "CPU threads; 0 means every core, or one for a small model"}
    )
    seed: int | None = field(default=None, metadata={"help": "seed of requests without one"})
    default_voice: str | None = field(default=None, metadata={"help": "voice of requests without"})
    warmup: bool = field(default=True, metadata={"help": "run every shape once before ready"})

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {value!r}")


def as_config(model: str, config: EngineConfig | None, fields: Mapping[str, Any]) -> EngineConfig:
    """The settings that an engine was given: all at once, or a model and further fields.

    Raises:
        TypeError: both, or a field that there is none of.
        ValueError: a number is below what makes sense.
    """
    if config is None:
        return EngineConfig(model=model, **fields)
    if fields:
        raise TypeError(f"config holds all settings; {', '.join(fields)} would be ignored")
    return config
