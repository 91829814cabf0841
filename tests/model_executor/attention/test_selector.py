"""Choosing a backend: names, defaults, and clear words where one cannot run."""

from __future__ import annotations

import sys

import pytest
import torch

from stretto.model_executor.attention import varlen
from stretto.model_executor.attention.selector import create_attention
from tests.model_executor.attention.cases import CASES, Case

CPU = Case([(0, 1)]).shape()


@pytest.mark.parametrize("name", ["auto", "reference", "triton"])
def test_these_run_on_cpu(name: str) -> None:
    if name == "triton":
        pytest.importorskip("triton")
    case = CASES["one sequence"]
    out = case.run(create_attention(name, case.shape()))
    assert out.shape == (5, 2, 64)
    assert out.isfinite().all()


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"auto, .*reference.*triton.*got 'flash'"):
        create_attention("flash", CPU)


@pytest.mark.parametrize("name", ["varlen", "xformers"])
def test_backends_of_another_device_say_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"the {name} backend needs .*cuda"):
        create_attention(name, CPU)


def test_an_old_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    with pytest.raises(ValueError, match=f"torch {torch.__version__.split('+')[0]}.* no varlen"):
        varlen._load_function()


def test_a_torch_without_block_tables_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.nn.attention.varlen as module

    monkeypatch.setattr(module, "varlen_attn", lambda query, key, value: None)
    with pytest.raises(ValueError, match="takes no block_table"):
        varlen._load_function()
