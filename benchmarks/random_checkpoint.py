"""Makes a checkpoint in the published ChatTTS layout from seeded random weights.

    python -m stretto.benchmarks.random_checkpoint OUT [--size full|tiny]

Names, shapes, types and file sizes are those of the published files, so speed and memory measured
on it hold for the real weights; what it says is noise. Every tensor is drawn from a seed made of
its name, so the same call gives the same checkpoint everywhere. The published layer scale of 1e-6
would make the ConvNeXt blocks invisible to tests; here it is large enough to hear.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .synthetic_tokenizer import write_tokenizer

Shapes = dict[str, tuple[int, ...]]
NUM_VQ, NUM_AUDIO_TOKENS, NUM_MELS, N_FFT = 4, 626, 100, 1024
LAYER_SCALE = 0.3


@dataclass(frozen=True)
class Stack:
    """Sizes of one ConvNeXt stack."""

    inputs: int
    bottleneck: int
    width: int
    blocks: int
    outputs: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of one checkpoint. The defaults are the published ones."""

    hidden: int = 768
    intermediate: int = 3072
    heads: int = 12
    layers: int = 20
    text_tokens: int = 21_178
    unused_vocabulary: int = 32_000
    decoder: Stack = Stack(384, 128, 512, 12, 384)
    dvae_decoder: Stack = Stack(512, 128, 256, 12, 512)
    dvae_encoder: Stack = Stack(512, 128, 256, 12, 1024)
    vocos_width: int = 512
    vocos_inner: int = 1536
    vocos_blocks: int = 8


SIZES = {
    "full": Sizes(),
    "tiny": Sizes(
        hidden=64,
        intermediate=128,
        heads=4,
        layers=2,
        text_tokens=2_000,
        unused_vocabulary=64,
        decoder=Stack(32, 16, 32, 2, 32),
        dvae_decoder=Stack(32, 16, 24, 2, 32),
        dvae_encoder=Stack(32, 16, 24, 2, 64),
        vocos_width=48,
        vocos_inner=96,
        vocos_blocks=2,
    ),
}


def write_checkpoint(out: Path, sizes: Sizes) -> None:
    """Write the nine published files, and a speaker distribution, under `out/asset`."""
    asset = out / "asset"
    (asset / "gpt").mkdir(parents=True, exist_ok=True)
    save_file(_draw(_gpt(sizes)), asset / "gpt" / "model.safetensors", {"format": "pt"})
    (asset / "gpt" / "config.json").write_text(json.dumps(_gpt_config(sizes), indent=2))
    save_file(_draw(_embed(sizes)), asset / "Embed.safetensors")
    save_file(_draw(_decoder(sizes)), asset / "Decoder.safetensors")
    save_file(_draw(_dvae(sizes)), asset / "DVAE.safetensors")
    save_file(_draw(_vocos(sizes)), asset / "Vocos.safetensors")
    speaker = torch.cat([torch.full((sizes.hidden,), 5.0), torch.zeros(sizes.hidden)])
    torch.save(speaker.half(), asset / "spk_stat.pt")
    write_tokenizer(asset / "tokenizer", sizes.text_tokens)


def _gpt(sizes: Sizes) -> Shapes:
    shapes: Shapes = {
        "embed_tokens.weight": (sizes.unused_vocabulary, sizes.hidden),
        "norm.weight": (sizes.hidden,),
    }
    for layer in range(sizes.layers):
        prefix = f"layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (sizes.hidden,)
        shapes[prefix + "post_attention_layernorm.weight"] = (sizes.hidden,)
        for name in "qkvo":
            shapes[prefix + f"self_attn.{name}_proj.weight"] = (sizes.hidden, sizes.hidden)
        for name in ("gate", "up"):
            shapes[prefix + f"mlp.{name}_proj.weight"] = (sizes.intermediate, sizes.hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (sizes.hidden, sizes.intermediate)
    return shapes


def _gpt_config(sizes: Sizes) -> dict[str, object]:
    return {
        "architectures": ["LlamaModel"],
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": 4096,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": sizes.heads,
        "num_audio_tokens": NUM_AUDIO_TOKENS,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.heads,
        "num_text_tokens": sizes.text_tokens,
        "num_vq": NUM_VQ,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 10_000.0,
        "spk_KL": False,
        "spk_emb_dim": 192,
        "torch_dtype": "float32",
        "vocab_size": sizes.unused_vocabulary,
    }


def _embed(sizes: Sizes) -> Shapes:
    shapes: Shapes = {"emb_text.weight": (sizes.text_tokens, sizes.hidden)}
    heads = {"head_text": sizes.text_tokens}
    for index in range(NUM_VQ):
        shapes[f"emb_code.{index}.weight"] = (NUM_AUDIO_TOKENS, sizes.hidden)
        heads[f"head_code.{index}"] = NUM_AUDIO_TOKENS
    for head, rows in heads.items():
        shapes[f"{head}.parametrizations.weight.original0"] = (rows, 1)
        shapes[f"{head}.parametrizations.weight.original1"] = (rows, sizes.hidden)
    return shapes


def _affine(prefix: str, *shape: int) -> Shapes:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape[:1]}


