"""A random Llama with the sizes of ChatTTS' speech model, for engines of language models.

Its one head has as many rows as the four heads of ChatTTS together (4 x 626), so that a step costs
the same arithmetic.
"""

from __future__ import annotations

from pathlib import Path

VOCABULARY = 4 * 626


def write_llama(folder: Path, dtype: str) -> Path:
    """Write config and seeded random weights, unless they are there; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").exists():
        return folder
    config = LlamaConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        num_key_value_heads=12,
        num_hidden_layers=20,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    return folder


def prompts(count: int, length: int) -> list[list[int]]:
    """Token ids that differ from the first position on, so that no prefix is shared."""
    return [[(31 * row + 7 * i + 3) % 2000 for i in range(length)] for row in range(count)]
