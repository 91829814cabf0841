"""The ConvNeXt stack that ChatTTS uses three times: `Decoder`, and DVAE's decoder and encoder.

Two convolutions in, blocks, one pointwise convolution out; the decoders add a convolution to
log-mel. The tensors are named as in the published safetensors files; sizes are read from their
shapes, so every size of checkpoint has the same code.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...engine.errors import CheckpointError
from ..models.checkpoint import ConvNeXtLayout
from ..tensor_file import TensorFile
from .chain import Chain, Stage, Then
from .layers import ConvNeXtBlock, DepthwiseConv, FrameConv, LayerNorm, Linear, Placement


def right_of(rights: Sequence[int] | None, index: int) -> int | None:
    """The right context of convolution `index`; None when all are symmetric.

    Raises:
        CheckpointError: the checkpoint's settings name fewer convolutions than it has.
    """
    if rights is None:
        return None
    if index >= len(rights):
        raise CheckpointError(
            f"asset/stretto.json gives {len(rights)} right contexts, too few for its layers"
        )
    return rights[index]


def count_blocks(file: TensorFile, prefix: str) -> int:
    """Number of ConvNeXt blocks named `{prefix}.{index}.*`."""
    count = 0
    while f"{prefix}.{count}.dwconv.weight" in file:
        count += 1
    return count


def load_norm(file: TensorFile, prefix: str, width: int, placement: Placement) -> LayerNorm:
    """The LayerNorm `{prefix}.weight`, `.bias`."""
    weight, bias = file.get(f"{prefix}.weight", (width,)), file.get(f"{prefix}.bias", (width,))
    return LayerNorm(weight, bias, placement)


def load_block(
    file: TensorFile,
    prefix: str,
    width: int,
    placement: Placement,
    *,
    scale_name: str,
    dilation: int,
    right: int | None,
) -> ConvNeXtBlock:
    """One block; the layer scale is called `weight` in DVAE files and `gamma` in Vocos'."""
    inner = file.shape(f"{prefix}.pwconv1.weight")[0]
    depthwise = DepthwiseConv(
        file.get(f"{prefix}.dwconv.weight", (width, 1, None)),
        file.get(f"{prefix}.dwconv.bias", (width,)),
        placement,
        dilation=dilation,
        right=right,
    )
    expand = (
        file.get(f"{prefix}.pwconv1.weight", (inner, width)),
        file.get(f"{prefix}.pwconv1.bias", (inner,)),
    )
    project = (
        file.get(f"{prefix}.pwconv2.weight", (width, inner)),
        file.get(f"{prefix}.pwconv2.bias", (width,)),
    )
    norm = load_norm(file, f"{prefix}.norm", width, placement)
    scale = file.get(f"{prefix}.{scale_name}", (width,))
    return ConvNeXtBlock(depthwise, norm, expand, project, scale, placement)


def load_stack(
    file: TensorFile, prefix: str, layout: ConvNeXtLayout, placement: Placement
) -> Chain:
    """`{prefix}.conv_in`, `.decoder_block`, `.conv_out`: features to features.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    bottleneck, inputs, kernel = file.shape(f"{prefix}.conv_in.0.weight")
    width = file.shape(f"{prefix}.conv_in.2.weight")[0]
    first = FrameConv(
        file.get(f"{prefix}.conv_in.0.weight", (bottleneck, inputs, kernel)),
        file.get(f"{prefix}.conv_in.0.bias", (bottleneck,)),
        placement,
        right=right_of(layout.conv_in_right, 0),
        activation="gelu",
    )
    second = FrameConv(
        file.get(f"{prefix}.conv_in.2.weight", (width, bottleneck, None)),
        file.get(f"{prefix}.conv_in.2.bias", (width,)),
        placement,
        right=right_of(layout.conv_in_right, 1),
    )
    stages: list[Stage] = [first, second]
    stages += [
        load_block(
            file,
            f"{prefix}.decoder_block.{index}",
            width,
            placement,
            scale_name="weight",
            dilation=layout.dilation,
            right=right_of(layout.block_right, index),
        )
        for index in range(count_blocks(file, f"{prefix}.decoder_block"))
    ]
    out = file.get(f"{prefix}.conv_out.weight", (None, width, 1))[:, :, 0]
    stages[-1] = Then(stages[-1], Linear(out, None, Placement(placement.device)))
    return Chain(stages)


def load_mel_decoder(
    file: TensorFile, layout: ConvNeXtLayout, num_mels: int, placement: Placement
) -> Chain:
    """`decoder.*`, `out_conv`, `coef`: features [frames, in] to log-mel [frames, num_mels].

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    stack = load_stack(file, "decoder", layout, placement)
    features = file.shape("decoder.conv_out.weight")[0]
    coef = file.get("coef", (1, num_mels, 1))
    weight = file.get("out_conv.weight", (num_mels, features, None)) * coef.view(-1, 1, 1)
    return stack + Chain([FrameConv(weight, None, placement, right=layout.out_conv_right)])
