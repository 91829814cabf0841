"""A real executor behind its work queue speaks as it does when every step is waited for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.output import AudioChunk, SpeechResult
from stretto.engine.request import SamplingParams, SpeechRequest
from stretto.model_executor.executor import ExecutorConfig, LocalExecutor
from stretto.model_executor.transfer import HostCopy
from stretto.model_executor.vocoder_stream import DeviceQueue, PendingAudio, SideStream
from tests.model_executor.tiny import ASSETS

CPU = torch.device("cpu")
TEXTS = ("Hello there.", "One, two, three, four.", "Again.")


@pytest.fixture(scope="module")
def executor() -> LocalExecutor:
    config = ExecutorConfig(model=str(ASSETS / "ckpt"), kv_cache_memory="2MiB", max_num_seqs=2)
    return LocalExecutor(config)


def speak(
    executor: LocalExecutor, depth: int | None, *, graphs: bool = False
) -> dict[str, SpeechResult]:
    """Three streams of the tiny checkpoint, joining one after the other; None waits for steps."""
    executor._queue = executor._thread = executor._graphs = None
    if graphs:
        executor._graphs = executor._create_graphs(executor._vocoder._vocoder)
    if depth is not None:
        executor._queue = DeviceQueue(executor._runner, executor._launch_vocoder, CPU, depth=depth)
    core = assemble_core(executor, EngineConfig(max_num_seqs=2, warmup=False))
    chunks: dict[str, list[AudioChunk]] = {}
    for index, text in enumerate(TEXTS):
        sampling = SamplingParams(max_new_tokens=8 + 6 * index, min_new_tokens=6)
        request = SpeechRequest(text=text, seed=index, sampling=sampling)
        core.add_request(f"r{index}", core.processor.process(request))
        for chunk in core.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    for _ in range(500):
        if not core.has_work:
            break
        for chunk in core.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    core.check_integrity()
    return {request_id: SpeechResult.from_chunks(parts) for request_id, parts in chunks.items()}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("graphs", [False, True])
def test_queued_steps_speak_the_same(executor: LocalExecutor, graphs: bool) -> None:
    waited, queued = speak(executor, None), speak(executor, 1, graphs=graphs)
    assert queued.keys() == waited.keys() == {"r0", "r1", "r2"}
    for request_id, result in waited.items():
        other = queued[request_id]
        assert (other.finish_reason, other.metrics.frames) == (
            result.finish_reason,
            result.metrics.frames,
        )
        np.testing.assert_allclose(other.audio, result.audio, atol=1e-5)


def test_without_cuda_the_side_stream_is_the_only_one() -> None:
    tensor = torch.arange(3.0)
    with SideStream(CPU).reading([tensor]):
        doubled = tensor * 2
    audio = PendingAudio((HostCopy(doubled), HostCopy(tensor)))
    assert audio.is_done
    assert [chunk.tolist() for chunk in audio.wait()] == [[0.0, 2.0, 4.0], [0.0, 1.0, 2.0]]
