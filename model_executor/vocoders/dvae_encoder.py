"""The DVAE's encoder: a recording to codes, so that it can be the prompt of a zero-shot voice.

Runs once per new voice on the caller's thread, one recording at a time; it is not part of the
vocoder stage and is not batched.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.checkpoint import Checkpoint, ConvNeXtLayout
from ..tensor_file import TensorFile
from .chain import Chain, Row
from .convnext import load_stack
from .fsq import FSQEncoder, load_projections
from .layers import Placement
from .mel import LogMel
from .row_layout import Span

_DOWNSAMPLE_STRIDE = 2


class DVAEEncoder:
    """Waveform to codes: log-mel, two convolutions (the second halves the rate), stack, FSQ."""

    def __init__(
        self,
        log_mel: LogMel,
        coef: Tensor,
        downsample: list[tuple[Tensor, Tensor]],
        stack: Chain,
        quantiser: FSQEncoder,
        sample_rate: int,
    ) -> None:
        self._log_mel = log_mel
        self._coef = coef
        self._downsample = downsample
        self._stack = stack
        self._quantiser = quantiser
        self.sample_rate = sample_rate

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """float32 [samples] at `sample_rate` to int32 [frames, num_codebooks]."""
        features = self._downsampled(self._log_mel(waveform) / self._coef)
        whole = Span(0, len(features))
        out, _ = self._stack([features], [Row(whole, whole)])
        return self._quantiser(out[0]).int()

    def _downsampled(self, mel: Tensor) -> Tensor:
        """[2T, num_mels] to [T, features]."""
        (first, first_bias), (second, second_bias) = self._downsample
        x = F.gelu(F.conv1d(mel.T[None], first, first_bias, padding=1))
        x = F.gelu(F.conv1d(x, second, second_bias, stride=_DOWNSAMPLE_STRIDE, padding=1))
        return x[0].T


def load_dvae_encoder(checkpoint: Checkpoint) -> DVAEEncoder | None:
    """The encoder of `asset/DVAE.safetensors`, on CPU; None where the checkpoint has none.

    Raises:
        CheckpointError: a tensor is missing or misshapen.
    """
    if not checkpoint.has("DVAE.safetensors"):
        return None
    with checkpoint.tensors("DVAE.safetensors", dtype=torch.float32) as file:
        if "encoder.conv_in.0.weight" not in file:
            return None
        return _load(file, checkpoint)


def _load(file: TensorFile, checkpoint: Checkpoint) -> DVAEEncoder:
    config, placement = checkpoint.vocoder, Placement(torch.device("cpu"))
    mel = "preprocessor_mel.mel_spec"
    num_bins = config.n_fft // 2 + 1
    log_mel = LogMel(
        file.get(f"{mel}.spectrogram.window", (config.n_fft,)),
        file.get(f"{mel}.mel_scale.fb", (num_bins, config.num_mels)),
        config.hop_length,
    )
    width = file.shape("downsample_conv.0.weight")[0]
    downsample = [
        (file.get(f"downsample_conv.{i}.weight", shape), file.get(f"downsample_conv.{i}.bias"))
        for i, shape in ((0, (width, config.num_mels, 3)), (2, (width, width, 4)))
    ]
    return DVAEEncoder(
        log_mel,
        file.get("coef", (1, config.num_mels, 1)).view(-1),
        downsample,
        load_stack(file, "encoder", ConvNeXtLayout(), placement),
        FSQEncoder(config, load_projections(file, config, "project_in"), placement.device),
        config.sample_rate,
    )
