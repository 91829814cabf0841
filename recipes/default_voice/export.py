"""Writes the trained voice as a checkpoint in the layout ChatTTS publishes, in float16.

What that layout cannot say goes to ``asset/stretto.json``. Encoder, auxiliary heads and the
optimisers' state stay behind.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from stretto.model_executor.frontends.phones import PHONES, PUNCTUATION, TOKENS

from .data import LEAD, SPEAKERS, TAIL, Utterance
from .language_model import GPTShape, SpeechGPT
from .nets import HOP_LENGTH, N_FFT, NUM_MELS, VoiceShape
from .vocoder import CodeVocoder

__all__ = ["duration_guard", "export", "load_for_export", "voice_gains"]

_MAX_NEW_TOKENS = 1024
_MAX_POSITIONS = 2048
_GUARD_FACTOR = 2.2
"""Repeated words take the source voices 1.5 times the formula, and the model 1.4 times as long."""

_GUARD_LEAST = 0.5
"""No training utterance is shorter than 0.6 times the formula."""

_EDGES = {"threshold": 0.003, "lead_s": LEAD, "tail_s": TAIL}
"""The silence of training; the model's own noise between words peaks at 0.0027."""


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
    save_file(stored, str(path), metadata={"format": "pt"})
    path.chmod(0o644)


def _part(state: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}


def _gpt_config(shape: GPTShape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaModel"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": _MAX_POSITIONS,
        "attention_bias": False,
        "num_audio_tokens": shape.codes,
        "num_text_tokens": len(TOKENS),
        "num_vq": shape.codebooks,
        "torch_dtype": "float16",
    }


def _vocoder_settings(shape: VoiceShape) -> dict[str, Any]:
    return {
        "input": "codes",
        "levels": list(shape.levels),
        "groups": shape.groups,
        "residuals": 1,
        "hop_length": HOP_LENGTH,
        "n_fft": N_FFT,
        "num_mels": NUM_MELS,
        "decoder": {
            "kernel_size": shape.kernel_size,
            "dilation": 1,
            "conv_in_right": list(shape.conv_in_right),
            "block_right": list(shape.decoder_right),
            "out_conv_right": shape.out_conv_right,
        },
        "vocos": {"embed_right": shape.embed_right, "block_right": list(shape.vocos_right)},
    }


def duration_guard(utterances: list[Utterance]) -> dict[str, float]:
    """Frames per phone and per inner mark, and the rest, by least squares over normal speed.

    The higher of the two voices' values counts, so that neither is cut short.
    """
    guards = []
    for speaker in range(len(SPEAKERS)):
        rows, frames = [], []
        for utterance in (u for u in utterances if u.speaker == speaker):
            names = [TOKENS[token] for token in utterance.tokens]
            if "[speed_2]" not in names:
                continue
            marks = sum(name in PUNCTUATION for name in names)
            rows.append((sum(name in PHONES for name in names), marks - 1, 1))
            frames.append(len(utterance.alignment))
        guards.append(np.linalg.lstsq(np.array(rows, float), np.array(frames, float))[0])
    phone, mark, base = np.max(guards, axis=0)
    return {
        "frames_per_phone": round(float(phone), 2),
        "frames_per_mark": round(float(mark), 2),
        "base_frames": round(float(base), 2),
        "factor": _GUARD_FACTOR,
        "least": _GUARD_LEAST,
    }


def voice_gains(utterances: list[Utterance]) -> dict[str, float]:
    """Factors that bring all voices to the mean level (dB) of the quietest."""
    levels = []
    for speaker in range(len(SPEAKERS)):
        own = [u.samples.astype(np.float32) for u in utterances if u.speaker == speaker]
        levels.append(np.mean([10 * np.log10(np.mean(samples**2)) for samples in own]))
    gains = 10 ** ((np.min(levels) - np.array(levels)) / 20)
    return {name: round(float(gain), 3) for name, gain in zip(SPEAKERS, gains, strict=True)}


def export(
    model: SpeechGPT,
    vocoder: CodeVocoder,
    sampling: Mapping[str, float],
    guard: Mapping[str, float],
    gains: Mapping[str, float],
    folder: Path,
) -> None:
    """Write ``folder/asset``; ``sampling`` are the defaults chosen with these weights."""
    asset = folder / "asset"
    state = model.state_dict()
    llama = {name.removeprefix("gpt."): value for name, value in _part(state, "gpt.").items()}
    _save(asset / "gpt" / "model.safetensors", llama)
    _save(asset / "Embed.safetensors", _part(state, "emb_text.", "emb_code.", "head_code."))
    speakers = dict(zip(SPEAKERS, state["speakers.weight"].clone(), strict=True))
    _save(asset / "spk.safetensors", speakers)
    _save(asset / "DVAE.safetensors", vocoder.decoder.state_dict())
    _save(asset / "Vocos.safetensors", vocoder.vocos.state_dict())
    (asset / "gpt" / "config.json").write_text(
        json.dumps(_gpt_config(model.shape), indent=2) + "\n"
    )
    settings = {
        "architecture": "DefaultVoice",
        "num_vq": model.shape.codebooks,
        "codebook_size": model.shape.codes,
        "max_new_tokens": _MAX_NEW_TOKENS,
        "sampling": dict(sampling),
        "speaker": {"voices": list(SPEAKERS), "normalize_speaker": False},
        "sample_rate": 24000,
        "code_rate": 46.875,
        "duration_guard": dict(guard),
        "output": {"gains": dict(gains), "edges": _EDGES},
        "vocoder": _vocoder_settings(vocoder.shape),
    }
    (asset / "stretto.json").write_text(json.dumps(settings, indent=2) + "\n")


def load_for_export(work: Path) -> tuple[SpeechGPT, CodeVocoder]:
    """The averaged speech model and the vocoder of a work folder, as saved last."""
    model = SpeechGPT(GPTShape())
    model.load_state_dict(
        torch.load(work / "gpt-tuned.pt", map_location="cpu", weights_only=True)["average"]
    )
    vocoder = CodeVocoder(VoiceShape())
    vocoder.load_state_dict(
        torch.load(work / "vocoder.pt", map_location="cpu", weights_only=True)["model"]
    )
    return model.eval(), vocoder.eval()
