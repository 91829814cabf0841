"""Grouped residual finite scalar quantisation: codes to features and back.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple", in the form that
`vector_quantize_pytorch` had when ChatTTS was released: the feature vector is cut into groups,
each group projected to a few dimensions and quantised by `residuals` quantisers in a row, each
`residual_scale` times finer. Codes are ordered group-major (g0r0, g0r1, g1r0, ...).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.errors import CheckpointError
from ..models.checkpoint import VocoderConfig
from ..tensor_file import TensorFile

_BOUND_EPS = 1e-3


def fsq_points(levels: Sequence[int]) -> Tensor:
    """Values in [-1, 1] of every code, float32 [prod(levels), len(levels)].

    The first level varies fastest: digit j of a code is `code // prod(levels[:j]) % levels[j]`.
    """
    codes = torch.arange(math.prod(levels))
    digits, step = [], 1
    for level in levels:
        half = level // 2
        digits.append((codes // step % level - half) / half)
        step *= level
    return torch.stack(digits, dim=-1)


class FSQDecoder:
    """Codes to features, as sums of table rows: the projection is linear in each quantiser.

    Args:
        projections: (weight [group_width, dims], bias [group_width]) of each group.
    """

    def __init__(
        self,
        config: VocoderConfig,
        projections: Sequence[tuple[Tensor, Tensor]],
        device: torch.device,
    ) -> None:
        points = fsq_points(config.levels)
        scales = [config.residual_scale**index for index in range(config.residuals)]
        self._tables = [
            [(points * scale @ weight.T).to(device) for scale in scales]
            for weight, _ in projections
        ]
        self._biases = [bias.to(device) for _, bias in projections]
        self.num_codebooks = config.groups * config.residuals
        self.num_features = sum(len(bias) for bias in self._biases)

    def __call__(self, codes: Tensor) -> Tensor:
        """int64 [frames, groups * residuals] to float32 [frames, num_features]."""
        columns = iter(codes.unbind(dim=1))
        groups = []
        for tables, bias in zip(self._tables, self._biases, strict=True):
            total = bias.expand(len(codes), -1)
            for table in tables:
                total = total + F.embedding(next(columns), table)
            groups.append(total)
        return torch.cat(groups, dim=1)


class FSQEncoder:
    """Features to codes.

    Args:
        projections: (weight [dims, group_width], bias [dims]) of each group.
    """

    def __init__(
        self,
        config: VocoderConfig,
        projections: Sequence[tuple[Tensor, Tensor]],
        device: torch.device,
    ) -> None:
        self._config = config
        self._projections = [(weight.to(device), bias.to(device)) for weight, bias in projections]
        levels = torch.tensor(config.levels, device=device)
        self._half = levels // 2
        self._reach = (levels - 1) * (1 + _BOUND_EPS) / 2
        steps = [math.prod(config.levels[:index]) for index in range(len(config.levels))]
        self._steps = torch.tensor(steps, device=device)

    def __call__(self, features: Tensor) -> Tensor:
        """float32 [frames, num_features] to int64 [frames, groups * residuals]."""
        groups = features.chunk(self._config.groups, dim=1)
        columns: list[Tensor] = []
        for group, (weight, bias) in zip(groups, self._projections, strict=True):
            columns += self._quantise(F.linear(group, weight, bias))
        return torch.stack(columns, dim=1)

    def _quantise(self, projected: Tensor) -> list[Tensor]:
        rest = self._bound(projected) if self._config.bound_residual else projected
        columns = []
        for index in range(self._config.residuals):
            scale = self._config.residual_scale**index
            digits = torch.round(self._bound(rest / scale))
            columns.append(((digits.long() + self._half) * self._steps).sum(dim=-1))
            rest = rest - digits / self._half * scale
        return columns

    def _bound(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * self._reach


def load_projections(
    file: TensorFile, config: VocoderConfig, name: str
) -> list[tuple[Tensor, Tensor]]:
    """`vq_layer.quantizer.rvqs.{group}.{name}` of each group; `name` is `project_in` or `_out`.

    Raises:
        CheckpointError: a tensor is missing or misshapen, or a level is even.
    """
    if any(level % 2 == 0 or level < 3 for level in config.levels):
        raise CheckpointError(f"{file.path}: FSQ levels must be odd, got {config.levels}")
    dims = len(config.levels)
    projections = []
    for group in range(config.groups):
        prefix = f"vq_layer.quantizer.rvqs.{group}.{name}"
        shape = (dims, None) if name == "project_in" else (None, dims)
        weight = file.get(f"{prefix}.weight", shape)
        projections.append((weight, file.get(f"{prefix}.bias", (len(weight),))))
    return projections
