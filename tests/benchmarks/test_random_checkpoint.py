"""The random checkpoint has the published names and sizes, and loads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from stretto.benchmarks import random_checkpoint as made
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoders.frame_vocoder import load_vocoder

TINY = Path(__file__).parents[1] / "assets" / "chattts_tiny" / "ckpt" / "asset"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("random")
    made.write_checkpoint(out, made.SIZES["tiny"])
    return out


@pytest.mark.parametrize(
    ("shapes", "tensors", "parameters"),
    [
        (made._gpt, 182, 188_775_168 + 24_576_000),
        (made._embed, 15, 36_399_234),
        (made._decoder, 115, 25_920_740),
        (made._dvae, 242, 15_083_472),
        (made._vocos, 83, 13_584_998),
    ],
)
def test_published_counts(shapes: object, tensors: int, parameters: int) -> None:
    drawn = shapes(made.SIZES["full"])  # type: ignore[operator]
    # Windows and filterbanks are buffers: published counts of Vocos and DVAE leave them out.
    buffers = sum(
        math.prod(shape)
        for name, shape in drawn.items()
        if "mel_spec" in name or name.endswith("window")
    )
    total = sum(math.prod(shape) for shape in drawn.values())
    assert len(drawn) == tensors
    assert parameters in (total, total - buffers)


@pytest.mark.parametrize(
    "file", ["gpt/model", "Embed", "Decoder", "DVAE", "Vocos"], ids=lambda file: Path(file).name
)
def test_names_are_those_of_the_reference(folder: Path, file: str) -> None:
    ours = load_file(folder / "asset" / f"{file}.safetensors")
    reference = load_file(TINY / f"{file}.safetensors")
    if file == "gpt/model":
        reference = {name: t for name, t in reference.items() if not name.startswith("layers.2.")}
    assert ours.keys() == reference.keys()
    assert all(tensor.isfinite().all() for tensor in ours.values())


def test_filterbank_is_the_published_one() -> None:
    reference = load_file(TINY / "DVAE.safetensors")["preprocessor_mel.mel_spec.mel_scale.fb"]
    torch.testing.assert_close(made.mel_filterbank(1024, 100, 24_000), reference, atol=1e-5, rtol=0)


def test_same_call_same_weights(folder: Path, tmp_path: Path) -> None:
    made.write_checkpoint(tmp_path, made.SIZES["tiny"])
    name = Path("asset") / "Embed.safetensors"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_it_loads(folder: Path) -> None:
    vocoder = load_vocoder(load_checkpoint(str(folder)))
    assert vocoder.input_kinds == ("hidden", "codes")


def test_tokenizer_covers_any_text_and_keeps_control_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "asset" / "tokenizer" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    assert tokenizer.get_vocab_size() == 2_000
    ids = tokenizer.encode("[Stts][spk_emb]Hello, 42!", add_special_tokens=False).ids
    assert ids[:2] == [2_000 - 50 + 3, 2_000 - 50 + 15]
    assert 100 not in ids
