"""The pointwise parts of a Llama layer in plain torch: the truth on every device.

The CPU's fused kernels (`cpu_kernels`) are compared with these in the tests. No products here
(`linear`) and no attention (`attention/`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square normalisation (Zhang and Sennrich 2019), in float32.

    Args:
        x: [N, size] float32.
        weight: [size] float32.
        eps: added to the mean square.

    Returns:
        [N, size] float32.
    """
    if x.is_cuda:  # one kernel there instead of six
        return F.rms_norm(x, list(weight.shape), weight, eps)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotary_table(positions: int, head_dim: int, theta: float) -> torch.Tensor:
    """Cosines and sines of rotary embedding (Su et al. 2021).

    Args:
        positions: number of rows.
        head_dim: even.
        theta: base of the frequencies.

    Returns:
        [positions, head_dim] float32: head_dim / 2 cosines, then as many sines.
    """
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * inverse
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotate(x: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary embedding by halves (the Llama checkpoint layout), in float32.

    Args:
        x: [N, heads, head_dim].
        cos_sin: [N, head_dim], rows of `rotary_table` at the positions of x.

    Returns:
        [N, heads, head_dim] in the dtype of x.
    """
    cos, sin = cos_sin[:, None].chunk(2, dim=-1)
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """SwiGLU (Shazeer 2020): silu(gate) * up, in float32.

    Args:
        gate_up: [N, 2 * size], gate first.

    Returns:
        [N, size] in the dtype of `gate_up`.
    """
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(gate_up.dtype)
