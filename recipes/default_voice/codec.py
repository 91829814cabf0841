"""Trains the codec: log-mel to four FSQ codes per 21 ms and back.

Once it is trained the codes are frozen: the language model and the vocoder are trained on them.
Only the decoder half is shipped.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .data import SAMPLES_PER_FRAME, Utterance
from .nets import Encoder, FeatureDecoder, VoiceShape
from .spectra import log_mel

__all__ = ["Codec", "code_usage", "encode_all", "train_codec"]

_CROP_FRAMES = 48
_BATCH = 32


class Codec(nn.Module):
    """Encoder and decoder around the quantiser."""

    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = FeatureDecoder(shape)

    def forward(self, mel: Tensor) -> Tensor:
        """[batch, 2T, 100] to its reconstruction."""
        out: Tensor = self.decoder(self.encoder(mel))
        return out


@dataclass
class Crops:
    """Random crops of the training audio, reproducible from ``seed``."""

    utterances: list[Utterance]
    frames: int
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._usable = [u for u in self.utterances if len(u.alignment) > self.frames]
        sizes = np.array([len(u.alignment) for u in self._usable], float)
        self._weights = sizes / sizes.sum()

    def next(self, batch: int) -> tuple[Tensor, list[tuple[int, int]]]:
        """Waveforms [batch, frames * 512] and the (utterance, first frame) of each crop."""
        rows = self._random.choice(len(self._usable), batch, p=self._weights)
        places = [
            (int(row), int(self._random.integers(len(self._usable[row].alignment) - self.frames)))
            for row in rows
        ]
        waves = [
            self._usable[row].samples[
                start * SAMPLES_PER_FRAME : (start + self.frames) * SAMPLES_PER_FRAME
            ]
            for row, start in places
        ]
        return torch.from_numpy(np.stack(waves)).float() / 32768, places

    def __getitem__(self, row: int) -> Utterance:
        return self._usable[row]


def cosine(step_share: float, peak: float) -> float:
    """Warm up over 3 % of the run, then fall along a cosine to 2 % of ``peak``."""
    if step_share < 0.03:
        return peak * (step_share / 0.03 + 0.02)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(step_share, 1.0))))


def train_codec(
    utterances: list[Utterance], path: Path, minutes: float, device: torch.device
) -> Codec:
    """Train for ``minutes`` of wall time and save to ``path``; load it if it is there."""
    torch.manual_seed(0)
    codec = Codec(VoiceShape()).to(device)
    if path.exists():
        codec.load_state_dict(torch.load(path, weights_only=True))
        return codec.eval()
    crops = Crops(utterances, _CROP_FRAMES)
    optimizer = torch.optim.AdamW(
        codec.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01
    )
    step_codec = torch.compile(codec)
    begin = time.monotonic()
    step = 0
    while (share := (time.monotonic() - begin) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = cosine(share, 1.5e-3)
        wave, _ = crops.next(_BATCH)
        gain = torch.rand(_BATCH, 1) * 0.6 + 0.6
        mel = log_mel((wave * gain).to(device))
        with torch.autocast(device.type, torch.bfloat16):
            error = step_codec(mel).float() - mel
        loss = error.abs().mean() + 0.1 * error.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(
                f"codec step {step} share {share:.2f} l1 {error.abs().mean().item():.4f}",
                flush=True,
            )
        step += 1
    torch.save(codec.state_dict(), path)
    return codec.eval()


@torch.inference_mode()
def encode_all(codec: Codec, utterances: list[Utterance], device: torch.device) -> list[np.ndarray]:
    """Codes int16 [frames, groups] of every utterance."""
    codes = []
    for utterance in utterances:
        wave = torch.from_numpy(utterance.samples).float()[None] / 32768
        codes.append(
            codec.encoder.codes(log_mel(wave.to(device)))[0].cpu().numpy().astype(np.int16)
        )
    return codes


def code_usage(codes: list[np.ndarray], size: int) -> list[tuple[int, float]]:
    """Per codebook, how many codes occur and their entropy in bits."""
    stacked = np.concatenate(codes)
    result = []
    for book in stacked.T:
        share = np.bincount(book, minlength=size) / len(book)
        used = share[share > 0]
        result.append((len(used), float(-(used * np.log2(used)).sum())))
    return result
