"""A bad tensor file is refused with its name; weight norm is folded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stretto.engine.errors import CheckpointError
from stretto.model_executor.tensor_file import TensorFile


def write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def test_reads_and_converts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", w=torch.ones(2, 3), ids=torch.arange(3))
    with TensorFile(path, dtype=torch.bfloat16) as file:
        assert file.names == {"w", "ids"}
        assert file.shape("w") == (2, 3)
        assert file.get("w", (2, None)).dtype == torch.bfloat16
        assert file.get("ids").dtype == torch.int64
        assert file.get_optional("absent") is None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing file .*nowhere"):
        TensorFile(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 40, 200])
def test_broken_file(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.safetensors", w=torch.ones(20, 30))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a readable"):
        TensorFile(path)


def test_missing_and_misshapen_tensor(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", w=torch.ones(2, 3))
    with TensorFile(path) as file:
        with pytest.raises(CheckpointError, match="missing tensor v"):
            file.get("v")
        with pytest.raises(CheckpointError, match=r"tensor w has shape \(2, 3\), expected \(\?, 4"):
            file.get("w", (None, 4))


def test_weight_norm_is_folded_as_torch_does(tmp_path: Path) -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 7, bias=False))
    with torch.no_grad():
        layer.parametrizations["weight"].original0.mul_(1.7)
    tensors = {f"head.{name}": value.detach() for name, value in layer.state_dict().items()}
    path = write(tmp_path / "a.safetensors", **tensors)
    with TensorFile(path) as file:
        torch.testing.assert_close(file.folded_weight("head", (7, 5)), layer.weight.detach())


def test_folded_weight_is_taken_as_it_is(tmp_path: Path) -> None:
    weight = torch.randn(7, 5)
    path = write(tmp_path / "a.safetensors", **{"head.weight": weight})
    with TensorFile(path) as file:
        assert torch.equal(file.folded_weight("head", (7, 5)), weight)
        with pytest.raises(CheckpointError, match="missing tensor other"):
            file.folded_weight("other", (7, 5))
