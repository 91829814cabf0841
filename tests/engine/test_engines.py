"""The offline and asynchronous engines over the fake executor: streams, aborts, ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from stretto.engine.async_engine import AsyncSpeechEngine
from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.errors import EngineDeadError, RequestError, UnknownVoiceError
from stretto.engine.offline import SpeechEngine
from stretto.engine.output import AudioChunk, SpeechResult
from stretto.engine.request import SpeechRequest
from stretto.scheduler.interfaces import ModelRunnerOutput, SchedulerOutput
from tests.fake_executor import ENDLESS, FakeExecutor, build_fake_core, whole_audio

TIMEOUT_S = 60


@pytest.fixture
def engine() -> Iterator[SpeechEngine]:
    with SpeechEngine(build=build_fake_core, max_num_seqs=8) as engine:
        yield engine
        engine.check_integrity()


def executor_of(engine: SpeechEngine | AsyncSpeechEngine) -> FakeExecutor:
    assert engine._core is not None
    assert isinstance(engine._core.executor, FakeExecutor)
    return engine._core.executor


# Offline.


def test_generate_answers_in_order(engine: SpeechEngine) -> None:
    texts = [f"text @{count}" for count in (30, 3, 17)]
    results = engine.generate(texts, seed=3)
    assert [result.metrics.frames for result in results] == [30, 3, 17]
    assert all(result.finish_reason == "stop" for result in results)


def test_one_text_or_request_is_enough(engine: SpeechEngine) -> None:
    assert len(engine.generate("one @4")) == 1
    assert len(engine.generate(SpeechRequest(text="one @4"))) == 1
    assert engine.generate([]) == []


def test_generate_collects_what_stream_yields(engine: SpeechEngine) -> None:
    request = SpeechRequest(text="some text @60|more @10", seed=5)
    whole = engine.generate(request)[0]
    chunks = list(engine.stream(request))
    assert len(chunks) > 2
    np.testing.assert_array_equal(whole.audio, SpeechResult.from_chunks(chunks).audio)


def test_the_default_seed_is_drawn_and_reported(engine: SpeechEngine) -> None:
    first, second = engine.generate(["one @20", "one @20"])
    assert first.metrics.seed != second.metrics.seed
    again = engine.generate("one @20", seed=first.metrics.seed)[0]
    np.testing.assert_array_equal(first.audio, again.audio)


def test_an_engine_can_have_a_seed_and_a_voice() -> None:
    with SpeechEngine(build=build_fake_core, seed=11, default_voice="beta") as engine:
        plain = engine.generate("one @20")[0]
        told = engine.generate("one @20", seed=11, voice="beta")[0]
        other = engine.generate("one @20", seed=11, voice="alpha")[0]
    assert plain.metrics.seed == 11
    np.testing.assert_array_equal(plain.audio, told.audio)
    assert not np.array_equal(plain.audio, other.audio)


def test_one_refused_text_stops_the_call(engine: SpeechEngine) -> None:
    with pytest.raises(RequestError, match="speakable"):
        engine.generate(["fine @400", "!!!", "fine @400"])
    assert engine.generate("fine @3")[0].finish_reason == "stop"


def test_closing_a_stream_early_aborts_it() -> None:
    with SpeechEngine("slow", build=build_fake_core) as slow:
        stream = slow.stream(ENDLESS)
        next(stream)
        stream.close()
        assert list(stream) == []
        assert slow.stats().num_requests_running == 0
        slow.check_integrity()


def test_several_threads_may_speak(engine: SpeechEngine) -> None:
    results: list[SpeechResult] = []
    threads = [
        threading.Thread(target=lambda: results.extend(engine.generate("text @40", seed=1)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result.audio, results[0].audio)


def test_close_ends_streams_with_abort() -> None:
    engine = SpeechEngine("slow", build=build_fake_core)
    stream = engine.stream(ENDLESS)
    engine.close()
    engine.close()
    assert list(stream)[-1].finish_reason == "abort"
    assert executor_of(engine).is_closed
    with pytest.raises(EngineDeadError):
        engine.generate("text")


def test_warm_up_is_run_before_the_first_request() -> None:
    with SpeechEngine(build=build_fake_core) as engine:
        assert executor_of(engine).is_warm


def test_voices_are_listed(engine: SpeechEngine) -> None:
    assert [voice.id for voice in engine.voices] == ["alpha", "beta"]
    assert engine.sample_rate == 800


# A core whose own bookkeeping fails.


class _BrokenExecutor(FakeExecutor):
    """Answers with nothing, which the scheduler takes for a defect."""

    broken = True

    def execute_model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        result = super().execute_model(output)
        return ModelRunnerOutput(()) if self.broken else result


def test_a_defect_ends_requests_with_an_error_and_never_hangs() -> None:
    def build(config: EngineConfig) -> EngineCore:
        core = build_fake_core(config)
        core.executor = _BrokenExecutor()
        return core

    with SpeechEngine(build=build) as engine:
        result = engine.generate(SpeechRequest(text="text @5"))[0]
        assert result.finish_reason == "error"


class _UnforgettingExecutor(FakeExecutor):
    """Cannot give anything back, so that the core cannot clean up after a failure."""

    def remove_sequence(self, seq_id: str) -> None:
        raise RuntimeError("stuck")


def test_an_engine_beyond_repair_ends_its_requests_and_says_that_it_is_dead() -> None:
    def build(config: EngineConfig) -> EngineCore:
        return assemble_core(_UnforgettingExecutor(), config)

    engine = SpeechEngine(build=build, warmup=False)
    assert engine.generate("one @30")[0].finish_reason == "error"
    with pytest.raises(EngineDeadError):
        engine.generate("text")
    engine.close()


# Asynchronous.


@pytest.fixture
async def async_engine() -> AsyncIterator[AsyncSpeechEngine]:
    async with AsyncSpeechEngine(build=build_fake_core, max_num_seqs=8) as engine:
        yield engine
        await engine.check_integrity()


@pytest.fixture
async def slow_engine() -> AsyncIterator[AsyncSpeechEngine]:
    async with AsyncSpeechEngine("slow", build=build_fake_core) as engine:
        yield engine
        await engine.check_integrity()


async def collect(stream: AsyncIterator[AudioChunk]) -> list[AudioChunk]:
    return [chunk async for chunk in stream]


async def test_many_streams_run_at_once(async_engine: AsyncSpeechEngine) -> None:
    streams = [
        collect(async_engine.stream(f"text @{40 + index}", request_id=f"r{index}"))
        for index in range(6)
    ]
    for index, chunks in enumerate(await asyncio.gather(*streams)):
        audio = np.concatenate([chunk.audio for chunk in chunks])
        np.testing.assert_array_equal(audio, whole_audio(executor_of(async_engine), f"r{index}"))
    stats = await async_engine.stats()
    assert stats.frames_generated == sum(40 + index for index in range(6))


async def test_async_generate(async_engine: AsyncSpeechEngine) -> None:
    result = await async_engine.generate("text @12", voice="beta", speed=1.0, seed=4)
    assert (result.metrics.frames, result.metrics.seed) == (12, 4)


async def test_errors_of_a_request_raise(async_engine: AsyncSpeechEngine) -> None:
    with pytest.raises(UnknownVoiceError):
        await async_engine.generate("text", voice="nobody")
    with pytest.raises(RequestError, match="speakable"):
        await async_engine.generate("...")


async def test_an_unforeseen_failure_of_the_frontend_is_the_terminal_chunk(
    async_engine: AsyncSpeechEngine,
) -> None:
    result = await async_engine.generate("crash-encode")
    assert (result.finish_reason, result.error_code) == ("error", "internal_error")


async def test_abort_by_id(slow_engine: AsyncSpeechEngine) -> None:
    reasons = []
    async for chunk in slow_engine.stream(ENDLESS, request_id="r"):
        reasons.append(chunk.finish_reason)
        await slow_engine.abort("r")
    assert reasons[-1] == "abort"
    await slow_engine.abort("r")


async def test_abort_before_the_first_chunk(slow_engine: AsyncSpeechEngine) -> None:
    stream = slow_engine.stream(ENDLESS, request_id="r")
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await slow_engine.abort("r")
    chunk = await asyncio.wait_for(first, TIMEOUT_S)
    rest = await collect(stream)
    assert [chunk, *rest][-1].finish_reason == "abort"


async def test_leaving_a_stream_aborts_it(slow_engine: AsyncSpeechEngine) -> None:
    stream = slow_engine.stream(ENDLESS)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert (await slow_engine.stats()).num_requests_running == 0


async def test_cancelling_a_reader_aborts_its_request(slow_engine: AsyncSpeechEngine) -> None:
    started = asyncio.Event()

    async def read() -> None:
        async for _ in slow_engine.stream(ENDLESS):
            started.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(started.wait(), TIMEOUT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await slow_engine.stats()).num_requests_running == 0


async def test_an_id_in_use_is_refused_and_the_first_goes_on(
    slow_engine: AsyncSpeechEngine,
) -> None:
    stream = slow_engine.stream(ENDLESS, request_id="r")
    await anext(stream)
    with pytest.raises(RequestError, match="in use"):
        await slow_engine.generate("other @3", request_id="r")
    assert not (await anext(stream)).is_last
    await slow_engine.abort("r")
    assert (await collect(stream))[-1].finish_reason == "abort"


async def test_close_ends_streams_and_refuses_new_ones() -> None:
    engine = AsyncSpeechEngine("slow", build=build_fake_core)
    with pytest.raises(EngineDeadError):
        await engine.generate("text")
    await engine.start()
    await engine.start()
    assert engine.is_ready
    stream = engine.stream(ENDLESS)
    await anext(stream)
    await engine.close()
    assert (await collect(stream))[-1].finish_reason == "abort"
    assert not engine.is_ready


@pytest.mark.parametrize("engine", [SpeechEngine, AsyncSpeechEngine])
def test_settings_beside_a_config_are_not_ignored(
    engine: type[SpeechEngine | AsyncSpeechEngine],
) -> None:
    with pytest.raises(TypeError, match="seed"):
        engine(config=EngineConfig(), build=build_fake_core, seed=3)
