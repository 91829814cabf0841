"""`Linear`: a bias-free product whose result for a row does not depend on the other rows.

Batch invariance (docs/adr/0004) rests on this module and on `cpu_panels`. On CPU the weight is
packed once for oneDNN, whose float32 kernels sum a row in the same order for every number of rows
from two on; a lone row is computed as two. `PanelLinear` holds weights for `cpu_stack`. Neither
quantizes nor trains.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F

_PACKED_DTYPES = (torch.float32, torch.bfloat16)
_EXPECTED_ROWS = 64


class Linear:
    """y = x W^T.

    Args:
        weight: [out_features, in_features] on its final device in its final dtype. On CPU it is
            copied into a packed layout, so the caller should drop it.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self._packed = _can_pack(weight)
        self._weight = _pack(weight) if self._packed else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply.

        Args:
            x: [N, in_features], contiguous, in the weight's dtype; N is at least 1.

        Returns:
            [N, out_features] in the same dtype.
        """
        if not self._packed:
            return F.linear(x, self._weight)
        if len(x) == 1:
            return self._multiply(x.expand(2, -1).contiguous())[:1]
        return self._multiply(x)

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        product = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return cast(torch.Tensor, product)


class PanelLinear:
    """A layer's weight packed for `cpu_stack`, which multiplies it inside its kernel.

    Args:
        weight: [out_features, in_features] on the CPU, float32 or bfloat16; copied.
        gated: the first half of the outputs are gates and the second what they let through.

    Attributes:
        panels: the weight as it lies in memory.
    """

    def __init__(self, weight: torch.Tensor, *, gated: bool = False) -> None:
        from . import cpu_packing

        self._gated = gated
        ordered = cpu_packing.interleave(weight) if gated else weight.contiguous()
        self.panels = cpu_packing.Panels(ordered)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `Linear`. Slow, since it unpacks the weight: for backends that show what is right."""
        from . import cpu_packing

        weight = self.panels.unpack()
        return F.linear(x, cpu_packing.separate(weight) if self._gated else weight)


def fills_panels(sizes: Iterable[int], dtype: torch.dtype, device: torch.device) -> bool:
    """True when layers of these widths can be held in `PanelLinear`s and run by `cpu_stack`."""
    if device.type != "cpu" or dtype not in _PACKED_DTYPES:
        return False
    from .cpu_packing import PANEL

    return all(size % PANEL == 0 for size in sizes)


def _can_pack(weight: torch.Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in _PACKED_DTYPES
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and (weight.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _EXPECTED_ROWS)
    return cast(torch.Tensor, packed)
