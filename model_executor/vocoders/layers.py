"""The layers of both vocoder halves.

Layers over channels map [rows, in] to [rows, out]. Layers over time are stages of a chain (see
`chain`): `look` gathers what each frame of a pack sees, `apply` computes frames from it. Weights
are prepared for one device at construction: on CPU, matrix products run on oneDNN's packed
weights, whose result for a row does not depend on how many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .row_layout import Context, FrameMask, bucket

Activation = Literal["none", "gelu"]

# oneDNN chooses the packed layout for about so many rows; the result is the same for any number.
_PACKED_FOR_ROWS = 256
# More rows are computed in blocks, for which kernels exist and which stay in the core's cache.
MOST_ROWS = 256
_LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Placement:
    """Where weights live and in which type the large matrix products run."""

    device: torch.device
    matmul_dtype: torch.dtype = torch.float32


def pad_rows(x: Tensor) -> Tensor:
    """`x` [rows, channels] with zero rows added up to a number of rows that kernels exist for.

    A lone row would also run another kernel, which sums in another order.
    """
    missing = bucket(len(x)) - len(x)
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Rows in blocks of `MOST_ROWS`, views."""
    return torch.split(x, MOST_ROWS)


def _can_pack(placement: Placement) -> bool:
    if placement.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    is_bf16 = placement.matmul_dtype == torch.bfloat16
    return not is_bf16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Linear:
    """`activation(x W^T + b)`, float32 in and out whatever the product's type.

    Args:
        weight: [out, in].
        bias: [out], or None.
        chained: leave the output in the product's type, for a following `Linear`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        placement: Placement,
        *,
        activation: Activation = "none",
        chained: bool = False,
    ) -> None:
        self.dtype = placement.matmul_dtype
        self._activation = activation
        self._chained = chained
        weight = weight.to(placement.device, self.dtype).contiguous()
        self._bias = None if bias is None else bias.to(placement.device, self.dtype)
        self._packed = _can_pack(placement)
        self._weight: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
            if self._packed
            else weight
        )
        self._out_features = len(weight)

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] to [rows, out]."""
        out = self._product(pad_rows(x).to(self.dtype))[: len(x)]
        return out if self._chained else out.float()

    def _product(self, x: Tensor) -> Tensor:
        if not len(x):
            return x.new_empty(0, self._out_features)
        if self._packed:
            parts = [self._packed_product(part) for part in blocks(x)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        out = F.linear(x, self._weight, self._bias)
        return F.gelu(out) if self._activation == "gelu" else out

    def _packed_product(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, self._activation, [], "none"
        )
        return product


class LayerNorm:
    """Normalisation over channels."""

    def __init__(self, weight: Tensor, bias: Tensor, placement: Placement) -> None:
        self.weight = weight.to(placement.device).contiguous()
        self.bias = bias.to(placement.device).contiguous()
        self.eps = _LAYER_NORM_EPS

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, channels] to the same."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def conv_context(kernel_size: int, dilation: int, right: int | None) -> Context:
    """Context of a convolution that looks `right` frames ahead (None: as far as behind)."""
    reach = (kernel_size - 1) * dilation
    right = reach // 2 if right is None else right
    return Context(reach - right, right)


class FrameConv:
    """Convolution over frames, as one matrix product over each frame's neighbourhood.

    Args:
        weight: [out, in, kernel].
        bias: [out], or None.
        right: frames it looks ahead; None is symmetric.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        placement: Placement,
        *,
        right: int | None = None,
        activation: Activation = "none",
    ) -> None:
        out_channels, _, self.kernel_size = weight.shape
        self.context = conv_context(self.kernel_size, 1, right)
        flat = weight.permute(0, 2, 1).reshape(out_channels, -1)
        exact = Placement(placement.device)
        self.linear = Linear(flat, bias, exact, activation=activation)

    def look(self, pack: Tensor, layout: FrameMask) -> Tensor:
        """[num_positions, in] to each frame's neighbourhood, a view [num_positions, kernel, in]."""
        length, channels = pack.shape
        padded = F.pad(pack, (0, 0, self.context.left, self.context.right))
        shape = (length, self.kernel_size, channels)
        return padded.as_strided(shape, (channels, channels, 1))

    def apply(self, x: Tensor, seen: Tensor) -> Tensor:
        """Neighbourhoods [rows, kernel, in] to [rows, out]."""
        return self.linear(seen.flatten(1))


class DepthwiseConv:
    """One filter per channel, channels last.

    Args:
        weight: [channels, 1, kernel].
        right: frames it looks ahead; None is symmetric.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        placement: Placement,
        *,
        dilation: int,
        right: int | None = None,
    ) -> None:
        self.context = conv_context(weight.shape[2], dilation, right)
        # As an image of height 1. On CPU that is the shape whose channels-last kernels are fast. On
        # CUDA channels last means cuDNN, which plans anew for every length and may round to TF32;
        # torch's own kernel, for images in the usual order, does neither.
        self._order = torch.channels_last
        if placement.device.type == "cuda":
            self._order = torch.contiguous_format
        image = weight.to(placement.device)[:, :, None, :]
        self.weight = image.contiguous(memory_format=self._order)
        self.bias = bias.to(placement.device).contiguous()
        self.dilation = dilation

    def __call__(self, pack: Tensor) -> Tensor:
        """[num_positions, channels] to the same."""
        length, channels = pack.shape
        image = pack.view(1, 1, length, channels).permute(0, 3, 1, 2)
        image = image.contiguous(memory_format=self._order)
        padding = max(self.context.left, self.context.right)
        out = F.conv2d(
            image,
            self.weight,
            self.bias,
            padding=(0, padding),
            dilation=(1, self.dilation),
            groups=channels,
        )
        frames = out.permute(0, 2, 3, 1).reshape(-1, channels)
        return frames.narrow(0, padding - self.context.left, length)


class ConvNeXtBlock:
    """Depthwise convolution, normalisation, two linear layers, layer scale, residual.

    Liu et al. 2022, "A ConvNet for the 2020s"; in one dimension as in Vocos (Siuzdak 2023).
    The layer scale is folded into the second linear layer.

    Args:
        expand: [inner, channels] weight and [inner] bias.
        project: [channels, inner] weight and [channels] bias.
        scale: [channels].
    """

    def __init__(
        self,
        depthwise: DepthwiseConv,
        norm: LayerNorm,
        expand: tuple[Tensor, Tensor],
        project: tuple[Tensor, Tensor],
        scale: Tensor,
        placement: Placement,
    ) -> None:
        self.context = depthwise.context
        self.depthwise = depthwise
        self.norm = norm
        self.expand = Linear(*expand, placement, activation="gelu", chained=True)
        self.project = Linear(scale[:, None] * project[0], scale * project[1], placement)

    def look(self, pack: Tensor, layout: FrameMask) -> Tensor:
        """[num_positions, channels] to what the depthwise convolution makes of it."""
        return self.depthwise(pack)

    def apply(self, x: Tensor, seen: Tensor) -> Tensor:
        """[rows, channels] and what was seen there, to [rows, channels]; overwrites `x`."""
        update = self.project(self.expand(self.norm(pad_rows(seen))))
        return x.add_(update[: len(x)])
