"""What only a CUDA device can answer. Skipped elsewhere; the same code's logic is tested on CPU.

Backends against the reference, captured steps against eager ones, frames of the whole executor
against the CPU's, and that a decode step never waits for the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

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


def test_captured_steps_draw_what_eager_ones_draw() -> None:
    captured, eager = make_core("cuda"), make_core("cuda", eager=True)
    assert isinstance(captured.executor, LocalExecutor)
    assert captured.executor._runner._graphs.num_captured > 0, "warm-up captured nothing"
    for request_id, result in speak(captured).items():
        other = speak(eager)[request_id]
        assert result.metrics.frames == other.metrics.frames
        np.testing.assert_allclose(result.audio, other.audio, atol=1e-4)


def test_speaks_as_on_cpu() -> None:
    on_gpu, on_cpu = speak(make_core("cuda")), speak(make_core("cpu"))
    for request_id, result in on_gpu.items():
        assert result.metrics.frames == on_cpu[request_id].metrics.frames
        np.testing.assert_allclose(result.audio, on_cpu[request_id].audio, atol=1e-3)


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


@pytest.mark.parametrize("eager", [False, True])
def test_launching_never_waits_for_the_device(
    eager: bool, sync_warnings: list[warnings.WarningMessage]
) -> None:
    """Steps and vocoder batches are launched without a hidden synchronisation."""
    torch.cuda.set_sync_debug_mode("default")
    core = make_core("cuda", eager=eager)
    speak(core)  # allocate and compile everything once
    assert isinstance(core.executor, LocalExecutor)
    queue = core.executor.work_queue
    assert queue is not None
    launches = {"model": queue.launch_model, "vocoder": queue.launch_vocoder}
    waits: dict[str, list[str]] = {"model": [], "vocoder": []}

    def counted(kind: str) -> object:
        def launch(job: object) -> object:
            del sync_warnings[:]
            torch.cuda.set_sync_debug_mode("warn")
            pending = launches[kind](job)  # type: ignore[operator]
            torch.cuda.set_sync_debug_mode("default")
            waits[kind] += [str(w.message) for w in sync_warnings if "synchron" in str(w.message)]
            return pending

        return launch

    core._steps._launch = counted("model")  # type: ignore[assignment]
    core._batches._launch = counted("vocoder")  # type: ignore[assignment]
    speak(core)
    assert waits == {"model": [], "vocoder": []}
