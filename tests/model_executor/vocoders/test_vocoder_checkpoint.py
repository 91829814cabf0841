"""A checkpoint that the vocoder cannot be built from is refused with the cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stretto.engine.errors import CheckpointError
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoders.frame_vocoder import load_vocoder
from tests.model_executor.vocoders.vocoder_support import TINY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "ckpt", tmp_path / "tiny"))


def change(folder: Path, file: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "asset" / file
    tensors = load_file(path)
    edit(tensors)
    path.unlink()
    save_file(tensors, path)


def set_vocoder(folder: Path, **vocoder: object) -> None:
    (folder / "asset" / "stretto.json").write_text(json.dumps({"vocoder": vocoder}))


def test_missing_tensor(folder: Path) -> None:
    change(folder, "Decoder.safetensors", lambda tensors: tensors.pop("out_conv.weight"))
    with pytest.raises(CheckpointError, match=r"Decoder\.safetensors: missing tensor out_conv"):
        load_vocoder(load_checkpoint(str(folder)))


def test_misshapen_tensor(folder: Path) -> None:
    change(
        folder,
        "Vocos.safetensors",
        lambda tensors: tensors.update({"head.out.weight": torch.zeros(4, 4)}),
    )
    with pytest.raises(CheckpointError, match=r"head\.out\.weight has shape \(4, 4\), expected"):
        load_vocoder(load_checkpoint(str(folder)))


def test_without_a_decoder_codes_are_the_default(folder: Path) -> None:
    (folder / "asset" / "Decoder.safetensors").unlink()
    assert load_vocoder(load_checkpoint(str(folder))).input_kinds == ("codes",)
    (folder / "asset" / "DVAE.safetensors").unlink()
    with pytest.raises(CheckpointError, match="neither Decoder nor DVAE"):
        load_vocoder(load_checkpoint(str(folder)))


def test_too_few_right_contexts(folder: Path) -> None:
    set_vocoder(folder, decoder={"block_right": [1]})
    with pytest.raises(CheckpointError, match="gives 1 right contexts, too few"):
        load_vocoder(load_checkpoint(str(folder)))


def test_other_number_of_codebooks(folder: Path) -> None:
    set_vocoder(folder, groups=2, residuals=1)
    with pytest.raises(CheckpointError, match="takes 2 codes a frame, the speech model gives 4"):
        load_vocoder(load_checkpoint(str(folder)))


def test_paddings_of_the_settings_change_the_context(folder: Path) -> None:
    symmetric = load_vocoder(load_checkpoint(str(folder))).spec
    set_vocoder(
        folder,
        decoder={"conv_in_right": [0, 0], "block_right": [0, 0], "out_conv_right": 0},
        vocos={"embed_right": 0, "block_right": [0, 0]},
    )
    causal = load_vocoder(load_checkpoint(str(folder))).spec
    assert causal.right_context == 1
    assert causal.left_context > symmetric.left_context
