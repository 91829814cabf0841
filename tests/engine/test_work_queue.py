"""The core over an executor that queues its work: the same audio, one terminal event, no leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.output import AudioChunk, SpeechResult
from stretto.engine.request import SpeechRequest
from stretto.engine.work_queue import Done, InFlight
from stretto.model_executor.interfaces import FloatArray
from stretto.scheduler.interfaces import ModelRunnerOutput, SchedulerOutput, VocoderBatch
from tests.fake_executor import FakeExecutor, whole_audio


@dataclass
class Late:
    """Vocoder work that is done after it was asked for some times."""

    result: list[FloatArray] | Exception
    asks_left: int

    @property
    def is_done(self) -> bool:
        self.asks_left -= 1
        return self.asks_left < 0

    def wait(self) -> list[FloatArray]:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@dataclass
class Failed:
    """A step that fails when it is asked for."""

    error: Exception
    is_done: bool = True

    def wait(self) -> ModelRunnerOutput:
        raise self.error


@dataclass
class DelayedQueue:
    """Does the work at once, as a device would before anything launched later, and tells late."""

    executor: QueueingExecutor
    depth: int
    vocoder_asks: int
    max_batches: int = 2

    def launch_model(self, output: SchedulerOutput) -> Done[ModelRunnerOutput] | Failed:
        try:
            return Done(self.executor.execute_model(output), is_done=False)
        except RuntimeError as error:
            return Failed(error)

    def launch_vocoder(self, batch: VocoderBatch) -> Late:
        try:
            result: list[FloatArray] | Exception = self.executor.execute_vocoder(batch)
        except RuntimeError as error:
            result = error
        return Late(result, self.vocoder_asks)


class QueueingExecutor(FakeExecutor):
    """The fake with a queue."""

    def __init__(self, depth: int = 1, vocoder_asks: int = 2) -> None:
        super().__init__()
        self.work_queue = DelayedQueue(self, depth, vocoder_asks)


def make_core(executor: FakeExecutor, **fields: object) -> EngineCore:
    return assemble_core(executor, EngineConfig(**fields))  # type: ignore[arg-type]


def begin(core: EngineCore, request_id: str, text: str, **fields: object) -> None:
    request = SpeechRequest(text=text, seed=7, **fields)  # type: ignore[arg-type]
    core.add_request(request_id, core.processor.process(request))


def run(core: EngineCore, before: Sequence[AudioChunk] = ()) -> dict[str, list[AudioChunk]]:
    chunks: dict[str, list[AudioChunk]] = {}
    for chunk in before:
        chunks.setdefault(chunk.request_id, []).append(chunk)
    for _ in range(5000):
        if not core.has_work:
            break
        for chunk in core.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    assert not core.has_work, "hangs"
    core.check_integrity()
    for parts in chunks.values():
        assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    return chunks


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("vocoder_asks", [0, 3])
@pytest.mark.parametrize("num_blocks", [256, 30])
def test_the_same_audio_as_when_every_step_is_waited_for(
    depth: int, vocoder_asks: int, num_blocks: int
) -> None:
    texts = ["a @150|b @0|c @1|d @33", "short @4", "e @90|f @60", "stops at once @0"]
    results = {}
    for executor in (FakeExecutor(), QueueingExecutor(depth, vocoder_asks)):
        executor.num_kv_blocks = num_blocks
        core = make_core(executor, max_num_seqs=4)
        for index, text in enumerate(texts):
            begin(core, f"r{index}", text, priority="bulk" if index == 2 else "interactive")
        chunks = run(core)
        results[type(executor)] = {i: SpeechResult.from_chunks(c) for i, c in chunks.items()}
    direct, queued = results[FakeExecutor], results[QueueingExecutor]
    assert queued.keys() == direct.keys() == {f"r{i}" for i in range(len(texts))}
    for request_id, result in direct.items():
        np.testing.assert_array_equal(result.audio, queued[request_id].audio)
        assert result.finish_reason == queued[request_id].finish_reason


def test_streamed_equals_whole() -> None:
    executor = QueueingExecutor()
    core = make_core(executor)
    begin(core, "r", "a @150|b @20")
    result = SpeechResult.from_chunks(run(core)["r"])
    np.testing.assert_array_equal(result.audio, whole_audio(executor, "r", 2))


@pytest.mark.parametrize("steps", range(1, 24, 3))
def test_abort_with_work_in_flight(steps: int) -> None:
    core = make_core(QueueingExecutor())
    begin(core, "gone", "a @30|b @10")
    begin(core, "stays", "c @20")
    before = [chunk for _ in range(steps) for chunk in core.step()]
    core.abort("gone")
    ends = {request_id: parts[-1] for request_id, parts in run(core, before).items()}
    assert ends["stays"].finish_reason == "stop"
    assert ends["gone"].finish_reason in ("abort", "stop")


@pytest.mark.parametrize("stage", ["model", "vocoder"])
def test_work_that_fails_late_ends_its_requests_alone(stage: str) -> None:
    executor = QueueingExecutor()
    setattr(executor.faults, stage, "broken")
    core = make_core(executor)
    begin(core, "good", "fine @40")
    before = [chunk for _ in range(3) for chunk in core.step()]
    begin(core, "bad", "broken @20")
    chunks = run(core, before)
    assert chunks["bad"][-1].finish_reason == "error"
    # A step that fails takes all its sequences with it; a vocoder batch is tried again job by job.
    expected = "error" if stage == "model" else "stop"
    assert chunks["good"][-1].finish_reason == expected
    begin(core, "next", "fine @5")
    assert run(core)["next"][-1].finish_reason == "stop"


def test_in_flight_keeps_order_and_errors() -> None:
    def launch(job: int) -> Done[int]:
        if job < 0:
            raise ValueError("refused")
        return Done(job * 10, is_done=job > 1)

    jobs = InFlight(launch)
    seen = [jobs.is_oldest_done]
    jobs.launch(1)
    jobs.launch(2)
    with pytest.raises(ValueError, match="refused"):
        jobs.launch(-1)
    assert len(jobs) == 2
    seen.append(jobs.is_oldest_done)
    assert jobs.collect() == (1, 10)
    seen.append(jobs.is_oldest_done)
    assert jobs.collect() == (2, 20)
    assert seen == [False, False, True]
