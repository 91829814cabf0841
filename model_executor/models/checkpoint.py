"""Finding a model's folder and reading what its two JSON files say, into types.

A checkpoint is a folder in the layout that ChatTTS publishes: `asset/gpt/config.json`,
`asset/gpt/model.safetensors`, `asset/{Embed,Decoder,DVAE,Vocos}.safetensors`, `asset/tokenizer/`.
`asset/stretto.json`, where there is one, says what that layout cannot: another architecture, its
sampling, and paddings of the vocoder. This module reads no tensors and builds no models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...engine.errors import CheckpointError, UnknownModelError
from ..tensor_file import TensorFile

CHATTTS = "ChatTTS"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_PATTERNS = (
    "asset/gpt/*",
    "asset/*.safetensors",
    "asset/tokenizer/*",
    "asset/spk_stat.pt",
    "asset/stretto.json",
)
_REQUIRED = ("gpt/config.json", "gpt/model.safetensors", "Embed.safetensors", "Vocos.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig:
    """`asset/gpt/config.json`: the sizes of the Llama and its vocabularies."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    num_audio_tokens: int
    num_text_tokens: int
    num_vq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNeXtLayout:
    """Right (future) context in mel frames of each convolution; None is symmetric padding.

    The left padding is `(kernel - 1) * dilation - right`.
    """

    dilation: int = 2
    conv_in_right: tuple[int, ...] | None = None
    block_right: tuple[int, ...] | None = None
    out_conv_right: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VocosLayout:
    """Right context in mel frames of Vocos' convolutions; None is symmetric padding."""

    embed_right: int | None = None
    block_right: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderConfig:
    """What the tensors do not tell of a vocoder. The defaults are ChatTTS.

    Attributes:
        levels: FSQ levels of each latent dimension, all odd.
        groups: parts of the feature vector that are quantised separately.
        residuals: quantisers in a row, each `residual_scale` times finer, per group.
        residual_scale: 1/4 in the libraries in force when ChatTTS was released.
        bound_residual: whether the first residual is the bounded projection (same libraries).
    """

    levels: tuple[int, ...] = (5, 5, 5, 5)
    groups: int = 2
    residuals: int = 2
    residual_scale: float = 0.25
    bound_residual: bool = True
    sample_rate: int = 24_000
    hop_length: int = 256
    n_fft: int = 1024
    num_mels: int = 100
    decoder: ConvNeXtLayout = ConvNeXtLayout()
    vocos: VocosLayout = VocosLayout()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A model folder that has been looked into.

    Attributes:
        path: the folder that holds `asset/`.
        name: what users call the model.
        architecture: `ChatTTS` unless `asset/stretto.json` names another.
        settings: `asset/stretto.json` as it is; empty when there is none.
    """

    path: Path
    name: str
    architecture: str
    gpt: GPTConfig
    vocoder: VocoderConfig
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asset(self) -> Path:
        """The folder of the files."""
        return self.path / "asset"

    def has(self, file: str) -> bool:
        """True when `asset/{file}` exists."""
        return (self.asset / file).is_file()

    def tensors(self, file: str, *, dtype: torch.dtype | None = None) -> TensorFile:
        """`asset/{file}`, opened. See `TensorFile`."""
        return TensorFile(self.asset / file, dtype=dtype)


def load_checkpoint(model: str) -> Checkpoint:
    """Find `--model` and read its configuration.

    Args:
        model: `default` (the packaged voice), a folder, or a hub id such as `2Noise/ChatTTS`.

    Raises:
        UnknownModelError: no such folder, and no such model on the hub.
        CheckpointError: the folder is incomplete or a file is malformed.
    """
    path = resolve_model(model)
    missing = [file for file in _REQUIRED if not (path / "asset" / file).is_file()]
    if missing:
        names = ", ".join(f"asset/{file}" for file in missing)
        raise CheckpointError(f"{path} is no complete checkpoint: missing {names}")
    settings_path = path / "asset" / "stretto.json"
    settings = _read_object(settings_path) if settings_path.is_file() else {}
    return Checkpoint(
        path=path,
        name="default" if model == "default" else (model if _is_hub_id(model) else path.name),
        architecture=str(settings.get("architecture", CHATTTS)),
        gpt=_read_gpt_config(path / "asset" / "gpt" / "config.json"),
        vocoder=_parse_vocoder(settings.get("vocoder", {}), settings_path),
        settings=settings,
    )


def resolve_model(model: str) -> Path:
    """The folder of `--model`; a hub id is fetched once and found locally from then on.

    Raises:
        UnknownModelError: no such folder, and no such model on the hub.
    """
    if model == "default":
        return Path(__file__).parents[2] / "assets" / "default"
    path = Path(model).expanduser()
    if model and path.is_dir():
        return path.resolve()
    if not _is_hub_id(model):
        raise UnknownModelError(
            f"model {model!r} is neither 'default', a folder, nor a hub id (owner/name)",
            param="model",
        )
    return _local_snapshot(model) or _fetch_snapshot(model)


def _is_hub_id(model: str) -> bool:
    return _HUB_ID.fullmatch(model) is not None and not Path(model).expanduser().is_dir()


def _local_snapshot(hub_id: str) -> Path | None:
    """The snapshot fetched earlier, if it is complete: an interrupted one is fetched again."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None
    complete = all((path / "asset" / file).is_file() for file in _REQUIRED)
    return path if complete else None


