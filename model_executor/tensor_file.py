"""Reading safetensors files so that a bad checkpoint is named, not discovered ten frames deep.

Every tensor is asked for by name and shape; what is missing, misshapen or unreadable raises
`CheckpointError` with the file and the tensor in it. Tensors are read one at a time from a mapped
file, so a model never needs its weights in memory twice. This module knows no model.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..engine.errors import CheckpointError

Shape = tuple[int | None, ...]  # None: any size

_WEIGHT_NORM_MAGNITUDE = "parametrizations.weight.original0"
_WEIGHT_NORM_DIRECTION = "parametrizations.weight.original1"


def _format_shape(shape: Shape) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def _matches(actual: tuple[int, ...], wanted: Shape) -> bool:
    return len(actual) == len(wanted) and all(
        want is None or size == want for size, want in zip(actual, wanted, strict=True)
    )


class TensorFile:
    """One safetensors file, mapped. Use as a context manager.

    Args:
        path: the file.
        dtype: every floating tensor is converted to it; None keeps the file's own.

    Raises:
        CheckpointError: the file is missing or is not a readable safetensors file.
    """

    def __init__(self, path: Path, *, dtype: torch.dtype | None = None) -> None:
        self.path = path
        self._dtype = dtype
        if not path.is_file():
            raise CheckpointError(f"missing file {path}")
        try:
            self._file = cast(Any, safe_open(path, framework="pt", device="cpu"))
            self._names = frozenset(self._file.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error

    def __enter__(self) -> TensorFile:
        self._file.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, value, traceback)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors in the file, used or not."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header alone.

        Raises:
            CheckpointError: no such tensor.
        """
        self._require(name)
        return tuple(self._file.get_slice(name).get_shape())

    def get(self, name: str, shape: Shape | None = None) -> Tensor:
        """The tensor `name`, converted to the file's `dtype` where it is floating.

        Args:
            shape: sizes it must have; None entries match any size.

        Raises:
            CheckpointError: no such tensor, or another shape.
        """
        actual = self.shape(name)
        if shape is not None and not _matches(actual, shape):
            raise CheckpointError(
                f"{self.path}: tensor {name} has shape {actual}, expected {_format_shape(shape)}"
            )
        tensor: Tensor = self._file.get_tensor(name)
        if self._dtype is not None and tensor.is_floating_point():
            return tensor.to(self._dtype)
        return tensor

    def get_optional(self, name: str, shape: Shape | None = None) -> Tensor | None:
        """Like `get`, or None when the file has no such tensor."""
        return self.get(name, shape) if name in self else None

    def folded_weight(self, prefix: str, shape: Shape) -> Tensor:
        """Weight of a weight-normalised layer: `W = v * (g / |v|_row)`, computed in float32.

        Both forms are read: `{prefix}.parametrizations.weight.original0` (g, [rows, 1]) with
        `.original1` (v, [rows, cols]) as torch's parametrization stores them, and an already folded
        `{prefix}.weight`.

        Raises:
            CheckpointError: neither form is there, or the shape is another.
        """
        if f"{prefix}.weight" in self:
            return self.get(f"{prefix}.weight", shape)
        magnitude = self.get(f"{prefix}.{_WEIGHT_NORM_MAGNITUDE}", (shape[0], 1)).float()
        direction = self.get(f"{prefix}.{_WEIGHT_NORM_DIRECTION}", shape).float()
        norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        folded: Tensor = direction * (magnitude / norm)
        return folded if self._dtype is None else folded.to(self._dtype)

    def _require(self, name: str) -> None:
        if name not in self._names:
            raise CheckpointError(f"{self.path}: missing tensor {name}")
