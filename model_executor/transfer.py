"""One copy to the device per step, and one back.

A step's inputs are a dozen small arrays. On CPU they are used where they are; on another device
they are packed into one page-locked block and copied once, without waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_ALIGNMENT = 16  # bytes
HostArray = npt.NDArray[Any]


def to_device(arrays: Mapping[str, HostArray], device: torch.device) -> dict[str, torch.Tensor]:
    """Tensors of the same names, shapes and dtypes on the device."""
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
    if device.type == "cpu":
        return tensors
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes.values()]
    block = torch.empty(sum(padded), dtype=torch.uint8, pin_memory=True)
    starts = np.cumsum([0, *padded]).tolist()
    for start, (name, tensor) in zip(starts, tensors.items(), strict=False):
        if sizes[name]:
            block[start : start + sizes[name]].copy_(tensor.reshape(-1).view(torch.uint8))
    moved = block.to(device, non_blocking=True)
    return {
        name: moved[start : start + sizes[name]].view(tensor.dtype).view(tensor.shape)
        for start, (name, tensor) in zip(starts, tensors.items(), strict=False)
    }


class HostCopy:
    """A tensor on its way to the host.

    Args:
        tensor: any tensor; on CPU no copy is made.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def is_done(self) -> bool:
        """True when `wait` would return at once."""
        if self._event is None:
            return True
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> HostArray:
        """The array, once it has arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()