def _fetch_snapshot(hub_id: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(_HUB_PATTERNS)))
    except Exception as error:  # the hub client raises its own, requests' and httpx's errors
        raise UnknownModelError(
            f"model {hub_id!r} is not a folder here and could not be fetched from the hub: {error}",
            param="model",
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


def _read_gpt_config(path: Path) -> GPTConfig:
    raw = _read_object(path)

    def integer(name: str, default: int | None = None) -> int:
        value = raw.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{path}: {name} must be a positive whole number, got {value!r}")
        return value

    def number(name: str, default: float) -> float:
        value = raw.get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise CheckpointError(f"{path}: {name} must be a positive number, got {value!r}")
        return float(value)

    heads, hidden_size = integer("num_attention_heads"), integer("hidden_size")
    return GPTConfig(
        hidden_size=hidden_size,
        intermediate_size=integer("intermediate_size"),
        num_hidden_layers=integer("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=integer("num_key_value_heads", heads),
        head_dim=integer("head_dim", hidden_size // heads),
        max_position_embeddings=integer("max_position_embeddings", 4096),
        rms_norm_eps=number("rms_norm_eps", 1e-6),
        rope_theta=number("rope_theta", 10_000.0),
        num_audio_tokens=integer("num_audio_tokens"),
        num_text_tokens=integer("num_text_tokens"),
        num_vq=integer("num_vq", 4),
    )


def _parse_vocoder(raw: Mapping[str, Any], path: Path) -> VocoderConfig:
    """`asset/stretto.json`'s `vocoder` object; keys it does not have keep ChatTTS' values."""
    decoder, vocos = raw.get("decoder", {}), raw.get("vocos", {})
    names = (
        *("residual_scale", "bound_residual", "sample_rate"),
        *("groups", "residuals", "hop_length", "n_fft", "num_mels"),
    )
    try:
        return VocoderConfig(
            levels=tuple(raw.get("levels", VocoderConfig().levels)),
            **{name: raw[name] for name in names if name in raw},
            decoder=ConvNeXtLayout(
                dilation=int(decoder.get("dilation", 2)),
                conv_in_right=_rights(decoder, "conv_in_right"),
                block_right=_rights(decoder, "block_right"),
                out_conv_right=decoder.get("out_conv_right"),
            ),
            vocos=VocosLayout(
                embed_right=vocos.get("embed_right"), block_right=_rights(vocos, "block_right")
            ),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: malformed vocoder settings: {error}") from error


def _rights(raw: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(int(value) for value in raw[name]) if name in raw else None
