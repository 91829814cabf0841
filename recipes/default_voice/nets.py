"""The codec decoder and the vocoder of the default voice, as trained; names as in the checkpoint.

Both are ChatTTS' shapes (Vocos: Siuzdak 2023; ConvNeXt: Liu et al. 2022) at other sizes, with one
change: each convolution says how many frames of future it sees, so that the look-ahead of the
whole chain stays within 24 mel frames. Activations are channels-last, [batch, frames, channels].
The encoder and the quantiser's input side are needed for training only and are not shipped.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Encoder", "FeatureDecoder", "Vocos", "VoiceShape", "fsq_values"]

NUM_MELS = 100
N_FFT = 1024
HOP_LENGTH = 256


@dataclass(frozen=True)
class VoiceShape:
    """Sizes; every ``*_right`` is in frames of that convolution."""

    groups: int = 4
    levels: tuple[int, ...] = (5, 5, 5, 5)
    features: int = 256
    bottleneck: int = 128
    decoder_width: int = 192
    decoder_mlp: int = 576
    decoder_out: int = 128
    conv_in_right: tuple[int, int] = (1, 1)
    decoder_right: tuple[int, ...] = (2, 2, 1, 1)
    out_conv_right: int = 1
    vocos_width: int = 224
    vocos_mlp: int = 672
    embed_right: int = 3
    vocos_right: tuple[int, ...] = (2, 2, 2, 2, 1)
    kernel_size: int = 7

    def look_ahead(self) -> int:
        """Mel frames of future that a sample needs, the ISTFT's two included."""
        convs = (*self.conv_in_right, *self.decoder_right, self.out_conv_right)
        return sum(convs) + self.embed_right + sum(self.vocos_right) + N_FFT // HOP_LENGTH // 2


class ShiftedConv(nn.Conv1d):
    """Convolution over frames with ``right`` frames of future and the rest of the past."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        right: int,
        *,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel, groups=groups, bias=bias)
        self._pads = (kernel - 1 - right, right)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, frames, inputs] to [batch, frames, outputs]."""
        if self.groups == 1:
            return super().forward(F.pad(x.transpose(1, 2), self._pads)).transpose(1, 2)
        padded = F.pad(x, (0, 0, *self._pads))
        frames = x.shape[1]
        taps = self.weight[:, 0]
        out = padded[:, :frames] * taps[:, 0]
        for tap in range(1, taps.shape[1]):
            out = out + padded[:, tap : tap + frames] * taps[:, tap]
        return out if self.bias is None else out + self.bias


