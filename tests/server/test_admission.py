"""Admission by itself, with time passed in; and its refusals over HTTP."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from stretto.engine.errors import DeadlineExceededError, OverloadedError
from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from stretto.server.admission import Admission
from stretto.server.errors import engine_failure
from tests.server.support import serving


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def serve_one(admission: Admission, clock: Clock, first_s: float, total_s: float) -> None:
    """One request with first audio after `first_s` and its end after `total_s`."""
    with admission.admit(None) as ticket:
        clock.now += first_s
        ticket.first_audio()
        clock.now += total_s - first_s
        ticket.finished()


def test_beyond_the_queue_it_refuses() -> None:
    admission = Admission(max_running=2, max_waiting=1)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(admission.admit(None))
        with pytest.raises(OverloadedError), admission.admit(None):
            pass
        assert admission.in_flight == 3
    assert admission.in_flight == 0


@pytest.mark.parametrize(("total_s", "retry_s"), [(0.5, 1.0), (10.0, 5.0), (60.0, 30.0)])
def test_retry_after_follows_how_often_a_place_becomes_free(total_s: float, retry_s: float) -> None:
    clock = Clock()
    admission = Admission(max_running=2, max_waiting=0, clock=clock)
    for _ in range(5):
        serve_one(admission, clock, 0.1, total_s)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(admission.admit(None))
        with pytest.raises(OverloadedError) as refused, admission.admit(None):
            pass
    assert refused.value.retry_after_s == pytest.approx(retry_s)


def test_what_would_be_late_is_refused_and_what_would_not_is_taken() -> None:
    clock = Clock()
    admission = Admission(max_running=2, max_waiting=10, clock=clock)
    serve_one(admission, clock, 0.5, 4.0)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(admission.admit(0.6))  # nothing waits: first audio after 0.5 s
        # One place becomes free every 2 s, so first audio is expected after 2.5 s.
        with pytest.raises(OverloadedError) as refused, admission.admit(2.4):
            pass
        assert refused.value.retry_after_s == pytest.approx(0.1)
        held.enter_context(admission.admit(2.6))
        with pytest.raises(OverloadedError), admission.admit(2.6):
            pass
        held.enter_context(admission.admit(None))  # who has no deadline waits


def test_nothing_is_predicted_before_anything_was_seen() -> None:
    admission = Admission(max_running=1, max_waiting=1)
    with admission.admit(0.001), admission.admit(0.001):
        assert admission.in_flight == 2


def test_recent_requests_weigh_more() -> None:
    clock = Clock()
    admission = Admission(max_running=1, max_waiting=1, clock=clock)
    for total_s in (1.0, *[9.0] * 30):
        serve_one(admission, clock, 0.1, total_s)
    with admission.admit(None):
        assert admission.predicted_wait_s() == pytest.approx(9.0, rel=0.01)


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"deadline_s": 1.0}, {}), ({}, {"x-stainless-read-timeout": "1"})],
)
async def test_a_deadline_is_kept_or_refused_at_once(
    body: dict[str, float], headers: dict[str, str], tmp_path: Path
) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="hang", kind="hang", after_chunks=1),))
    async with serving(tmp_path, config, max_num_seqs=1) as server:
        admission = server.services.admission
        admission.record_service(60.0)
        admission.record_first_audio(0.1)
        url = f"{server.url}/v1/audio/speech"
        running = await server.session.post(url, json={"input": "hang on"})
        late = {"input": "late", **body}
        async with server.session.post(url, json=late, headers=headers) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) == 60
        server.engine.release()
        await running.read()
        assert (await server.speak("in time", headers=headers, **body))[0] == 200


@pytest.mark.parametrize("nonsense", ["soon", "-1", "nan", "inf", "0", "1e10"])
async def test_a_read_timeout_that_is_none_is_ignored(nonsense: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        status, _ = await server.speak(headers={"x-stainless-read-timeout": nonsense})
        assert status == 200
        assert server.engine.requests[0].deadline_s is None


def test_what_the_engine_gave_up_for_its_deadline_may_be_tried_again() -> None:
    failure = engine_failure(DeadlineExceededError.code, "no audio within 1 s")
    assert (failure.status, failure.detail.code) == (503, "deadline_exceeded")
    assert failure.detail.type == "server_error"
    assert failure.headers["Retry-After"] == "2"
