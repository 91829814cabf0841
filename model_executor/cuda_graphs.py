"""Work as CUDA graphs, one for each size of batch that is worth its memory.

Launching the hundreds of small kernels of a decode step takes the host longer than the device needs
to run them; a graph launches them all at once. Graphs have fixed shapes and addresses, so a step is
padded to the next bucket and its inputs are copied into one block that never moves. Sampling is
part of the graph; drawn frames stay on the device. Vocoder batches are captured the same way.

This module knows shapes and buckets, not models: what a step computes is a function given to it.
Where there is no CUDA the same function runs on the same padded inputs, which is how the padding is
tested.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

HostArray = npt.NDArray[Any]
Tensors = dict[str, torch.Tensor]

_ALIGNMENT = 16  # bytes
_WARMUPS = 2  # runs before capture: kernels compile, libraries allocate their workspaces


def decode_buckets(max_num_seqs: int) -> tuple[int, ...]:
    """Sizes to capture: 1, 2, 4, 8, then finer steps than doubling, up to `max_num_seqs` itself."""
    sizes = {1, 2, 4, 8, max_num_seqs}
    sizes |= set(range(16, 64, 8)) | set(range(64, 256, 16)) | set(range(256, max_num_seqs, 32))
    return tuple(sorted(size for size in sizes if size <= max_num_seqs))


@dataclass(frozen=True, slots=True, eq=False)
class CapturePool:
    """What graphs share of which no two run at once: memory, and the stream they are captured on.

    Libraries keep a workspace for every stream, and a graph holds that of its capture. So graphs
    that may run at the same time need pools of their own, and one stream serves all of a pool:
    PyTorch has 32, and captures that each took another would soon share workspaces at random.
    """

    handle: Any
    stream: torch.cuda.Stream

    @classmethod
    def on(cls, device: torch.device) -> CapturePool | None:
        """A new pool; None without CUDA."""
        if device.type != "cuda":
            return None
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return cls(torch.cuda.graph_pool_handle(), stream)


def find_bucket(size: int, buckets: Sequence[int]) -> int | None:
    """The smallest bucket that holds `size` rows, or None; `buckets` are ascending."""
    return next((bucket for bucket in buckets if bucket >= size), None)


@dataclass(frozen=True, slots=True)
class Padding:
    """How one input grows to its bucket.

    Attributes:
        fill: value of the rows, and columns, that are added.
        width: columns in the bucket, for inputs whose second dimension varies.
    """

    fill: float = 0
    width: int | None = None


def pad_rows(array: HostArray, rows: int, padding: Padding) -> HostArray:
    """`array` [n, ...] grown to [rows, ...], and to `padding.width` columns if that is given.

    Raises:
        ValueError: it is larger than that.
    """
    shape = (rows, *array.shape[1:])
    if padding.width is not None:
        shape = (rows, padding.width, *array.shape[2:])
    if any(have > want for have, want in zip(array.shape, shape, strict=True)):
        raise ValueError(f"an input of shape {array.shape} does not fit {shape}")
    grown = np.full(shape, padding.fill, dtype=array.dtype)
    grown[tuple(slice(size) for size in array.shape)] = array
    return grown


class StaticInputs:
    """Input tensors at fixed addresses, filled by one copy.

    Args:
        arrays: one example of every input, at the bucket's shape.
        device: where the tensors live.
    """

    def __init__(self, arrays: Mapping[str, HostArray], device: torch.device) -> None:
        self._layout: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        end = 0
        for name, array in arrays.items():
            self._layout[name] = (end, array.shape, array.dtype)
            end += -(-max(array.nbytes, 1) // _ALIGNMENT) * _ALIGNMENT
        self._block = torch.zeros(end, dtype=torch.uint8, device=device)
        self._pinned = device.type == "cuda"
        self.tensors: Tensors = {name: self._view(self._block, name) for name in self._layout}
        self.fill(arrays)

    def fill(self, arrays: Mapping[str, HostArray]) -> None:
        """Copy new values in, without waiting for the device.

        Raises:
            ValueError: a name, shape or dtype differs from what was captured.
        """
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        expected = {name: (shape, dtype) for name, (_, shape, dtype) in self._layout.items()}
        if found != expected:
            wrong = sorted(n for n in found | expected if found.get(n) != expected.get(n))
            raise ValueError(f"inputs {wrong} differ in shape or type from the captured ones")
        staging = torch.empty(len(self._block), dtype=torch.uint8, pin_memory=self._pinned)
        for name, array in arrays.items():
            self._view(staging, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
        self._block.copy_(staging, non_blocking=True)

    def _view(self, block: torch.Tensor, name: str) -> torch.Tensor:
        start, shape, dtype = self._layout[name]
        kind = torch.from_numpy(np.zeros(0, dtype)).dtype
        size = int(np.prod(shape)) * dtype.itemsize
        return block[start : start + size].view(kind).view(shape)


class _Replayable(Protocol):
    def replay(self) -> None:
        """Run again on whatever the inputs hold now."""


class _Direct:
    """A graph's stand-in where there is no CUDA: calls the function, keeps the output's place."""

    def __init__(self, function: Callable[[], torch.Tensor], output: torch.Tensor) -> None:
        self._function, self._output = function, output

    def replay(self) -> None:
        self._output.copy_(self._function())


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    inputs: StaticInputs
    output: torch.Tensor  # [bucket, ...]
    graph: _Replayable


class StepGraphs:
    """One graph per bucket, captured when the bucket is first used.

    Args:
        function: the step: input tensors to an output whose first dimension is the bucket. It
            must not wait for the device, nor depend on anything but its inputs and `anchors`.
        buckets: sizes, ascending.
        device: where it runs.
        anchors: tensors whose addresses the graphs hold besides their inputs. When one of them is
            replaced, all graphs are forgotten and captured anew.
        pool: shared with other graphs; by default one of its own.
    """

    def __init__(
        self,
        function: Callable[[Tensors], torch.Tensor],
        buckets: Sequence[int],
        device: torch.device,
        anchors: Callable[[], Sequence[torch.Tensor]],
        *,
        pool: CapturePool | None = None,
    ) -> None:
        self._function, self._buckets, self._device = function, tuple(buckets), device
        self._anchors = anchors
        self._anchored: tuple[int, ...] = ()
        self._captured: dict[int, _Captured] = {}
        self._pool = CapturePool.on(device) if pool is None else pool

    @property
    def num_captured(self) -> int:
        """Graphs that are ready."""
        return len(self._captured)

    def fits(self, size: int) -> bool:
        """True when a bucket holds `size` rows."""
        return find_bucket(size, self._buckets) is not None

    def run(
        self, arrays: Mapping[str, HostArray], paddings: Mapping[str, Padding], size: int
    ) -> torch.Tensor:
        """Queue one step.

        Args:
            arrays: inputs, [size, ...] each.
            paddings: how each of them grows; padding rows must be harmless.
            size: rows of this step; `fits(size)` holds.

        Returns:
            The output's first `size` rows, in memory that the next step of the bucket overwrites.
        """
        bucket = find_bucket(size, self._buckets)
        assert bucket is not None, "no bucket holds this step"
        self._forget_if_moved()
        captured = self._captured.get(bucket)
        if captured is None:
            blank = {name: pad_rows(a[:0], bucket, paddings[name]) for name, a in arrays.items()}
            captured = self._captured[bucket] = self._capture(blank)
        captured.inputs.fill(
            {name: pad_rows(array, bucket, paddings[name]) for name, array in arrays.items()}
        )
        captured.graph.replay()
        return captured.output[:size]

    def _forget_if_moved(self) -> None:
        addresses = tuple(tensor.data_ptr() for tensor in self._anchors())
        if addresses != self._anchored:
            self._captured.clear()
            self._anchored = addresses

    def _capture(self, blank: Mapping[str, HostArray]) -> _Captured:
        """Capture on padding alone, so that no sequence is touched."""
        inputs = StaticInputs(blank, self._device)
        if self._pool is None:
            output = self._function(inputs.tensors).clone()
            direct = _Direct(lambda: self._function(inputs.tensors), output)
            return _Captured(inputs, output, direct)
        stream = self._pool.stream
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                self._function(inputs.tensors)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.graph(graph, pool=self._pool.handle, stream=stream):
            output = self._function(inputs.tensors)
        return _Captured(inputs, output, graph)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage may hold graphs and memory of the device, and freeing those can break a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
