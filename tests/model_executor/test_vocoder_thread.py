"""The vocoder on a thread of its own: the same audio, errors that arrive, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from torch import Tensor

from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.output import AudioChunk, SpeechResult
from stretto.engine.request import SamplingParams, SpeechRequest
from stretto.model_executor import executor as executor_module
from stretto.model_executor.executor import ExecutorConfig, LocalExecutor
from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoder_thread import ThreadedAudio, ThreadQueue
from stretto.model_executor.vocoder_wait import is_waited_for
from stretto.scheduler.interfaces import VocoderBatch, VocoderJob
from tests.model_executor.tiny import ASSETS

TEXTS = ("Hello there.", "One, two, three, four.", "Again.")
Load = Callable[[int], LocalExecutor]


def load_tiny() -> LocalExecutor:
    config = ExecutorConfig(
        model=str(ASSETS / "ckpt"), kv_cache_memory="2MiB", max_num_seqs=2, num_threads=1
    )
    return LocalExecutor(config)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads the tiny checkpoint as on a machine with so many cores."""
    loaded: list[LocalExecutor] = []

    def load_on(cores: int) -> LocalExecutor:
        monkeypatch.setattr(executor_module, "_num_cores", lambda: cores)
        loaded.append(load_tiny())
        return loaded[-1]

    yield load_on
    for executor in loaded:
        executor.close()


def make_core(executor: LocalExecutor) -> EngineCore:
    config = EngineConfig(max_num_seqs=2, first_chunk_frames=2, chunk_growth=1, warmup=False)
    return assemble_core(executor, config)


def begin(core: EngineCore, index: int) -> None:
    sampling = SamplingParams(max_new_tokens=8 + 6 * index, min_new_tokens=6)
    request = SpeechRequest(text=TEXTS[index], seed=index, sampling=sampling)
    core.add_request(f"r{index}", core.processor.process(request))


def finish(core: EngineCore, chunks: list[AudioChunk]) -> dict[str, SpeechResult]:
    for _ in range(5000):
        if not core.has_work:
            break
        chunks += core.step()
    core.check_integrity()
    owned: dict[str, list[AudioChunk]] = {}
    for chunk in chunks:
        owned.setdefault(chunk.request_id, []).append(chunk)
    for parts in owned.values():
        assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    return {request_id: SpeechResult.from_chunks(parts) for request_id, parts in owned.items()}


def speak(executor: LocalExecutor) -> dict[str, SpeechResult]:
    """Three streams in small chunks, joining one after the other."""
    core, chunks = make_core(executor), []
    for index in range(len(TEXTS)):
        begin(core, index)
        chunks += core.step()
    return finish(core, chunks)


def test_there_is_a_thread_where_there_is_a_core_for_it(load: Load) -> None:
    assert load(1).work_queue is None
    assert isinstance(load(2).work_queue, ThreadQueue)


def test_the_same_audio_as_between_the_steps(load: Load) -> None:
    between, beside = speak(load(1)), speak(load(2))
    assert between.keys() == beside.keys() == {"r0", "r1", "r2"}
    for request_id, result in between.items():
        np.testing.assert_array_equal(beside[request_id].audio, result.audio)
        assert beside[request_id].finish_reason == result.finish_reason


@pytest.mark.parametrize("steps", range(2, 12, 3))
def test_abort_while_the_thread_is_busy(load: Load, steps: int) -> None:
    executor = load(2)
    expected = speak(executor)["r2"].audio
    core, chunks = make_core(executor), []
    begin(core, 1)
    begin(core, 2)
    for _ in range(steps):
        chunks += core.step()
    core.abort("r1")
    ends = finish(core, chunks)
    assert ends["r1"].finish_reason == "abort"
    np.testing.assert_array_equal(ends["r2"].audio, expected)


def test_a_state_outlives_no_abort(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is still being decoded when its request ends leaves nothing behind."""
    executor = load(2)
    entered, may_go = threading.Event(), threading.Event()
    decode = VocoderRunner.decode

    def slow(self: VocoderRunner, windows: list[Tensor], jobs: list[VocoderJob]) -> object:
        if jobs[0].start:  # a beginning is waited for, and there would be no one to let it go
            entered.set()
            assert may_go.wait(60)
        return decode(self, windows, jobs)

    monkeypatch.setattr(VocoderRunner, "decode", slow)
    core, chunks = make_core(executor), []
    begin(core, 2)
    while not entered.is_set():
        chunks += core.step()
    core.abort("r2")
    may_go.set()
    assert finish(core, chunks)["r2"].finish_reason == "abort"


def job(start: int, end: int, ahead: int = 12, *, is_last: bool = False) -> VocoderJob:
    return VocoderJob("s", start, end, max(0, start - 20), end + ahead, is_last=is_last)


def test_small_beginnings_are_waited_for_and_nothing_else() -> None:
    first, later = job(0, 7), job(7, 16)
    assert is_waited_for(VocoderBatch((first,)), 1)
    assert is_waited_for(VocoderBatch((first, later)), 2)
    assert not is_waited_for(VocoderBatch((first,)), 3)
    assert not is_waited_for(VocoderBatch((later,)), 1)
    assert not is_waited_for(VocoderBatch((first, job(30, 78))), 2)
    assert not is_waited_for(VocoderBatch((job(0, 40, 0, is_last=True),)), 1)


def test_a_beginning_is_done_on_return(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second batch waits to be let go; the first does not return before it is done."""
    executor = load(2)
    launched: list[tuple[int, bool]] = []
    may_go = threading.Event()
    decode, launch = VocoderRunner.decode, ThreadQueue.launch_vocoder

    def slow(self: VocoderRunner, windows: list[Tensor], jobs: list[VocoderJob]) -> object:
        assert jobs[0].start == 0 or may_go.wait(60)
        return decode(self, windows, jobs)

    def note(self: ThreadQueue, batch: VocoderBatch) -> ThreadedAudio:
        audio = launch(self, batch)
        launched.append((batch.jobs[0].start, audio.is_done))
        may_go.set()
        return audio

    monkeypatch.setattr(VocoderRunner, "decode", slow)
    monkeypatch.setattr(ThreadQueue, "launch_vocoder", note)
    core, chunks = make_core(executor), []
    begin(core, 2)
    while len(launched) < 1:
        chunks += core.step()
    may_go.clear()
    finish(core, chunks)
    assert launched[0] == (0, True)
    assert launched[1][0] > 0
    assert not launched[1][1]


def test_an_error_of_the_thread_ends_its_request(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = load(2)

    def fail(*_: object) -> None:
        raise RuntimeError("no sound")

    with monkeypatch.context() as broken:
        broken.setattr(VocoderRunner, "decode", fail)
        ends = speak(executor)
    assert {result.finish_reason for result in ends.values()} == {"error"}
    assert {result.finish_reason for result in speak(executor).values()} <= {"stop", "length"}


def test_closing_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_num_cores", lambda: 2)
    before = set(threading.enumerate())
    executor = load_tiny()
    executor.warmup()
    own = [t for t in set(threading.enumerate()) - before if t.name.startswith("stretto-vocoder")]
    executor.close()
    assert len(own) == 1
    assert not own[0].is_alive()
