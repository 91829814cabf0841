"""The core with a fake executor: one terminal event each, nothing leaks, streamed equals whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.engine.build import assemble_core
from stretto.engine.config import EngineConfig
from stretto.engine.core import EngineCore
from stretto.engine.errors import RequestError
from stretto.engine.output import AudioChunk, SpeechResult
from stretto.engine.request import SamplingParams, SpeechRequest
from tests.fake_executor import SAMPLE_RATE, FakeExecutor, whole_audio


def make_core(executor: FakeExecutor | None = None, **fields: object) -> EngineCore:
    config = EngineConfig(**fields)  # type: ignore[arg-type]
    return assemble_core(executor or FakeExecutor(), config)


def fake_of(core: EngineCore) -> FakeExecutor:
    assert isinstance(core.executor, FakeExecutor)
    return core.executor


def begin(core: EngineCore, request_id: str, text: str, **fields: object) -> None:
    request = SpeechRequest(text=text, seed=7, **fields)  # type: ignore[arg-type]
    core.add_request(request_id, core.processor.process(request))


def run(
    core: EngineCore, before: Sequence[AudioChunk] = (), max_steps: int = 5000
) -> dict[str, list[AudioChunk]]:
    """Step until idle; chunks by request, each ending in its one terminal chunk."""
    chunks: dict[str, list[AudioChunk]] = {}
    for chunk in before:
        chunks.setdefault(chunk.request_id, []).append(chunk)
    for _ in range(max_steps):
        if not core.has_work:
            break
        for chunk in core.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    assert not core.has_work, "hangs"
    core.check_integrity()
    for parts in chunks.values():
        assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
        assert [part.index for part in parts] == list(range(len(parts)))
    return chunks


def speak(text: str, *, executor: FakeExecutor | None = None, **fields: object) -> SpeechResult:
    request_fields = {k: fields.pop(k) for k in ("priority", "speed", "lookahead") if k in fields}
    core = make_core(executor, **fields)
    begin(core, "r", text, **request_fields)
    return SpeechResult.from_chunks(run(core)["r"])


@pytest.mark.parametrize("first", [1, 4, 12, 24])
@pytest.mark.parametrize("steady", [8, 25, 50, 100])
def test_streamed_equals_whole(first: int, steady: int) -> None:
    executor = FakeExecutor()
    result = speak(
        "a @150|b @0|c @1|d @33",
        executor=executor,
        first_chunk_frames=first,
        max_chunk_frames=max(first, steady),
    )
    np.testing.assert_array_equal(result.audio, whole_audio(executor, "r", 4))
    assert result.finish_reason == "stop"


def test_bulk_and_streams_sound_the_same() -> None:
    streamed = speak("a @70|b @20", priority="interactive")
    bulk = speak("a @70|b @20", priority="bulk")
    np.testing.assert_array_equal(streamed.audio, bulk.audio)


def test_a_low_lookahead_stream_starts_with_fewer_frames() -> None:
    core = make_core(low_lookahead_frames=1, first_chunk_frames=2)
    begin(core, "low", "a @30", lookahead="low")
    begin(core, "exact", "a @30", lookahead="exact")
    chunks = run(core)
    sizes = {key: sum(len(c.audio) for c in parts) for key, parts in chunks.items()}
    assert sizes["low"] == sizes["exact"]


def test_chunks_arrive_before_the_last_frame() -> None:
    core = make_core(first_chunk_frames=4, max_chunk_frames=8)
    begin(core, "r", "a @100")
    chunks: list[AudioChunk] = []
    for _ in range(15):
        chunks += core.step()
    assert chunks
    core.abort("r")
    run(core, chunks)


def test_metrics_are_filled() -> None:
    core = make_core()
    begin(core, "r", "first @12|second @5")
    last = run(core)["r"][-1]
    metrics = last.metrics
    assert metrics is not None
    assert metrics.frames == 17
    assert metrics.num_segments == 2
    assert metrics.prompt_tokens == len("first @12") + len("second @5")
    assert metrics.seed == 7
    assert metrics.queue_s is not None
    assert metrics.ttfa_s is not None
    assert 0 <= metrics.queue_s <= metrics.ttfa_s <= metrics.total_s
    assert metrics.audio_s == pytest.approx((17 * 8 - 2 * 4) / SAMPLE_RATE + 0.05)
    stats = core.stats()
    assert stats.frames_generated == 17
    assert stats.num_requests_running == stats.num_requests_waiting == 0
    assert stats.vocoder_frames == 17


def test_a_prefix_hit_is_counted() -> None:
    core = make_core(block_size=4)
    begin(core, "one", "the same long text @3")
    run(core)
    begin(core, "two", "the same long text @3")
    metrics = run(core)["two"][-1].metrics
    assert metrics is not None
    assert metrics.cached_tokens > 0


def test_length_is_reported() -> None:
    core = make_core()
    begin(core, "r", "a @50", sampling=SamplingParams(max_new_tokens=9))
    last = run(core)["r"][-1]
    assert last.finish_reason == "length"
    assert last.metrics is not None
    assert last.metrics.frames == 9


def test_a_request_of_silence_ends() -> None:
    result = speak("a @0")
    assert result.finish_reason == "stop"
    assert len(result.audio) == 0


@pytest.mark.parametrize("speed", [0.5, 1.7])
def test_speed_changes_the_duration(speed: float) -> None:
    plain = speak("a @400|b @300")
    changed = speak("a @400|b @300", speed=speed)
    assert changed.duration_s == pytest.approx(plain.duration_s / speed, rel=0.05)
    assert changed.metrics.audio_s == pytest.approx(plain.duration_s)


def test_neighbours_change_nothing() -> None:
    texts = [f"text {index} @{index * 7 % 60}" for index in range(20)]
    alone = {text: speak(text).audio for text in texts}
    core = make_core(
        FakeExecutor(num_kv_blocks=30), max_num_seqs=6, max_num_batched_tokens=19, block_size=4
    )
    for text in texts:
        begin(core, text, text, priority="bulk" if len(text) % 2 else "interactive")
    chunks = run(core)
    assert core.stats().num_preemptions > 0, "the pool was meant to run out"
    for text in texts:
        audio = SpeechResult.from_chunks(chunks[text]).audio
        np.testing.assert_array_equal(audio, alone[text])


# Aborts.


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 9, 20, 41, 42, 43, 44])
def test_abort_at_any_moment_frees_at_once(steps: int) -> None:
    core = make_core()
    begin(core, "r", "a @60|b @10")
    before = [chunk for _ in range(steps) for chunk in core.step()]
    core.abort("r")
    core.abort("r")
    assert core.scheduler.num_used_blocks == 0
    assert run(core, before)["r"][-1].finish_reason == "abort"
    assert not fake_of(core).live


def test_a_waiting_request_can_be_aborted() -> None:
    core = make_core(max_num_seqs=1)
    begin(core, "first", "a @30")
    begin(core, "second", "b @30")
    core.step()
    core.abort("second")
    chunks = run(core)
    assert chunks["second"][-1].finish_reason == "abort"
    assert chunks["first"][-1].finish_reason == "stop"


def test_unknown_ids_are_ignored() -> None:
    core = make_core()
    core.abort("nobody")
    assert not core.has_work


def test_an_id_in_use_is_refused() -> None:
    core = make_core()
    begin(core, "r", "a @5")
    with pytest.raises(RequestError, match="in use"):
        begin(core, "r", "b @5")
    assert set(run(core)) == {"r"}


# Failures.


def break_model(executor: FakeExecutor) -> None:
    executor.faults.model = "bad"


def break_vocoder(executor: FakeExecutor) -> None:
    executor.faults.vocoder = "bad"


def break_add(executor: FakeExecutor) -> None:
    executor.faults.add = "bad"


@pytest.mark.parametrize("fault", [break_model, break_vocoder, break_add])
def test_a_failure_ends_its_requests_and_the_engine_lives(
    fault: Callable[[FakeExecutor], None],
) -> None:
    core = make_core()
    fault(fake_of(core))
    begin(core, "r", "fine @20|bad @10")
    last = run(core)["r"][-1]
    assert (last.finish_reason, last.error_code) == ("error", "internal_error")
    assert last.error == "internal error (RuntimeError)"
    begin(core, "next", "fine @20")
    assert run(core)["next"][-1].finish_reason == "stop"


def test_a_vocoder_failure_spares_the_rest_of_the_batch() -> None:
    core = make_core()
    fake_of(core).faults.vocoder = "bad"
    for name in ("good", "bad", "well"):
        begin(core, name, f"{name} @20", priority="bulk")
    reasons = {name: parts[-1].finish_reason for name, parts in run(core).items()}
    assert reasons == {"good": "stop", "bad": "error", "well": "stop"}


def test_a_missed_deadline_ends_the_request() -> None:
    core = make_core(max_num_seqs=1)
    begin(core, "long", "a @60")
    begin(core, "late", "b @5", deadline_s=1e-9)
    chunks = run(core)
    assert chunks["late"][-1].error_code == "deadline_exceeded"
    assert chunks["long"][-1].finish_reason == "stop"


def test_fail_all_ends_everything() -> None:
    core = make_core()
    begin(core, "one", "a @60")
    begin(core, "two", "b @60", refine=True)
    core.step()
    chunks = core.fail_all(RuntimeError("boom"))
    assert {chunk.request_id for chunk in chunks if chunk.is_last} == {"one", "two"}
    core.check_integrity()


# Refining.


def test_refined_text_is_spoken() -> None:
    core = make_core()
    begin(core, "r", "a @13|b @6", refine=True)
    last = run(core)["r"][-1]
    assert last.metrics is not None
    assert last.metrics.frames == 13 + 6
    assert last.metrics.num_segments == 2


def test_abort_while_refining() -> None:
    core = make_core()
    begin(core, "r", "a @13", refine=True)
    core.step()
    core.abort("r")
    assert run(core)["r"][-1].finish_reason == "abort"


def test_a_failure_after_refining_is_an_error() -> None:
    core = make_core()
    begin(core, "r", "crash-refined @3", refine=True)
    assert run(core)["r"][-1].finish_reason == "error"


# Traces.

ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 30),  # step
        st.lists(st.integers(0, 40), min_size=1, max_size=4),  # frames of the segments
        st.sampled_from(["interactive", "bulk"]),
        st.one_of(st.none(), st.integers(0, 60)),  # aborted at step
        st.booleans(),  # fails in the vocoder
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(arrivals=ARRIVALS, max_num_seqs=st.integers(1, 8), blocks=st.integers(8, 40))
def test_any_trace_ends_every_request_once(
    arrivals: list[tuple[int, list[int], str, int | None, bool]], max_num_seqs: int, blocks: int
) -> None:
    core = make_core(FakeExecutor(num_kv_blocks=blocks), max_num_seqs=max_num_seqs)
    fake_of(core).faults.vocoder = "bad"
    ended: dict[str, str] = {}
    for step in range(3000):
        for index, (start, frames, priority, abort_at, bad) in enumerate(arrivals):
            if start == step:
                word = "bad" if bad else "good"
                text = "|".join(f"{word} @{count}" for count in frames)
                begin(core, str(index), text, priority=priority)
            if abort_at == step:
                core.abort(str(index))
        for chunk in core.step():
            assert chunk.request_id not in ended, "something after the end"
            if chunk.finish_reason is not None:
                ended[chunk.request_id] = chunk.finish_reason
        if step > 60 and not core.has_work:
            break
    assert set(ended) == {str(index) for index in range(len(arrivals))}
    core.check_integrity()
