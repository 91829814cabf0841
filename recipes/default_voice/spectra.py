"""Log-mel spectra and spectral losses for training the codec and the vocoder."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .nets import HOP_LENGTH, N_FFT, NUM_MELS

__all__ = ["log_mel", "multi_resolution_loss"]

SAMPLE_RATE = 24_000
_TOP_HZ = 8_000.0
"""The source voices end there: flite speaks at 16 kHz."""
_FLOOR = 1e-4


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


@cache
def _filters(n_fft: int, device: torch.device) -> Tensor:
    """HTK triangles without area normalisation, [n_fft // 2 + 1, NUM_MELS]."""
    bins = torch.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1, dtype=torch.float64)
    top = _mel(torch.tensor(_TOP_HZ, dtype=torch.float64))
    edges = torch.linspace(0, float(top), NUM_MELS + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges / 2595) - 1)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float().to(device)


@cache
def _window(n_fft: int, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, device=device)


def _magnitude(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """[batch, frames, n_fft // 2 + 1]."""
    window = _window(n_fft, wave.device)
    spectrum = torch.stft(wave, n_fft, hop, window=window, return_complex=True)
    real = torch.view_as_real(spectrum)
    return (real.pow(2).sum(-1) + 1e-9).sqrt().transpose(1, 2)


def log_mel(wave: Tensor, n_fft: int = N_FFT, hop: int = HOP_LENGTH) -> Tensor:
    """[batch, samples] in [-1, 1] to [batch, samples // hop, 100]; frames are centred."""
    mel = _magnitude(wave, n_fft, hop)[:, :-1] @ _filters(n_fft, wave.device)
    return mel.clamp(min=_FLOOR).log()


def multi_resolution_loss(output: Tensor, target: Tensor) -> Tensor:
    """Log-magnitude L1 plus spectral convergence over four window lengths (Yamamoto 2020)."""
    loss = output.new_zeros(())
    for n_fft in (256, 512, 1024, 2048):
        a, b = (_magnitude(x, n_fft, n_fft // 4) for x in (output, target))
        top = int(n_fft * _TOP_HZ / SAMPLE_RATE) + 1
        a, b = a[..., :top], b[..., :top]
        loss = loss + F.l1_loss((a + 1e-3).log(), (b + 1e-3).log())
        loss = loss + (a - b).norm() / (b.norm() + 1e-6)
    return loss / 4
