"""Vocos: log-mel frames to samples.

Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders". The
tensors are named as in `asset/Vocos.safetensors`; sizes are read from their shapes.
"""

from __future__ import annotations

from ..models.checkpoint import VocoderConfig
from ..tensor_file import TensorFile
from .chain import Chain, Stage, Then
from .convnext import count_blocks, load_block, load_norm, right_of
from .istft import InverseSTFT, head_spectrum
from .layers import FrameConv, Linear, Placement


def load_vocos(file: TensorFile, config: VocoderConfig, placement: Placement) -> Chain:
    """The chain from log-mel [frames, num_mels] to samples [frames, hop_length].

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    layout, num_mels, n_fft = config.vocos, config.num_mels, config.n_fft
    width = file.shape("backbone.embed.weight")[0]
    embed = FrameConv(
        file.get("backbone.embed.weight", (width, num_mels, 7)),
        file.get("backbone.embed.bias", (width,)),
        placement,
        right=layout.embed_right,
    )
    stages: list[Stage] = [Then(embed, load_norm(file, "backbone.norm", width, placement))]
    stages += [
        load_block(
            file,
            f"backbone.convnext.{index}",
            width,
            placement,
            scale_name="gamma",
            dilation=1,
            right=right_of(layout.block_right, index),
        )
        for index in range(count_blocks(file, "backbone.convnext"))
    ]
    head = Linear(
        file.get("head.out.weight", (n_fft + 2, width)),
        file.get("head.out.bias", (n_fft + 2,)),
        Placement(placement.device),
    )
    window = file.get("head.istft.window", (n_fft,))
    istft = InverseSTFT(window, config.hop_length, placement.device)
    final_norm = load_norm(file, "backbone.final_layer_norm", width, placement)
    stages[-1] = Then(stages[-1], final_norm, head, head_spectrum, istft.synthesize)
    return Chain([*stages, istft])
