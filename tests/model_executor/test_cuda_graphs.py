"""Buckets, padding and static inputs of captured steps; without CUDA the step runs directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stretto.model_executor.cuda_graphs import (
    Padding,
    StaticInputs,
    StepGraphs,
    decode_buckets,
    find_bucket,
    pad_rows,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("largest", [1, 3, 8, 16, 50, 64, 256, 300, 1024])
def test_buckets_reach_the_largest_batch_and_waste_little(largest: int) -> None:
    buckets = decode_buckets(largest)
    assert buckets[-1] == largest
    assert list(buckets) == sorted(set(buckets))
    for size in range(1, largest + 1):
        bucket = find_bucket(size, buckets)
        assert bucket is not None
        assert size <= bucket <= max(2 * size - 1, 1)


def test_no_bucket_for_more() -> None:
    assert find_bucket(9, (1, 2, 4, 8)) is None
    assert find_bucket(5, (1, 2, 4, 8)) == 8


def test_rows_and_columns_are_padded() -> None:
    array = np.array([[1, 2], [3, 4]], dtype=np.int32)
    grown = pad_rows(array, 3, Padding(fill=-1, width=4))
    assert grown.tolist() == [[1, 2, -1, -1], [3, 4, -1, -1], [-1, -1, -1, -1]]
    assert grown.dtype == np.int32
    with pytest.raises(ValueError, match="does not fit"):
        pad_rows(array, 1, Padding())


def test_inputs_keep_their_place() -> None:
    arrays = {
        "a": np.arange(3, dtype=np.float32),
        "flags": np.array([True, False, True]),
        "b": np.arange(6, dtype=np.int64).reshape(3, 2),
    }
    inputs = StaticInputs(arrays, CPU)
    places = {name: tensor.data_ptr() for name, tensor in inputs.tensors.items()}
    inputs.fill({**arrays, "a": arrays["a"] + 1})
    assert inputs.tensors["a"].tolist() == [1.0, 2.0, 3.0]
    assert inputs.tensors["flags"].tolist() == [True, False, True]
    assert inputs.tensors["b"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert places == {name: tensor.data_ptr() for name, tensor in inputs.tensors.items()}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"a": np.zeros(4, np.float32)}, "a"),
        ({"a": np.zeros(3, np.float64)}, "a"),
        ({"extra": np.zeros(3, np.float32)}, "extra"),
    ],
)
def test_other_shapes_are_refused(change: dict[str, npt.NDArray[Any]], wrong: str) -> None:
    arrays = {"a": np.zeros(3, np.float32)}
    inputs = StaticInputs(arrays, CPU)
    with pytest.raises(ValueError, match=wrong):
        inputs.fill({**arrays, **change})


class Adder:
    """A step: out = x + table[row], with a table that may move."""

    def __init__(self) -> None:
        self.table = torch.arange(4.0)
        self.sizes: list[int] = []
        self.graphs = StepGraphs(self.step, (1, 2, 4), CPU, lambda: [self.table])

    def step(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        self.sizes.append(len(tensors["x"]))
        return tensors["x"] + self.table[tensors["row"]]

    def run(self, x: list[float], rows: list[int]) -> list[float]:
        arrays: dict[str, npt.NDArray[Any]] = {
            "x": np.array(x, np.float32),
            "row": np.array(rows, np.int64),
        }
        paddings = {"x": Padding(), "row": Padding(3)}
        out: list[float] = self.graphs.run(arrays, paddings, len(x)).tolist()
        return out


def test_a_step_runs_at_its_buckets_size() -> None:
    adder = Adder()
    assert adder.run([10.0, 20.0, 30.0], [0, 1, 2]) == [10.0, 21.0, 32.0]
    assert adder.run([1.0, 1.0, 1.0, 1.0], [3, 2, 1, 0]) == [4.0, 3.0, 2.0, 1.0]
    assert adder.run([5.0], [2]) == [7.0]
    assert adder.graphs.num_captured == 2
    assert set(adder.sizes) == {4, 1}
    assert adder.graphs.fits(4)
    assert not adder.graphs.fits(5)


def test_graphs_are_captured_anew_when_what_they_point_to_moves() -> None:
    adder = Adder()
    adder.run([1.0], [0])
    adder.run([1.0, 2.0], [0, 0])
    assert adder.graphs.num_captured == 2
    adder.table = torch.full((4,), 100.0)
    assert adder.run([1.0], [0]) == [101.0]
    assert adder.graphs.num_captured == 1
