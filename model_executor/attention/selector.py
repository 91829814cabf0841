"""Which attention backend runs, chosen once at start.

Backends with dependencies of their own are imported only when chosen. This module measures
nothing: `auto` follows the order that was measured (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..interfaces import SpeechModelSpec
from .interface import AttentionBackend
from .reference import ReferenceAttention

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCacheShape:
    """Size and place of one model's KV cache."""

    num_layers: int
    num_blocks: int
    block_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(
        cls,
        spec: SpeechModelSpec,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KVCacheShape:
        """The cache that a speech model needs."""
        return cls(
            num_layers=spec.num_layers,
            num_blocks=num_blocks,
            block_size=block_size,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            dtype=dtype,
            device=device,
        )


def _reference(shape: KVCacheShape) -> AttentionBackend:
    return ReferenceAttention(
        num_layers=shape.num_layers,
        num_blocks=shape.num_blocks,
        block_size=shape.block_size,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        dtype=shape.dtype,
        device=shape.device,
    )


def _cpu_paged(shape: KVCacheShape) -> AttentionBackend:
    from .cpu_paged import CpuPagedAttention

    if shape.device.type != "cpu" or shape.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError("attention backend cpu_paged runs on the CPU in float32 or bfloat16")
    return CpuPagedAttention(
        num_layers=shape.num_layers,
        num_blocks=shape.num_blocks,
        block_size=shape.block_size,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        dtype=shape.dtype,
    )


def _triton(shape: KVCacheShape) -> AttentionBackend:
    from .triton_paged import TritonAttention

    return TritonAttention(shape)


def _varlen(shape: KVCacheShape) -> AttentionBackend:
    from .varlen import VarlenAttention

    return VarlenAttention(shape)


def _xformers(shape: KVCacheShape) -> AttentionBackend:
    from .xformers_backend import XformersAttention

    return XformersAttention(shape)


BACKENDS: Mapping[str, Callable[[KVCacheShape], AttentionBackend]] = {
    "reference": _reference,
    "cpu_paged": _cpu_paged,
    "triton": _triton,
    "varlen": _varlen,
    "xformers": _xformers,
}
_AUTO = {"cpu": "cpu_paged", "cuda": "triton"}


def create_attention(name: str, shape: KVCacheShape) -> AttentionBackend:
    """The backend called `name`; `auto` is the fastest for the device.

    Raises:
        ValueError: no such backend.
    """
    chosen = _AUTO.get(shape.device.type, "reference") if name == "auto" else name
    create = BACKENDS.get(chosen)
    if create is None:
        known = ", ".join(["auto", *sorted(BACKENDS)])
        raise ValueError(f"attention_backend must be one of {known}; got {name!r}")
    logger.info("attention backend: %s on %s", chosen, shape.device)
    return create(shape)
