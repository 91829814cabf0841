"""Trains codec decoder and vocoder together on frozen codes, waveform against waveform.

The decoder starts from the codec's; its log-mel output stays supervised so that the checkpoint's
two halves keep their meaning. No adversarial loss.
"""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .codec import Crops, cosine
from .data import Utterance
from .nets import HOP_LENGTH, FeatureDecoder, Vocos, VoiceShape, fsq_values
from .spectra import log_mel, multi_resolution_loss

__all__ = ["CodeVocoder", "train_vocoder"]

_CROP_FRAMES = 48
_BATCH = 16
_SAVE_SECONDS = 150.0


class CodeVocoder(nn.Module):
    """Codes to waveform through the log-mel in between."""

    def __init__(self, shape: VoiceShape) -> None:
        super().__init__()
        self.shape = shape
        self.decoder = FeatureDecoder(shape)
        self.vocos = Vocos(shape)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, T, groups] to samples [batch, (2T - 1) * 256] and log-mel [batch, 2T, 100]."""
        mel = self.decoder(fsq_values(codes, self.shape.levels))
        return self.vocos(mel.float()), mel


def _losses(model: nn.Module, wave: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mel L1 of the output, multi-resolution loss, mel L1 of the decoder."""
    with torch.autocast(wave.device.type, torch.bfloat16):
        spoken, mel = model(codes)
    target = log_mel(wave)
    spoken = F.pad(spoken.float(), (0, HOP_LENGTH))
    mel_loss = F.l1_loss(log_mel(spoken)[:, :-2], target[:, :-2])
    return mel_loss, multi_resolution_loss(spoken, wave), F.l1_loss(mel.float(), target)


def train_vocoder(
    utterances: list[Utterance],
    codes: list[npt.NDArray[np.int16]],
    decoder: FeatureDecoder,
    path: Path,
    minutes: float,
    device: torch.device,
) -> CodeVocoder:
    """Train up to ``minutes`` in all, going on from ``path``; ``decoder`` is the starting point."""
    torch.manual_seed(0)
    model = CodeVocoder(VoiceShape())
    model.decoder.load_state_dict(decoder.state_dict())
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.8, 0.99), weight_decay=0.01)
    seconds, step = 0.0, 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        seconds, step = state["seconds"], state["step"]
    crops = Crops(utterances, _CROP_FRAMES, seed=step)
    books = {id(u): c for u, c in zip(utterances, codes, strict=True)}
    begin, saved = time.monotonic() - seconds, time.monotonic()

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "seconds": seconds, "step": step}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    while (seconds := time.monotonic() - begin) < 60 * minutes:
        for group in optimizer.param_groups:
            group["lr"] = cosine(seconds / (60 * minutes), 1e-3)
        wave, places = crops.next(_BATCH)
        rows = [books[id(crops[row])][start : start + _CROP_FRAMES] for row, start in places]
        taken = torch.from_numpy(np.stack(rows).astype(np.int64)).to(device)
        losses = _losses(model, wave.to(device), taken)
        optimizer.zero_grad()
        torch.autograd.backward(2 * losses[0] + losses[1] + losses[2])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            text = " ".join(f"{loss.item():.4f}" for loss in losses)
            print(f"vocoder step {step} {seconds:.0f} s {text}", flush=True)
        if time.monotonic() - saved > _SAVE_SECONDS:
            save()
            saved = time.monotonic()
    save()
    return model.eval()
