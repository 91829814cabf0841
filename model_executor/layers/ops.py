"""The two ways to run the pointwise parts of a layer, behind one interface.

`TorchOps` runs anywhere and is the truth; `CpuOps` calls the compiled kernels. Both take tensors of
N packed positions.
"""

from __future__ import annotations

from typing import Protocol

import torch

from . import functional


class LayerOps(Protocol):
    """What a Llama layer needs besides products and attention."""

    def rms_norm(self, residual: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Norm [N, size] of float32 [N, size], in the activations' dtype."""

    def add_rms_norm(
        self, residual: torch.Tensor, update: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """Add `update` [N, size] to `residual` in place, then `rms_norm`."""

    def rotate(self, heads: torch.Tensor, num_rotated: int, cos_sin: torch.Tensor) -> None:
        """Rotate the first heads of [N, heads, head_dim] in place by [N, head_dim]."""

    def silu_and_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up: [N, 2 * size] to [N, size]."""


class TorchOps:
    """Plain torch on any device.

    Args:
        dtype: of the activations.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def rms_norm(self, residual: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """See `LayerOps`."""
        return functional.rms_norm(residual, weight, eps).to(self._dtype)

    def add_rms_norm(
        self, residual: torch.Tensor, update: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """See `LayerOps`."""
        return self.rms_norm(residual.add_(update), weight, eps)

    def rotate(self, heads: torch.Tensor, num_rotated: int, cos_sin: torch.Tensor) -> None:
        """See `LayerOps`."""
        heads[:, :num_rotated] = functional.rotate(heads[:, :num_rotated], cos_sin)

    def silu_and_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See `LayerOps`."""
        return functional.silu_and_mul(gate_up)


class CpuOps:
    """Compiled kernels on the CPU.

    Args:
        dtype: of the activations, float32 or bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        from . import cpu_kernels

        self._kernels = cpu_kernels
        self._dtype = dtype

    def rms_norm(self, residual: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """See `LayerOps`."""
        out = torch.empty(residual.shape, dtype=self._dtype)
        self._kernels.rms_norm(residual, weight, eps, out)
        return out

    def add_rms_norm(
        self, residual: torch.Tensor, update: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """See `LayerOps`."""
        out = torch.empty(residual.shape, dtype=self._dtype)
        self._kernels.add_rms_norm(residual, update, weight, eps, out)
        return out

    def rotate(self, heads: torch.Tensor, num_rotated: int, cos_sin: torch.Tensor) -> None:
        """See `LayerOps`."""
        self._kernels.rotate(heads, num_rotated, cos_sin)

    def silu_and_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See `LayerOps`."""
        out = torch.empty(len(gate_up), gate_up.shape[1] // 2, dtype=self._dtype)
        self._kernels.silu_and_mul(gate_up, out)
        return out


def layer_ops(dtype: torch.dtype, device: torch.device) -> LayerOps:
    """The faster one for the device."""
    on_cpu = device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
    return CpuOps(dtype) if on_cpu else TorchOps(dtype)
