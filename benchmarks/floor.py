"""What a decode step cannot beat: reading the weights, and each cached key and value, once.

A step of few sequences does little arithmetic for every byte it reads, so memory bounds it. The
bandwidth is that of a large copy on the device at hand; embeddings, of which a step reads single
rows, are left out. Weights count as they are published: where the CPU stores them in 12 bits
(docs/adr/0021), a step can take less than the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..model_executor.models.checkpoint import GPTConfig
from .attention import copy_bandwidth

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def step_bytes(model: GPTConfig, dtype: torch.dtype, num_seqs: int, context: int) -> int:
    """Bytes that a decode step reads at least.

    Args:
        model: sizes of the Llama and its heads.
        dtype: of weights and KV cache.
        num_seqs: sequences.
        context: cached positions of each.
    """
    query = model.num_attention_heads * model.head_dim
    cached = model.num_key_value_heads * model.head_dim
    attention = model.hidden_size * (2 * query + 2 * cached)
    mlp = 3 * model.hidden_size * model.intermediate_size
    heads = model.num_vq * model.num_audio_tokens * model.hidden_size
    weights = model.num_hidden_layers * (attention + mlp) + heads
    kv = 2 * model.num_hidden_layers * cached * num_seqs * context
    return (weights + kv) * dtype.itemsize


def add_floor(
    rows: Sequence[dict[str, Any]], model: GPTConfig, dtype: str, device: torch.device
) -> float:
    """Put `floor_ms` and `times_floor` into the rows of `bench step`; returns bytes per second."""
    bandwidth = copy_bandwidth(device)
    for row in rows:
        num_bytes = step_bytes(model, _DTYPES[dtype], row["num_seqs"], row["context"])
        row["floor_ms"] = 1000 * num_bytes / bandwidth
        row["times_floor"] = row["step_ms"] / row["floor_ms"]
    return bandwidth
