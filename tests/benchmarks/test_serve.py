"""The harness reports exactly the faults that were planted. Delays are seconds, bounds are wide."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stretto.benchmarks import cli
from stretto.benchmarks.arrivals import ArrivalConfig
from stretto.benchmarks.client import Target, send
from stretto.benchmarks.load import LoadConfig, open_session, run_load
from stretto.benchmarks.metrics import summarize
from stretto.benchmarks.record import RequestRecord
from stretto.benchmarks.slo import Slo
from tests.benchmarks.bad_server import CHUNK_S, LATE_S, running_server

SSE = {"stream_format": "sse"}


async def ask(text: str, **target: Any) -> RequestRecord:
    async with running_server() as (url, _), open_session() as session:
        speech = Target(url=url + "/v1/audio/speech", model="m", **target)
        return await send(session, speech, text)


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_a_good_answer_has_no_fault(stream_format: str) -> None:
    record = await ask("all is well", stream_format=stream_format)
    assert record.ok
    assert record.error_kind is None
    assert not record.silent
    assert record.audio_s == pytest.approx(4 * CHUNK_S)
    assert sum(chunk.audio_s for chunk in record.chunks) == pytest.approx(record.audio_s)
    assert record.ttfa_s is not None
    assert 0 < record.ttfa_s <= record.e2e_s


@pytest.mark.parametrize(
    ("text", "target", "kind"),
    [
        ("overload", {}, "http_429"),
        ("broken", {}, "http_500"),
        ("hang", {"timeout_s": 3.0}, "timeout"),
        ("cut", {}, "disconnect"),
        ("cut", SSE, "disconnect"),
        ("error event", SSE, "stream_error"),
    ],
)
async def test_each_failure_has_its_kind(text: str, target: dict[str, Any], kind: str) -> None:
    record = await ask(text, **target)
    assert record.error_kind == kind
    assert not record.ok
    assert record.truncated == (text in ("cut", "hang"))


async def test_a_missing_terminal_event_is_truncation() -> None:
    record = await ask("undone", **SSE)
    assert record.error_kind is None
    assert record.truncated
    assert not record.ok


async def test_an_unreachable_server_is_a_record_not_an_exception() -> None:
    async with running_server() as (url, _):
        pass
    async with open_session() as session:
        record = await send(session, Target(url=url + "/v1/audio/speech", model="m"), "hello")
    assert record.error_kind == "connect"


async def test_late_chunks_are_one_underrun_of_the_planted_length() -> None:
    record = await ask("late")
    report = summarize([record], record.e2e_s)
    assert report["completed"] == 1
    assert report["underruns_prebuffer_0ms"] == 1
    assert report["underrun_rate"] == 1.0
    assert LATE_S - 4 * CHUNK_S < report["stall_s_prebuffer_0ms"] < LATE_S + 20
    assert report["max_inter_chunk_ms"] >= 1000 * LATE_S * 0.9
    assert report["stall_s_prebuffer_300ms"] <= report["stall_s_prebuffer_0ms"]


async def test_silence_and_leading_silence() -> None:
    silent = await ask("silent")
    assert silent.ok
    assert silent.silent
    assert silent.ttfa_s is not None
    assert silent.ttfa_audible_s is None
    quiet = await ask("quiet start")
    assert not quiet.silent
    assert quiet.ttfa_s is not None
    assert quiet.ttfa_audible_s is not None
    assert quiet.ttfa_audible_s - quiet.ttfa_s >= 2 * CHUNK_S - 1e-3


async def test_every_planted_fault_is_counted(tmp_path: Path) -> None:
    planted = {"all is well": 5, "late": 2, "silent": 3, "broken": 4, "overload": 1, "nothing": 2}
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(t for t, n in planted.items() for _ in range(n)), encoding="utf-8")
    count = sum(planted.values())
    async with running_server() as (url, _):
        config = LoadConfig(
            target=Target(url=url + "/v1/audio/speech", model="m"),
            texts=str(texts),
            num_requests=count,
            max_concurrency=4,
        )
        result = await run_load(config)
    slo = Slo.parse("underrun_rate=0.01,error_rate=0")
    report = summarize(result.records, result.duration_s, slo=slo)
    assert report["completed"] == 10
    assert report["errors_by_kind"] == {"http_429": 1, "http_500": 4, "no_audio": 2}
    assert report["silent_audio"] == 3
    assert report["underruns_prebuffer_0ms"] >= 2
    assert report["good_requests"] <= 8
    assert report["slo_met"] is False
    assert report["max_concurrent_requests"] <= 4


async def test_closed_loop_keeps_its_users_and_open_loop_does_not_wait() -> None:
    async with running_server() as (url, bad):
        target = Target(url=url + "/v1/audio/speech", model="m")
        closed = LoadConfig(target=target, num_requests=12, max_concurrency=3)
        assert len((await run_load(closed)).records) == 12
        assert bad.peak <= 3
        many = ArrivalConfig(rate=1000.0, pattern="burst", burst_size=8)
        texts = LoadConfig(target=target, arrivals=many, num_requests=8)
        assert len((await run_load(texts)).records) == 8


async def test_the_seed_names_the_workload() -> None:
    async with running_server() as (url, bad):
        target = Target(url=url + "/v1/audio/speech", model="m")
        for seed in (1, 1, 2):
            await run_load(LoadConfig(target=target, num_requests=4, max_concurrency=1, seed=seed))
        texts = [body["input"] for body in bad.bodies]
    assert texts[:4] == texts[4:8]
    assert texts[:4] != texts[8:]


def _bench(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return cli.run(parser.parse_args(["bench", *argv]))


async def test_the_command_writes_results_and_plots(tmp_path: Path) -> None:
    stem = tmp_path / "out" / "run"
    argv = ["serve", "--num-requests", "3", "--sweep-concurrency", "1,2", "--warmup", "1"]
    argv += ["--output", str(stem), "--plot", "--no-progress", "--slo", "error_rate=0"]
    async with running_server() as (url, _):
        code = await asyncio.to_thread(_bench, [*argv, "--base-url", url])
    assert code == 0
    report = json.loads((tmp_path / "out" / "run_1.json").read_text())
    assert report["completed"] == 3
    assert report["slo_met"] is True
    assert report["mean_audio_ttfp_ms"] > 0
    lines = (tmp_path / "out" / "run_2.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["chunks"]) > 0 for line in lines] == [True] * 3
    points = json.loads((tmp_path / "out" / "run_sweep.json").read_text())["points"]
    assert [point["max_concurrency"] for point in points] == [1, 2]
    plots = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {"run_sweep.png", "run_1_ttfa.png", "run_2_buffers.png"} <= plots


async def test_the_command_says_when_nothing_answered() -> None:
    async with running_server() as (url, _):
        pass
    argv = ["serve", "--base-url", url, "--ready-timeout", "0"]
    assert await asyncio.to_thread(_bench, argv) == 2


async def test_capacity_stops_at_the_highest_rate_allowed(tmp_path: Path) -> None:
    stem = tmp_path / "capacity"
    argv = ["capacity", "--slo", "error_rate=0", "--start-rate", "1", "--max-rate", "2"]
    argv += ["--duration", "2", "--pause", "0", "--warmup", "0", "--seeds", "1", "--plot"]
    async with running_server() as (url, _):
        argv += ["--base-url", url, "--no-progress", "--output", str(stem)]
        assert await asyncio.to_thread(_bench, argv) == 0
    found = json.loads((tmp_path / "capacity.json").read_text())
    assert found["capacity_rps"] == 2.0
    assert found["broken_at_rps"] is None
    assert [probe["request_rate"] for probe in found["probes"]] == [1.0, 2.0]
    assert (tmp_path / "capacity_sweep.png").stat().st_size > 0


async def test_ramps_and_bursts_from_the_command_line(tmp_path: Path) -> None:
    ramp = ["--ramp-up-strategy", "linear", "--ramp-up-start-rps", "2", "--ramp-up-end-rps", "20"]
    burst = ["--arrival", "burst", "--burst-size", "3", "--request-rate", "9"]
    async with running_server() as (url, bad):
        for number, load in enumerate((ramp, burst)):
            argv = ["serve", "--base-url", url, "--num-requests", "6", "--warmup", "0", *load]
            argv += ["--no-progress", "--output", str(tmp_path / str(number))]
            assert await asyncio.to_thread(_bench, argv) == 0
        assert len(bad.bodies) == 12
    argv = ["serve", "--base-url", "http://127.0.0.1:1", "--ramp-up-strategy", "linear"]
    assert await asyncio.to_thread(_bench, argv) == 2
