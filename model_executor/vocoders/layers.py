"""The layers of both vocoder halves, each exact for every row of a pack.

A layer maps a pack [num_positions, channels] to another and declares the context it needs; a
`Chain` runs layers in order and drops, on the way, the frames that no later layer can see.
Time-wise layers zero the gaps first (see `row_layout`). Weights are prepared for one device at
construction: on CPU, matrix products run on oneDNN's packed weights, whose result for a row does
not depend on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .row_layout import Context, RowLayout, Span

Activation = Literal["none", "gelu"]

# oneDNN chooses the packed layout for about so many rows; the result is the same for any number.
_PACKED_FOR_ROWS = 256
_LAYER_NORM_EPS = 1e-6


class Layer(Protocol):
    """One step of a `Chain`."""

    @property
    def context(self) -> Context:
        """Frames before and after each frame that the output depends on."""

    def __call__(self, x: Tensor, layout: RowLayout) -> Tensor:
        """[num_positions, in] to [num_positions, out]; may overwrite `x`."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where weights live and in which type the large matrix products run."""

    device: torch.device
    matmul_dtype: torch.dtype = torch.float32


class Linear:
    """`activation(x W^T + b)`, float32 in and out whatever the product's type.

    Args:
        weight: [out, in].
        bias: [out], or None.
        chained: leave the output in the product's type, for a following `Linear`.
    """

    context = Context()

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        placement: Placement,
        *,
        activation: Activation = "none",
        chained: bool = False,
    ) -> None:
        self._dtype = placement.matmul_dtype
        self._activation = activation
        self._chained = chained
        weight = weight.to(placement.device, self._dtype).contiguous()
        self._bias = None if bias is None else bias.to(placement.device, self._dtype)
        self._packed = placement.device.type == "cpu" and torch._C._has_mkldnn
        self._weight: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
            if self._packed
            else weight
        )

    def __call__(self, x: Tensor, layout: RowLayout | None = None) -> Tensor:
        """[rows, in] to [rows, out]."""
        out = self._product(x.to(self._dtype))
        return out if self._chained else out.float()

    def _product(self, x: Tensor) -> Tensor:
        if self._packed:
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, self._activation, [], "none"
            )
            return packed
        out = F.linear(x, self._weight, self._bias)
        return F.gelu(out) if self._activation == "gelu" else out


class LayerNorm:
    """Normalisation over channels."""

    context = Context()

    def __init__(self, weight: Tensor, bias: Tensor, placement: Placement) -> None:
        self._weight = weight.to(placement.device)
        self._bias = bias.to(placement.device)

    def __call__(self, x: Tensor, layout: RowLayout | None = None) -> Tensor:
        """[rows, channels] to the same."""
        return F.layer_norm(x, self._weight.shape, self._weight, self._bias, _LAYER_NORM_EPS)


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
        out_channels, _, self._kernel_size = weight.shape
        self.context = conv_context(self._kernel_size, 1, right)
        flat = weight.permute(0, 2, 1).reshape(out_channels, -1)
        exact = Placement(placement.device)
        self._linear = Linear(flat, bias, exact, activation=activation)

    def __call__(self, x: Tensor, layout: RowLayout) -> Tensor:
        """[num_positions, in] to [num_positions, out]."""
        length, channels = x.shape
        padded = F.pad(layout.clear_gaps(x), (0, 0, self.context.left, self.context.right))
        frames = padded.as_strided((length, self._kernel_size * channels), (channels, 1))
        return self._linear(frames.contiguous())


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
        # As an image of height 1: that is the shape whose channels-last kernels are fast.
        image = weight.to(placement.device)[:, :, None, :]
        self._weight = image.contiguous(memory_format=torch.channels_last)
        self._bias = bias.to(placement.device)
        self._dilation = dilation

    def __call__(self, x: Tensor, layout: RowLayout) -> Tensor:
        """[num_positions, channels] to the same."""
        length, channels = x.shape
        image = layout.clear_gaps(x).view(1, 1, length, channels).permute(0, 3, 1, 2)
        padding = max(self.context.left, self.context.right)
        out = F.conv2d(
            image,
            self._weight,
            self._bias,
            padding=(0, padding),
            dilation=(1, self._dilation),
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
        self._depthwise = depthwise
        self._norm = norm
        self._expand = Linear(*expand, placement, activation="gelu", chained=True)
        self._project = Linear(scale[:, None] * project[0], scale * project[1], placement)

    def __call__(self, x: Tensor, layout: RowLayout) -> Tensor:
        """[num_positions, channels] to the same."""
        out = self._norm(self._depthwise(x, layout))
        return x.add_(self._project(self._expand(out)))


class Chain:
    """Layers in order, and what they need of the neighbouring frames together."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)

    def __add__(self, other: Chain) -> Chain:
        return Chain((*self.layers, *other.layers))

    @property
    def context(self) -> Context:
        """Sum of the layers' contexts."""
        return sum((layer.context for layer in self.layers), Context())

    @property
    def gap(self) -> int:
        """The widest padding of any layer."""
        return max(max(layer.context.left, layer.context.right) for layer in self.layers)

    def __call__(
        self, x: Tensor, layout: RowLayout, spans: Sequence[Span], beyond: Context
    ) -> tuple[Tensor, RowLayout]:
        """Run all layers.

        Args:
            x: [num_positions, in], overwritten.
            spans: frames of each window that are wanted in the end.
            beyond: context that what follows this chain needs around them.

        Returns:
            A pack whose rows hold at least `spans` and `beyond`, where the windows have them,
            exact there; and its layout.
        """
        needed = self.context + beyond
        for layer in self.layers:
            x, layout = layout.narrow(x, [_widened(span, needed) for span in spans])
            x = layer(x, layout)
            used = layer.context
            needed = Context(needed.left - used.left, needed.right - used.right)
        return x, layout


def _widened(span: Span, context: Context) -> Span:
    return Span(span.start - context.left, span.end + context.right)
