"""What ChatTTS declares: sizes from the checkpoint, sampling and stop rules from its publication.

The network itself is `llama_speech`; the frontend and the vocoder have their own rooms.
"""

from __future__ import annotations

from ..interfaces import SamplingDefaults, SpeechModelSpec
from .checkpoint import Checkpoint
from .llama_speech import LlamaConfig

MEL_FRAMES_PER_CODE = 2
_NUM_SPECIAL_TOKENS = 50  # the last ids of the text vocabulary
_END_OF_REFINED = 8  # index of [Ebreak] among them

_SAMPLING = SamplingDefaults(
    temperature=0.3, top_p=0.7, top_k=20, repetition_penalty=1.05, max_new_tokens=2048
)
_TEXT_SAMPLING = SamplingDefaults(
    temperature=0.7, top_p=0.7, top_k=20, repetition_penalty=1.0, max_new_tokens=384
)


def llama_spec(
    checkpoint: Checkpoint,
    sampling: SamplingDefaults,
    *,
    text_eos_id: int | None = None,
    text_sampling: SamplingDefaults | None = None,
) -> SpeechModelSpec:
    """Sizes from `asset/gpt/config.json`; the last id of a codebook ends the sequence."""
    gpt, vocoder = checkpoint.gpt, checkpoint.vocoder
    return SpeechModelSpec(
        num_codebooks=gpt.num_vq,
        codebook_size=gpt.num_audio_tokens,
        eos_id=gpt.num_audio_tokens - 1,
        text_vocab_size=gpt.num_text_tokens,
        text_eos_id=text_eos_id,
        hidden_size=gpt.hidden_size,
        num_layers=gpt.num_hidden_layers,
        num_heads=gpt.num_attention_heads,
        num_kv_heads=gpt.num_key_value_heads,
        head_dim=gpt.head_dim,
        max_model_len=gpt.max_position_embeddings,
        frame_rate=vocoder.sample_rate / (vocoder.hop_length * MEL_FRAMES_PER_CODE),
        sampling=sampling,
        text_sampling=text_sampling,
    )


def llama_config(checkpoint: Checkpoint) -> LlamaConfig:
    """The rest of what the transformer needs."""
    gpt = checkpoint.gpt
    return LlamaConfig(
        intermediate_size=gpt.intermediate_size,
        rms_norm_eps=gpt.rms_norm_eps,
        rope_theta=gpt.rope_theta,
    )


def speech_spec(checkpoint: Checkpoint) -> SpeechModelSpec:
    """ChatTTS's declaration; it can refine text."""
    end = checkpoint.gpt.num_text_tokens - _NUM_SPECIAL_TOKENS + _END_OF_REFINED
    return llama_spec(checkpoint, _SAMPLING, text_eos_id=end, text_sampling=_TEXT_SAMPLING)
