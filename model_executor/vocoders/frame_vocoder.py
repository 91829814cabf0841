"""Frames of the speech model to waveforms, many windows of different lengths in one launch.

Both ways into the vocoder that ChatTTS has: hidden states through `Decoder`, or codes through the
DVAE's decoder; then Vocos and an inverse STFT. The default voice is the second way with its own
sizes and paddings. The declared context is computed from the layers that were built, never stated.
This module does not choose windows: the vocoder scheduler does, from the declared context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...engine.errors import CheckpointError
from ...engine.request import VocoderInput
from ..interfaces import VocoderSpec
from ..models.checkpoint import Checkpoint, VocoderConfig
from .chain import Chain, Row, StreamState
from .convnext import load_mel_decoder
from .fsq import FSQDecoder, load_projections
from .layers import Placement
from .row_layout import Context, Span
from .vocos import load_vocos

if TYPE_CHECKING:
    from .cpu_chain import CpuChain

# Each frame's feature vector holds two mel frames: its first half is the earlier one.
MEL_PER_FRAME = 2


@dataclass(frozen=True, eq=False)
class Window:
    """Frames of a sequence, of which some are to become samples.

    Attributes:
        frames: float [T, hidden_size], or integer codes [T, num_codebooks].
        start: index in the sequence of the first of them.
        wanted: frames of the sequence whose samples are wanted; the rest is context.
        state: what decoding the sequence up to `wanted.start` left; None decodes the window by
            itself.
        keep_state: see `Row`.
    """

    frames: Tensor
    start: int
    wanted: Span
    state: StreamState | None = None
    keep_state: bool = False


class FrameVocoder:
    """A decoder for each input kind, and the vocoder that they share.

    Args:
        mel_decoders: features to log-mel, for each input kind; the first is the default.
        fsq: codes to features, when `codes` is among the kinds.
        vocos: log-mel to samples.
        hidden_size: width of the hidden states, when `hidden` is among the kinds.
    """

    def __init__(
        self,
        mel_decoders: dict[VocoderInput, Chain],
        fsq: FSQDecoder | None,
        vocos: Chain,
        config: VocoderConfig,
        device: torch.device,
        hidden_size: int = 0,
    ) -> None:
        self._mel_decoders = mel_decoders
        self._decoders = {kind: decoder + vocos for kind, decoder in mel_decoders.items()}
        self._to_mel = {kind: _runner(chain, device) for kind, chain in mel_decoders.items()}
        self._to_hops = {kind: _runner(chain, device) for kind, chain in self._decoders.items()}
        self._fsq = fsq
        self._config = config
        self._hidden_size = hidden_size
        self.device = device

    @property
    def input_kinds(self) -> tuple[VocoderInput, ...]:
        """What it can decode, the default first."""
        return tuple(self._mel_decoders)

    @property
    def spec(self) -> VocoderSpec:
        """Declared context and rates; the context is enough for every input kind."""
        contexts = [_frame_context(chain.context) for chain in self._decoders.values()]
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

    def blank_frames(self, length: int, kind: VocoderInput) -> Tensor:
        """Frames that say nothing, of the right type and width, [length, width]."""
        if kind == "hidden":
            return torch.zeros(length, self._hidden_size, device=self.device)
        assert self._fsq is not None, "a codes decoder comes with its quantiser"
        shape = (length, self._fsq.num_codebooks)
        return torch.zeros(shape, dtype=torch.int32, device=self.device)

    def mel(self, windows: Sequence[Window], kind: VocoderInput) -> list[Tensor]:
        """Log-mel [MEL_PER_FRAME * frames, num_mels] of what each window wants."""
        mel, _ = self._run(self._to_mel[kind], windows, kind)
        return mel

    def decode(
        self, windows: Sequence[Window], kind: VocoderInput
    ) -> tuple[list[Tensor], list[StreamState | None]]:
        """Samples of what each window wants, as if it were alone.

        Returns:
            float32 [len(wanted) * samples_per_frame] each, less `tail_samples` when `wanted`
            ends where its window does; and the states of those that keep one.
        """
        hops, states = self._run(self._to_hops[kind], windows, kind)
        samples = []
        for window, out in zip(windows, hops, strict=True):
            # The last hop would need frames beyond the window.
            ends_window = window.wanted.end == window.start + len(window.frames)
            samples.append((out[:-1] if ends_window else out).flatten())
        return samples, states

    def _run(
        self, chain: Chain | CpuChain, windows: Sequence[Window], kind: VocoderInput
    ) -> tuple[list[Tensor], list[StreamState | None]]:
        rows = [
            Row(
                _mel_span(Span(window.start, window.start + len(window.frames))),
                _mel_span(window.wanted),
                window.state,
                window.keep_state,
            )
            for window in windows
        ]
        unread = [
            row.first_input // MEL_PER_FRAME - w.start for row, w in zip(rows, windows, strict=True)
        ]
        frames = [window.frames[count:] for window, count in zip(windows, unread, strict=True)]
        features = self.features(torch.cat(frames), kind)
        counts = [MEL_PER_FRAME * len(part) for part in frames]
        inputs = [
            part[row.first_input % MEL_PER_FRAME :]
            for part, row in zip(torch.split(features, counts), rows, strict=True)
        ]
        return chain(inputs, rows)

    def chain(self, kind: VocoderInput) -> Chain:
        """The layers from features to hops of samples."""
        return self._decoders[kind]

    def features(self, frames: Tensor, kind: VocoderInput) -> Tensor:
        """Frames [T, width] to features [MEL_PER_FRAME * T, features], what the layers read."""
        frames = frames.to(self.device)
        if kind == "codes":
            assert self._fsq is not None, "a codes decoder comes with its quantiser"
            features = self._fsq(frames.long())
        else:
            features = frames.float()
        return features.reshape(-1, features.shape[1] // MEL_PER_FRAME)


def _runner(chain: Chain, device: torch.device) -> Chain | CpuChain:
    """What runs a chain on a device. Compiled kernels are imported where they run."""
    if device.type != "cpu":
        return chain
    from .cpu_chain import CpuChain

    return CpuChain(chain)


def _mel_span(frames: Span) -> Span:
    return Span(MEL_PER_FRAME * frames.start, MEL_PER_FRAME * frames.end)


def _frame_context(mel: Context) -> Context:
    """Context in frames: what a frame's first mel frame reaches back, and its last ahead."""
    return Context(-(-mel.left // MEL_PER_FRAME), (mel.right + 1) // MEL_PER_FRAME)


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
    decoders: dict[VocoderInput, Chain] = {}
    fsq, hidden_size = None, 0
    if checkpoint.has("Decoder.safetensors"):
        with checkpoint.tensors("Decoder.safetensors", dtype=torch.float32) as file:
            decoders["hidden"] = load_mel_decoder(file, config.decoder, config.num_mels, placement)
            hidden_size = MEL_PER_FRAME * file.shape("decoder.conv_in.0.weight")[1]
    if checkpoint.has("DVAE.safetensors"):
        with checkpoint.tensors("DVAE.safetensors", dtype=torch.float32) as file:
            decoders["codes"] = load_mel_decoder(file, config.decoder, config.num_mels, placement)
            projections = load_projections(file, config, "project_out")
        fsq = FSQDecoder(config, projections, placement.device)
        if fsq.num_codebooks != checkpoint.gpt.num_vq:
            raise CheckpointError(
                f"{checkpoint.asset}: the vocoder takes {fsq.num_codebooks} codes a frame, "
                f"the speech model gives {checkpoint.gpt.num_vq} (num_vq)"
            )
    if not decoders:
        raise CheckpointError(f"{checkpoint.asset} has neither Decoder nor DVAE.safetensors")
    with checkpoint.tensors("Vocos.safetensors", dtype=torch.float32) as file:
        vocos = load_vocos(file, config, placement)
    return FrameVocoder(decoders, fsq, vocos, config, placement.device, hidden_size)
