"""Inverse STFT of all rows of a pack at once: exact overlap-add per row.

Equals `torch.istft(center=True)` of every row alone, without padding rows to one length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .row_layout import Context, RowLayout, Span


class InverseSTFT:
    """Spectra to waveforms.

    Args:
        window: [n_fft].
        hop_length: samples between frames; divides `n_fft / 2`.
    """

    def __init__(self, window: Tensor, hop_length: int, device: torch.device) -> None:
        self.hop_length = hop_length
        self._window = window.float().to(device)
        self._hops = len(window) // hop_length

    @property
    def context(self) -> Context:
        """Frames whose windows reach into the `hop_length` samples that start at a frame's centre.

        The window of the frame `n_fft / 2` behind ends just before them.
        """
        half = self._hops // 2
        return Context(half - 1, half)

    @property
    def gap(self) -> int:
        """Positions between rows that keep their windows apart."""
        return self._hops - 1

    def __call__(self, spectrum: Tensor, layout: RowLayout, spans: Sequence[Span]) -> list[Tensor]:
        """Samples of each row's span.

        Args:
            spectrum: complex64 [num_positions, n_fft // 2 + 1].
            spans: frames of each window whose samples are wanted. A span that ends at its
                window's last frame gives `hop_length` samples less: they would need more frames.

        Returns:
            float32 [len(span) * hop_length] each (less by one hop at the window's end).
        """
        frames = torch.fft.irfft(spectrum, n=len(self._window)).mul_(self._window)
        layout.clear_gaps(frames)
        inside = layout.clear_gaps(frames.new_ones(len(frames), 1))
        signal = self._overlap_add(frames)
        envelope = self._overlap_add(inside * self._window.square())
        half = self._hops // 2
        samples = []
        for offset, row, span in zip(layout.offsets, layout.rows, spans, strict=True):
            first = offset + span.start - row.start + half
            length = min(span.end, row.end - 1) - span.start
            hops = slice(first, first + length)
            samples.append((signal[hops] / envelope[hops]).flatten())
        return samples

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[num_positions, n_fft] to hops [num_positions + n_fft / hop - 1, hop_length]."""
        count = len(frames)
        pieces = frames.view(count, self._hops, self.hop_length)
        out = frames.new_zeros(count + self._hops - 1, self.hop_length)
        for hop in range(self._hops):
            out[hop : hop + count].add_(pieces[:, hop])
        return out