def _block(prefix: str, scale: str, width: int, inner: int) -> Shapes:
    return {
        f"{prefix}.{scale}": (width,),
        **_affine(f"{prefix}.dwconv", width, 1, 7),
        **_affine(f"{prefix}.norm", width),
        **_affine(f"{prefix}.pwconv1", inner, width),
        **_affine(f"{prefix}.pwconv2", width, inner),
    }


def _stack(prefix: str, stack: Stack) -> Shapes:
    shapes = {
        **_affine(f"{prefix}.conv_in.0", stack.bottleneck, stack.inputs, 3),
        **_affine(f"{prefix}.conv_in.2", stack.width, stack.bottleneck, 3),
    }
    for index in range(stack.blocks):
        name = f"{prefix}.decoder_block.{index}"
        shapes |= _block(name, "weight", stack.width, 4 * stack.width)
    return {**shapes, f"{prefix}.conv_out.weight": (stack.outputs, stack.width, 1)}


def _decoder(sizes: Sizes) -> Shapes:
    return {
        "coef": (1, NUM_MELS, 1),
        **_stack("decoder", sizes.decoder),
        "out_conv.weight": (NUM_MELS, sizes.decoder.outputs, 3),
    }


def _dvae(sizes: Sizes) -> Shapes:
    features = sizes.dvae_encoder.outputs // 2
    shapes = {
        "coef": (1, NUM_MELS, 1),
        **_affine("downsample_conv.0", sizes.dvae_encoder.inputs, NUM_MELS, 3),
        **_affine("downsample_conv.2", sizes.dvae_encoder.inputs, sizes.dvae_encoder.inputs, 4),
        "preprocessor_mel.mel_spec.spectrogram.window": (N_FFT,),
        "preprocessor_mel.mel_spec.mel_scale.fb": (N_FFT // 2 + 1, NUM_MELS),
        **_stack("encoder", sizes.dvae_encoder),
        **_stack("decoder", sizes.dvae_decoder),
        "out_conv.weight": (NUM_MELS, sizes.dvae_decoder.outputs, 3),
    }
    for group in range(2):
        prefix = f"vq_layer.quantizer.rvqs.{group}"
        shapes |= _affine(f"{prefix}.project_in", 4, features)
        shapes |= _affine(f"{prefix}.project_out", features, 4)
    return shapes


def _vocos(sizes: Sizes) -> Shapes:
    width = sizes.vocos_width
    shapes = {
        "feature_extractor.mel_spec.spectrogram.window": (N_FFT,),
        "feature_extractor.mel_spec.mel_scale.fb": (N_FFT // 2 + 1, NUM_MELS),
        **_affine("backbone.embed", width, NUM_MELS, 7),
        **_affine("backbone.norm", width),
        **_affine("backbone.final_layer_norm", width),
        **_affine("head.out", N_FFT + 2, width),
        "head.istft.window": (N_FFT,),
    }
    for index in range(sizes.vocos_blocks):
        shapes |= _block(f"backbone.convnext.{index}", "gamma", width, sizes.vocos_inner)
    return shapes


def _draw(shapes: Shapes) -> dict[str, Tensor]:
    return dict(_drawn(shapes))


def _drawn(shapes: Shapes) -> Iterator[tuple[str, Tensor]]:
    for name, shape in shapes.items():
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
        generator = torch.Generator().manual_seed(seed)
        yield name, _tensor(name, shape, torch.empty(shape).normal_(generator=generator))


def _tensor(name: str, shape: tuple[int, ...], noise: Tensor) -> Tensor:
    """What a tensor of that name holds, from normal noise of its shape."""
    if name.endswith("window"):
        return torch.hann_window(N_FFT)
    if name.endswith("mel_scale.fb"):
        return mel_filterbank(N_FFT, NUM_MELS, 24_000)
    if name == "coef":
        return 1 + 0.2 * noise.abs()
    if name.endswith("original0"):
        return 1 + 0.1 * noise
    if name.endswith("gamma") or (".decoder_block." in name and name.count(".") == 3):
        return LAYER_SCALE * (1 + 0.2 * noise)
    if len(shape) == 1:
        return (1 if name.endswith("weight") else 0) + 0.1 * noise
    if name.startswith("emb_"):
        return noise
    return noise / math.sqrt(math.prod(shape[1:]))


def mel_filterbank(n_fft: int, num_mels: int, sample_rate: int) -> Tensor:
    """Triangular filters on the HTK mel scale from 0 Hz, float32 [n_fft // 2 + 1, num_mels]."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    mels = torch.linspace(0, top, num_mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def main() -> None:
    """Parse the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m stretto.benchmarks.random_checkpoint")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    arguments = parser.parse_args()
    write_checkpoint(arguments.out, SIZES[arguments.size])
    total = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"wrote {arguments.out}: {total / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
