"""Frames of the speech model to waveforms, many windows of different lengths in one launch.

Both ways into the vocoder that ChatTTS has: hidden states through `Decoder`, or codes through the
DVAE's decoder; then Vocos and an inverse STFT. The default voice is the second way with its own
sizes and paddings. The declared context is computed from the layers that were built, never stated.
This module does not choose windows: the vocoder scheduler does, from the declared context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...engine.errors import CheckpointError
from ..interfaces import VocoderSpec
from ..models.checkpoint import Checkpoint, VocoderConfig
from .convnext import load_mel_decoder
from .fsq import FSQDecoder, load_projections
from .istft import InverseSTFT
from .layers import Chain, Placement
from .row_layout import Context, RowLayout, Span, whole_rows
from .vocos import head_spectrum, load_vocos

InputKind = Literal["hidden", "codes"]

# Each frame's feature vector holds two mel frames: its first half is the earlier one.
MEL_PER_FRAME = 2


class FrameVocoder:
    """A decoder for each input kind, and the vocoder that they share.

    Args:
        mel_decoders: features to log-mel, for each input kind; the first is the default.
        fsq: codes to features, when `codes` is among the kinds.
    """

    def __init__(
        self,
        mel_decoders: dict[InputKind, Chain],
        fsq: FSQDecoder | None,
        vocos: Chain,
        istft: InverseSTFT,
        config: VocoderConfig,
        device: torch.device,
    ) -> None:
        self._mel_decoders = mel_decoders
        self._fsq = fsq
        self._vocos = vocos
        self._istft = istft
        self._config = config
        self.device = device

    @property
    def input_kinds(self) -> tuple[InputKind, ...]:
        """What it can decode, the default first."""
        return tuple(self._mel_decoders)

    @property
    def spec(self) -> VocoderSpec:
        """Declared context and rates; the context is enough for every input kind."""
        contexts = [self._frame_context(kind) for kind in self.input_kinds]
        hop_length = self._config.hop_length
        return VocoderSpec(
            input_kind=self.input_kinds[0],
            other_input_kinds=self.input_kinds[1:],
            sample_rate=self._config.sample_rate,
            samples_per_frame=MEL_PER_FRAME * hop_length,
            left_context=max(context.left for context in contexts),
            right_context=max(context.right for context in contexts),
            tail_samples=hop_length,
        )

    def _frame_context(self, kind: InputKind) -> Context:
        """Context in frames: what the first and the last mel frame of a frame reach."""
        mel = self._mel_decoders[kind].context + self._vocos.context + self._istft.context
        return Context(-(-mel.left // MEL_PER_FRAME), (mel.right + 1) // MEL_PER_FRAME)

    def mel(self, windows: Sequence[Tensor], kind: InputKind) -> list[Tensor]:
        """Log-mel [MEL_PER_FRAME * T_i, num_mels] of whole windows. See `decode`."""
        spans = [Span(0, MEL_PER_FRAME * len(window)) for window in windows]
        mel, layout = self._decode_mel(windows, kind, spans, Context())
        return layout.unpack(mel)

    def decode(
        self, windows: Sequence[Tensor], spans: Sequence[Span], kind: InputKind
    ) -> list[Tensor]:
        """Samples of `spans`, each exact for its own window.

        Args:
            windows: float [T_i, hidden_size], or integer codes [T_i, num_codebooks].
            spans: frames of each window whose samples are wanted; the rest is context.

        Returns:
            float32 [len(span) * samples_per_frame] each, less `tail_samples` when the span
            ends where its window does.
        """
        wanted = [Span(MEL_PER_FRAME * s.start, MEL_PER_FRAME * s.end) for s in spans]
        beyond = self._vocos.context + self._istft.context
        mel, layout = self._decode_mel(windows, kind, wanted, beyond)
        out, layout = self._vocos(mel, layout, wanted, self._istft.context)
        return self._istft(head_spectrum(out), layout, wanted)

    def _decode_mel(
        self, windows: Sequence[Tensor], kind: InputKind, spans: Sequence[Span], beyond: Context
    ) -> tuple[Tensor, RowLayout]:
        rows = [self._mel_pairs(window, kind) for window in windows]
        chain = self._mel_decoders[kind]
        gap = max(chain.gap, self._vocos.gap, self._istft.gap)
        layout = whole_rows([len(row) for row in rows], gap, self.device)
        return chain(layout.pack(rows), layout, spans, beyond)

    def _mel_pairs(self, window: Tensor, kind: InputKind) -> Tensor:
        """A window to features [MEL_PER_FRAME * T, width / MEL_PER_FRAME]."""
        window = window.to(self.device)
        if kind == "codes":
            assert self._fsq is not None, "a codes decoder comes with its quantiser"
            features = self._fsq(window.long())
        else:
            features = window.float()
        return features.reshape(MEL_PER_FRAME * len(features), -1)


def load_vocoder(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str = "cpu",
    matmul_dtype: torch.dtype = torch.float32,
) -> FrameVocoder:
    """Build the vocoder of a checkpoint: from hidden states where it has `Decoder.safetensors`,
    from codes where it has `DVAE.safetensors`.

    Args:
        matmul_dtype: type of the pointwise matrix products; the rest is float32. bfloat16 is
            faster and audibly the same, but not within the promised 1e-5.

    Raises:
        CheckpointError: neither file is there, or a tensor is missing or misshapen.
    """
    placement, config = Placement(torch.device(device), matmul_dtype), checkpoint.vocoder
    decoders: dict[InputKind, Chain] = {}
    fsq = None
    if checkpoint.has("Decoder.safetensors"):
        with checkpoint.tensors("Decoder.safetensors", dtype=torch.float32) as file:
            decoders["hidden"] = load_mel_decoder(file, config.decoder, config.num_mels, placement)
    if checkpoint.has("DVAE.safetensors"):
        with checkpoint.tensors("DVAE.safetensors", dtype=torch.float32) as file:
            decoders["codes"] = load_mel_decoder(file, config.decoder, config.num_mels, placement)
            projections = load_projections(file, config, "project_out")
        fsq = FSQDecoder(config, projections, placement.device)
    if not decoders:
        raise CheckpointError(f"{checkpoint.asset} has neither Decoder nor DVAE.safetensors")
    with checkpoint.tensors("Vocos.safetensors", dtype=torch.float32) as file:
        vocos = load_vocos(file, config.vocos, config.num_mels, config.n_fft, placement)
        window = file.get("head.istft.window", (config.n_fft,))
    istft = InverseSTFT(window, config.hop_length, placement.device)
    return FrameVocoder(decoders, fsq, vocos, istft, config, placement.device)
