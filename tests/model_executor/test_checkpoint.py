"""`--model` is resolved to a folder, and what the folder says becomes types or a clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stretto.engine.errors import CheckpointError, UnknownModelError
from stretto.model_executor.models.checkpoint import load_checkpoint, resolve_model

TINY = Path(__file__).parents[1] / "assets" / "chattts_tiny" / "ckpt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


def test_reads_the_published_layout() -> None:
    checkpoint = load_checkpoint(str(TINY))
    assert checkpoint.architecture == "ChatTTS"
    assert (checkpoint.gpt.hidden_size, checkpoint.gpt.head_dim) == (64, 16)
    assert checkpoint.vocoder.groups == 2
    assert checkpoint.has("Decoder.safetensors")
    with checkpoint.tensors("Embed.safetensors") as file:
        assert "emb_text.weight" in file


def test_reads_stretto_json(folder: Path) -> None:
    settings = {
        "architecture": "DefaultVoice",
        "vocoder": {
            "groups": 4,
            "residuals": 1,
            "decoder": {"dilation": 1, "conv_in_right": [1, 0], "block_right": [3, 0]},
            "vocos": {"embed_right": 2, "block_right": [1, 1]},
        },
    }
    (folder / "asset" / "stretto.json").write_text(json.dumps(settings))
    checkpoint = load_checkpoint(str(folder))
    assert checkpoint.architecture == "DefaultVoice"
    assert checkpoint.vocoder.decoder.conv_in_right == (1, 0)
    assert checkpoint.vocoder.vocos.embed_right == 2
    assert checkpoint.settings["vocoder"]["groups"] == 4


def test_default_is_packaged() -> None:
    assert resolve_model("default").parts[-2:] == ("assets", "default")


@pytest.mark.parametrize("model", ["no such thing", "/nowhere/at/all", "a/b/c", ""])
def test_unknown_model(model: str) -> None:
    with pytest.raises(UnknownModelError, match="model"):
        resolve_model(model)


@pytest.mark.parametrize("file", ["gpt/config.json", "gpt/model.safetensors", "Vocos.safetensors"])
def test_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / "asset" / file).unlink()
    with pytest.raises(CheckpointError, match=f"missing asset/{file}"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "JSON object"),
        ("{}", "must be a positive"),
        ('{"num_attention_heads": true}', "num_attention_heads must be"),
    ],
)
def test_malformed_config(folder: Path, text: str, message: str) -> None:
    (folder / "asset" / "gpt" / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder))


def test_malformed_vocoder_settings(folder: Path) -> None:
    (folder / "asset" / "stretto.json").write_text('{"vocoder": {"decoder": {"block_right": 3}}}')
    with pytest.raises(CheckpointError, match="malformed vocoder settings"):
        load_checkpoint(str(folder))


def test_hub_id_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    calls: list[bool] = []

    def snapshot_download(repo_id: str, *, local_files_only: bool = False, **_: object) -> str:
        calls.append(local_files_only)
        if local_files_only and len(calls) == 1:
            raise LocalEntryNotFoundError("not there yet")
        return str(TINY)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_checkpoint("someone/some-model").name == "someone/some-model"
    assert resolve_model("someone/some-model") == TINY
    assert calls == [True, False, True]


def test_hub_failure_is_an_unknown_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(repo_id: str, **_: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UnknownModelError, match="could not be fetched"):
        resolve_model("someone/some-model")