class Block(nn.Module):
    """ConvNeXt block; the layer scale is called ``scale_name`` in the checkpoint."""

    def __init__(self, width: int, mlp: int, kernel: int, right: int, scale_name: str) -> None:
        super().__init__()
        self._scale_name = scale_name
        self.register_parameter(scale_name, nn.Parameter(torch.full((width,), 0.25)))
        self.dwconv = ShiftedConv(width, width, kernel, right, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, mlp)
        self.pwconv2 = nn.Linear(mlp, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, frames, width] to the same."""
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(self.dwconv(x)))))
        out: Tensor = x + y * self.get_parameter(self._scale_name)
        return out


def fsq_values(codes: Tensor, levels: tuple[int, ...]) -> Tensor:
    """FSQ points of code indices: [..., groups] to [..., groups, dims] in [-1, 1]."""
    digits = []
    for level in levels:
        digits.append(codes % level)
        codes = codes // level
    half = torch.tensor([level // 2 for level in levels], device=codes.device)
    return (torch.stack(digits, -1) - half) / half


class Encoder(nn.Module):
    """Log-mel to FSQ codes: two mel frames to ``groups`` x ``len(levels)`` levels of five.

    The inputs of the quantiser are standardised by batch statistics and pass the Gaussian
    distribution function, so that all levels of every dimension are used about equally.
    """

    def __init__(self, shape: VoiceShape, width: int = 256, blocks: int = 4) -> None:
        super().__init__()
        self.shape = shape
        dims = shape.groups * len(shape.levels)
        self.embed = ShiftedConv(2 * NUM_MELS, width, 3, 1)
        self.blocks = nn.ModuleList(Block(width, 3 * width, 7, 3, "gamma") for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dims)
        self.standard = nn.BatchNorm1d(dims, affine=False, momentum=0.02)

    def levels(self, mel: Tensor) -> Tensor:
        """[batch, 2T, 100] to level positions before rounding, [batch, T, groups * dims]."""
        batch, frames, _ = mel.shape
        x = self.embed(mel.reshape(batch, frames // 2, 2 * NUM_MELS))
        for block in self.blocks:
            x = block(x)
        z = self.standard(self.out(self.norm(x)).float().flatten(0, 1))
        count = self.shape.levels[0]
        u = count * 0.5 * torch.erf(z / math.sqrt(2)) * 0.999
        return u.view(batch, frames // 2, -1)

    def forward(self, mel: Tensor, noise: float = 0.03) -> Tensor:
        """FSQ points with a straight-through gradient, [batch, T, groups, dims] in [-1, 1]."""
        u = self.levels(mel)
        half = self.shape.levels[0] // 2
        rounded = u.round()
        if self.training and noise:
            step = torch.randint_like(u, 2) * 2 - 1
            rounded = (rounded + step * (torch.rand_like(u) < noise)).clamp(-half, half)
        points: Tensor = (u + (rounded - u).detach()) / half
        return points.view(*points.shape[:-1], self.shape.groups, -1)

    def codes(self, mel: Tensor) -> Tensor:
        """Code indices [batch, T, groups]."""
        levels = self.shape.levels
        digits = self.levels(mel).round().long() + levels[0] // 2
        digits = digits.view(*digits.shape[:-1], self.shape.groups, -1)
        weights = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        codes: Tensor = (digits * weights.to(digits.device)).sum(-1)
        return codes


class _Projection(nn.Module):
    def __init__(self, dims: int, features: int) -> None:
        super().__init__()
        self.project_out = nn.Linear(dims, features)


class _Quantizer(nn.Module):
    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        dims, features = len(shape.levels), shape.features // shape.groups
        self.rvqs = nn.ModuleList(_Projection(dims, features) for _ in range(shape.groups))


class _Layer(nn.Module):
    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        self.quantizer = _Quantizer(shape)


class _Decoder(nn.Module):
    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        first, second = shape.conv_in_right
        inputs, width = shape.features // 2, shape.decoder_width
        self.conv_in = nn.Sequential(
            ShiftedConv(inputs, shape.bottleneck, 3, first),
            nn.GELU(),
            ShiftedConv(shape.bottleneck, width, 3, second),
        )
        self.decoder_block = nn.ModuleList(
            Block(width, shape.decoder_mlp, shape.kernel_size, right, "weight")
            for right in shape.decoder_right
        )
        self.conv_out = nn.Conv1d(width, shape.decoder_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.decoder_block:
            x = block(x)
        return F.linear(x, self.conv_out.weight[:, :, 0])


class FeatureDecoder(nn.Module):
    """FSQ points to log-mel: the DVAE half of the checkpoint."""

    coef: Tensor

    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        self.shape = shape
        self.vq_layer = _Layer(shape)
        self.decoder = _Decoder(shape)
        self.out_conv = ShiftedConv(
            shape.decoder_out, NUM_MELS, 3, shape.out_conv_right, bias=False
        )
        self.register_buffer("coef", torch.full((1, NUM_MELS, 1), 4.0))

    def forward(self, points: Tensor) -> Tensor:
        """[batch, T, groups, dims] to log-mel [batch, 2T, 100]."""
        parts = [
            rvq.get_submodule("project_out")(points[:, :, group])
            for group, rvq in enumerate(self.vq_layer.quantizer.rvqs)
        ]
        features = torch.cat(parts, -1)
        batch, frames, width = features.shape
        pairs = features.view(batch, frames * 2, width // 2)
        mel: Tensor = self.out_conv(self.decoder(pairs)) * self.coef[:, :, 0]
        return mel


class _Backbone(nn.Module):
    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        width = shape.vocos_width
        self.embed = ShiftedConv(NUM_MELS, width, 7, shape.embed_right)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.convnext = nn.ModuleList(
            Block(width, shape.vocos_mlp, shape.kernel_size, right, "gamma")
            for right in shape.vocos_right
        )
        self.final_layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.norm(self.embed(mel))
        for block in self.convnext:
            x = block(x)
        out: Tensor = self.final_layer_norm(x)
        return out


class _ISTFT(nn.Module):
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT))


class _Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, N_FFT + 2)
        self.istft = _ISTFT()


class Vocos(nn.Module):
    """Log-mel to waveform."""

    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        self.backbone = _Backbone(shape)
        self.head = _Head(shape.vocos_width)

    def forward(self, mel: Tensor) -> Tensor:
        """[batch, frames, 100] to [batch, (frames - 1) * 256] samples at 24 kHz."""
        out = self.head.out(self.backbone(mel)).float()
        log_magnitude, phase = out.chunk(2, -1)
        magnitude = log_magnitude.exp().clamp(max=100.0)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        return torch.istft(
            spectrum.transpose(1, 2), N_FFT, HOP_LENGTH, window=self.head.istft.window
        )
