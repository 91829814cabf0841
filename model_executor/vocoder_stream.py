"""Work that is queued on the device instead of waited for.

On CUDA a step of the speech model is answered one step late, so that the host prepares the next
while the device runs this one, and the vocoder has a stream of its own, so that neither stage waits
for the other. Every chunk of audio comes back through its own page-locked buffer and event. This
module decides no order: the engine launches and collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from .interfaces import FloatArray
from .model_runner import ModelRunner, PendingStep
from .transfer import HostCopy


@dataclass(frozen=True, slots=True, eq=False)
class PendingModel:
    """A step in flight; see `Pending`."""

    runner: ModelRunner
    step: PendingStep

    @property
    def is_done(self) -> bool:
        """True when `wait` would return at once."""
        return all(copy.is_done for _, copy in self.step.groups)

    def wait(self) -> ModelRunnerOutput:
        """The step's answer."""
        return self.runner.collect(self.step)


@dataclass(frozen=True, slots=True, eq=False)
class PendingAudio:
    """Chunks in flight, one copy and one event each; see `Pending`."""

    copies: tuple[HostCopy, ...]

    @property
    def is_done(self) -> bool:
        """True when `wait` would return at once."""
        return all(copy.is_done for copy in self.copies)

    def wait(self) -> list[FloatArray]:
        """Waveforms [samples], in the order of the jobs.

        They are copies: a listener may be slow, and page-locked memory takes long to make anew.
        """
        return [copy.wait().copy() for copy in self.copies]


class SideStream:
    """A CUDA stream beside the current one; where there is no CUDA, nothing.

    It does not wait for the current stream. Frames of answered steps are safe to read, because the
    host has waited for them; tensors that the other stream owns are marked as read here, so that
    their memory is not given away while this stream may still read it.

    Args:
        device: of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def reading(self, tensors: Sequence[torch.Tensor]) -> Iterator[None]:
        """Queue what is launched inside on this stream; it may read `tensors`."""
        if self._stream is None:
            yield
            return
        for tensor in tensors:
            tensor.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            yield


class DeviceQueue:
    """Implements `WorkQueue` over a runner and a vocoder.

    Args:
        runner: of the speech model.
        decode: queues a vocoder batch: device waveforms float32 [samples] of the jobs, in order.
        device: where both run.
        depth: steps that may be launched before the oldest is collected.
    """

    max_batches = 2

    def __init__(
        self,
        runner: ModelRunner,
        decode: Callable[[VocoderBatch], list[torch.Tensor]],
        device: torch.device,
        *,
        depth: int = 1,
    ) -> None:
        self.depth = depth
        self._runner, self._decode = runner, decode
        self._stream = SideStream(device)

    def launch_model(self, output: SchedulerOutput) -> PendingModel:
        """See `WorkQueue`."""
        return PendingModel(self._runner, self._runner.launch(output))

    def launch_vocoder(self, batch: VocoderBatch) -> PendingAudio:
        """See `WorkQueue`."""
        store = self._runner.store
        with self._stream.reading((store.codes, store.hidden)):
            return PendingAudio(tuple(HostCopy(audio) for audio in self._decode(batch)))
