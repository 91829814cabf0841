"""Vocos: log-mel frames to a complex spectrum, frame by frame.

Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders". The
tensors are named as in `asset/Vocos.safetensors`; sizes are read from their shapes. The inverse
STFT that follows is in `istft`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.checkpoint import VocosLayout
from ..tensor_file import TensorFile
from .convnext import count_blocks, load_block, load_norm, right_of
from .layers import Chain, FrameConv, Layer, Linear, Placement

MAX_MAGNITUDE = 100.0


def load_vocos(
    file: TensorFile, layout: VocosLayout, num_mels: int, n_fft: int, placement: Placement
) -> Chain:
    """The chain from log-mel [frames, num_mels] to the head's output [frames, n_fft + 2].

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    width = file.shape("backbone.embed.weight")[0]
    embed = FrameConv(
        file.get("backbone.embed.weight", (width, num_mels, 7)),
        file.get("backbone.embed.bias", (width,)),
        placement,
        right=layout.embed_right,
    )
    blocks = [
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
    layers: list[Layer] = [embed, load_norm(file, "backbone.norm", width, placement), *blocks]
    return Chain([*layers, load_norm(file, "backbone.final_layer_norm", width, placement), head])


def head_spectrum(out: Tensor) -> Tensor:
    """The head's output [frames, n_fft + 2] to a spectrum, complex64 [frames, n_fft // 2 + 1].

    The first half is the logarithm of the magnitude, the second the phase in radians.
    """
    log_magnitude, phase = out.chunk(2, dim=-1)
    magnitude = log_magnitude.exp().clamp_(max=MAX_MAGNITUDE)
    return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
