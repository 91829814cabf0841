"""What only a CUDA device can answer. Skipped elsewhere; the same code's logic is tested on CPU.

Backends against the reference, captured steps against eager ones, frames of the whole executor
against the CPU's, and that a decode step never waits for the device.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.output import AudioChunk, SpeechResult
from stretto.engine.request import SamplingParams, SpeechRequest
from stretto.model_executor.attention.selector import create_attention
from stretto.model_executor.executor import ExecutorConfig, LocalExecutor
from tests.model_executor.attention.cases import CASES, Case
from tests.model_executor.tiny import ASSETS

pytestmark = pytest.mark.gpu

TEXTS = ("Hello there.", "One, two, three, four.", "Again, and again.", "Yes.")

if importlib.util.find_spec("sentencex") is None:  # a GPU machine may not have it
    sys.modules["sentencex"] = ModuleType("sentencex")
    sys.modules["sentencex"].segment = lambda _, text: [text]  # type: ignore[attr-defined]


def make_core(device: str, *, eager: bool = False, backend: str = "auto") -> EngineCore:
    executor = LocalExecutor(
        ExecutorConfig(
            model=str(ASSETS / "ckpt"),
            device=device,
            dtype="float32",
            kv_cache_memory="8MiB",
            max_num_seqs=4,
            attention_backend=backend,
            enforce_eager=eager,
        )
    )
    return assemble_core(executor, EngineConfig(max_num_seqs=4, warmup=device == "cuda"))


def speak(core: EngineCore, frames: int = 24) -> dict[str, SpeechResult]:
    for index, text in enumerate(TEXTS):
        sampling = SamplingParams(max_new_tokens=frames + index, min_new_tokens=frames)
        request = SpeechRequest(text=text, seed=index, sampling=sampling)
        core.add_request(f"r{index}", core.processor.process(request))
    chunks: dict[str, list[AudioChunk]] = {}
    while core.has_work:
        for chunk in core.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    core.check_integrity()
    return {request_id: SpeechResult.from_chunks(parts) for request_id, parts in chunks.items()}


@pytest.mark.parametrize("name", ["triton", "varlen", "xformers"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_backends_equal_the_reference(name: str, case: Case, dtype: torch.dtype) -> None:
    shape = case.shape(dtype, "cuda")
    try:
        backend = create_attention(name, shape)
    except ValueError as error:
        pytest.skip(str(error))
    out = case.run(backend, dtype, "cuda")
    truth = case.run(create_attention("reference", shape), dtype, "cuda")
    torch.testing.assert_close(out, truth, atol=2e-2, rtol=2e-2)


def count_graphs(core: EngineCore) -> tuple[int, int]:
    """Captured decode steps and vocoder batches."""
    assert isinstance(core.executor, LocalExecutor)
    vocoder = core.executor._graphs
    return core.executor._runner._graphs.num_captured, vocoder.num_captured if vocoder else 0


def test_captured_work_gives_what_eager_work_gives() -> None:
    """Decode steps and vocoder batches, captured at warm-up and never later."""
    captured, eager = make_core("cuda"), make_core("cuda", eager=True)
    ready = count_graphs(captured)
    assert min(ready) > 0, "warm-up captured nothing"
    spoken, expected = speak(captured, 60), speak(eager, 60)
    assert count_graphs(captured) == ready, "service captured what warm-up should have"
    assert count_graphs(eager) == (0, 0)
    for request_id, result in spoken.items():
        other = expected[request_id]
        assert result.metrics.frames == other.metrics.frames
        np.testing.assert_allclose(result.audio, other.audio, atol=1e-4)


@pytest.fixture
def sync_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Warnings of operations that wait for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode("default")


def found_waits(caught: list[warnings.WarningMessage]) -> list[str]:
    """Of warnings, those of a wait; switching the mode on warns once that it is a prototype."""
    messages = [str(warning.message) for warning in caught]
    return [message for message in messages if "called a synchronizing" in message]


@pytest.mark.parametrize("eager", [False, True])
def test_launching_never_waits_for_the_device(
    eager: bool, sync_warnings: list[warnings.WarningMessage]
) -> None:
    """New sequences, steps (sampling and transfers both ways are part of them) and vocoder batches
    are launched without a hidden synchronisation."""
    torch.cuda.set_sync_debug_mode("default")
    core = make_core("cuda", eager=eager)
    speak(core)  # allocate and compile everything once
    assert isinstance(core.executor, LocalExecutor)
    queue = core.executor.work_queue
    assert queue is not None
    calls: Counter[str] = Counter()
    waits: list[str] = []

    def counted(kind: str, launch: Callable[..., Any]) -> Any:
        def call(*args: Any) -> Any:
            calls[kind] += 1
            del sync_warnings[:]
            torch.cuda.set_sync_debug_mode("warn")
            result = launch(*args)
            torch.cuda.set_sync_debug_mode("default")
            waits.extend(f"{kind}: {message}" for message in found_waits(sync_warnings))
            return result

        return call

    core._steps._launch = counted("model", queue.launch_model)
    core._batches._launch = counted("vocoder", queue.launch_vocoder)
    core.executor.add_sequence = counted(  # type: ignore[method-assign]
        "sequence", core.executor.add_sequence
    )
    speak(core)
    assert min(calls[kind] for kind in ("model", "vocoder", "sequence")) > 0
    assert waits == []


def test_a_hidden_synchronisation_would_be_counted(
    sync_warnings: list[warnings.WarningMessage],
) -> None:
    torch.ones(1, device="cuda").item()
    torch.ones(1000).to("cuda")
    assert len(found_waits(sync_warnings)) == 2


def test_a_streamed_text_is_the_whole_text_in_graphs() -> None:
    """Chunks through slots of states against one window, both captured."""
    audio = []
    for priority in ("interactive", "bulk"):
        core = make_core("cuda")
        sampling = SamplingParams(max_new_tokens=150, min_new_tokens=150)
        request = SpeechRequest(text=TEXTS[1], seed=1, sampling=sampling, priority=priority)
        core.add_request("r", core.processor.process(request))
        chunks = []
        while core.has_work:
            chunks += core.step()
        core.check_integrity()
        audio.append(SpeechResult.from_chunks(chunks).audio)
    np.testing.assert_allclose(audio[0], audio[1], atol=1e-4)


def test_speaks_as_on_cpu() -> None:
    """The last one: the CPU's kernels may have to be compiled first."""
    pytest.importorskip("numba", exc_type=ImportError)
    on_gpu, on_cpu = speak(make_core("cuda")), speak(make_core("cpu"))
    for request_id, result in on_gpu.items():
        assert result.metrics.frames == on_cpu[request_id].metrics.frames
        np.testing.assert_allclose(result.audio, on_cpu[request_id].audio, atol=1e-3)
