"""Waveform to log-mel, as the DVAE's encoder wants it: magnitudes, natural logarithm."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOOR = 1e-5


class LogMel:
    """Log-mel spectrogram with the window and filterbank of a checkpoint.

    Args:
        window: [n_fft].
        filterbank: [n_fft // 2 + 1, num_mels].
        hop_length: samples between frames.
    """

    def __init__(self, window: Tensor, filterbank: Tensor, hop_length: int) -> None:
        self._window = window
        self._filterbank = filterbank
        self._hop_length = hop_length

    def __call__(self, waveform: Tensor) -> Tensor:
        """float32 [samples] to [samples // hop_length + 1, num_mels]; ends are reflected."""
        spectrum = torch.stft(
            waveform,
            len(self._window),
            self._hop_length,
            window=self._window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return (spectrum.abs().T @ self._filterbank).clamp_(min=_FLOOR).log_()
