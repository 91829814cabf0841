"""The harness against our own server over a fake engine: every format, planted failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from stretto.benchmarks.client import Target
from stretto.benchmarks.load import LoadConfig, LoadResult, run_load
from stretto.benchmarks.metrics import summarize
from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from tests.server.support import serving

SPEECH_S = 2.0
CONFIG = FakeEngineConfig(seconds_per_char=0.0, chunk_s=SPEECH_S)


async def load(
    tmp_path: Path, texts: list[str], config: FakeEngineConfig, **how: str
) -> LoadResult:
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(texts), encoding="utf-8")
    async with serving(tmp_path, config) as server:
        target = Target(url=f"{server.url}/v1/audio/speech", model="fake", **how)  # type: ignore[arg-type]
        return await run_load(
            LoadConfig(target=target, texts=str(source), num_requests=len(texts), max_concurrency=2)
        )


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("response_format", ["pcm", "wav", "mp3", "opus", "aac", "flac"])
async def test_every_format_is_heard(
    tmp_path: Path, response_format: str, stream_format: str
) -> None:
    result = await load(
        tmp_path,
        ["Good morning."] * 2,
        CONFIG,
        response_format=response_format,
        stream_format=stream_format,
    )
    report = summarize(result.records, result.duration_s)
    assert report["completed"] == 2, report["errors_by_kind"]
    assert report["mean_audio_duration_s"] == pytest.approx(SPEECH_S, abs=0.15)
    assert report["silent_audio"] == 0


async def test_planted_failures_are_counted_as_planted(tmp_path: Path) -> None:
    config = FakeEngineConfig(
        seconds_per_char=0.1,
        failures=(
            FakeFailure(text="refused", kind="refuse"),
            FakeFailure(text="breaks", kind="error", after_chunks=2),
        ),
    )
    texts = ["A good sentence."] * 5 + ["refused"] * 2 + ["breaks"] * 3
    result = await load(tmp_path, texts, config)
    report = summarize(result.records, result.duration_s)
    assert report["completed"] == 5
    kinds = report["errors_by_kind"]
    assert kinds.pop("http_400") == 2
    assert sum(kinds.values()) == 3
    assert report["truncated_audio"] == 3


async def test_a_slow_engine_makes_its_listeners_wait(tmp_path: Path) -> None:
    """At a tenth of real time a listener waits over two seconds for half a second of speech."""
    config = FakeEngineConfig(seconds_per_char=0.1, chunk_s=0.25, pace=0.1)
    result = await load(tmp_path, ["Hello"], config)
    report = summarize(result.records, result.duration_s)
    assert report["underrun_rate"] == 1.0
    assert report["underruns_prebuffer_0ms"] == 1
    assert report["stall_s_prebuffer_0ms"] > 0.5
