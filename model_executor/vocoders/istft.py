"""Inverse STFT of all rows of a pack at once: exact overlap-add per row.

Equals `torch.istft(center=True)` of every row alone, without padding rows to one length. As a
stage it maps a frame's spectrum to the `hop_length` samples that start at the frame's centre.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .row_layout import Context, FrameMask

MAX_MAGNITUDE = 100.0


def head_spectrum(out: Tensor) -> Tensor:
    """Vocos' head output [frames, n_fft + 2] to a spectrum, complex64 [frames, n_fft // 2 + 1].

    The first half is the logarithm of the magnitude, the second the phase in radians.
    """
    if out.device.type == "cpu":
        return _compiled_spectrum(out)
    log_magnitude, phase = out.chunk(2, dim=-1)
    magnitude = log_magnitude.exp().clamp_(max=MAX_MAGNITUDE)
    return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())


def _compiled_spectrum(out: Tensor) -> Tensor:
    from . import cpu_kernels

    rows, bins = len(out), out.shape[1] // 2
    spectrum = torch.empty(rows, bins, dtype=torch.complex64)
    limit = np.float32(MAX_MAGNITUDE)
    cpu_kernels.spectrum(out.contiguous().data_ptr(), bins, rows, limit, spectrum.data_ptr())
    return spectrum


class InverseSTFT:
    """Windowed frames to samples.

    The inputs are frames as `synthesize` makes them: [frames, n_fft], already windowed.

    Args:
        window: [n_fft].
        hop_length: samples between frames; divides `n_fft / 2`.
    """

    def __init__(self, window: Tensor, hop_length: int, device: torch.device) -> None:
        self.hop_length = hop_length
        self._window = window.float().to(device)
        self.power = self._window.square()
        self._hops = len(window) // hop_length

    @property
    def context(self) -> Context:
        """Frames whose windows reach into a frame's samples.

        The window of the frame `n_fft / 2` behind ends just before them.
        """
        half = self._hops // 2
        return Context(half - 1, half)

    def synthesize(self, spectrum: Tensor) -> Tensor:
        """complex64 [frames, n_fft // 2 + 1] to windowed frames, float32 [frames, n_fft]."""
        frames: Tensor = torch.fft.irfft(spectrum, n=len(self._window))
        return frames.mul_(self._window)

    def look(self, pack: Tensor, layout: FrameMask) -> Tensor:
        """[num_positions, n_fft] to samples, [num_positions, hop_length].

        The last `n_fft / (2 * hop_length)` frames of a row see too few frames for all of theirs.
        """
        signal = self._overlap_add(pack)
        envelope = self._overlap_add(layout.is_frame(pack) * self.power)
        return signal / envelope

    def apply(self, x: Tensor, seen: Tensor) -> Tensor:
        """Nothing is left to be done."""
        return seen

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[num_positions, n_fft] to the hop that starts at each centre, [num_positions, hop]."""
        count, half = len(frames), self._hops // 2
        pieces = frames.view(count, self._hops, self.hop_length)
        out = frames.new_zeros(count + self._hops - 1, self.hop_length)
        for hop in range(self._hops):
            out[hop : hop + count].add_(pieces[:, hop])
        return out[half : half + count]
