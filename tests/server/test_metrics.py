"""What Prometheus reads, and that dashboard and documentation speak of the same metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from stretto.engine.fake_engine import FakeEngineConfig, FakeFailure
from stretto.engine.interface import EngineStats
from stretto.server.answer import PlaybackClock
from stretto.server.metrics import ServerMetrics
from tests.server.support import TEXT, Server, serving

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "examples/monitoring/grafana/dashboards/stretto.json"


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


async def scrape(server: Server) -> dict[str, Metric]:
    async with server.session.get(f"{server.url}/metrics") as response:
        assert response.status == 200
        return families(await response.text())


def value(metrics: dict[str, Metric], name: str, **labels: str) -> float:
    """The sum of a metric's samples of that exact name with those labels."""
    family = metrics[re.sub(r"_(total|count)$", "", name)]
    return sum(
        sample.value
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_requests_are_counted(tmp_path: Path) -> None:
    config = FakeEngineConfig(failures=(FakeFailure(text="break", kind="error", after_chunks=5),))
    async with serving(tmp_path, config, cache_mib=4) as server:
        await server.speak(seed=1)
        await server.speak(seed=1)
        await server.speak(voice="nobody")
        with pytest.raises(aiohttp.ClientError):
            await server.speak("this will break on the way")
        metrics = await scrape(server)
    route = "/v1/audio/speech"
    assert value(metrics, "stretto:http_requests_total", route=route, status="200") == 3
    assert value(metrics, "stretto:http_requests_total", route=route, status="400") == 1
    assert value(metrics, "stretto:requests_failed_total", reason="unknown_voice") == 1
    assert value(metrics, "stretto:request_success_total", finished_reason="stop") == 1
    assert value(metrics, "stretto:stream_aborted_total", reason="error") == 1
    assert value(metrics, "stretto:result_cache_hits_total") == 1
    assert value(metrics, "stretto:time_to_first_audio_seconds_count") == 3
    seconds = len(TEXT) * 0.06
    assert value(metrics, "stretto:audio_seconds_total", format="mp3") == pytest.approx(2 * seconds)
    assert value(metrics, "stretto:text_chars_total") == 2 * len(TEXT) + 26
    assert value(metrics, "stretto:generation_tokens_total") > 0
    assert value(metrics, "stretto:ready") == 1
    assert value(metrics, "stretto:num_requests_running") == 0


def test_engine_numbers_are_turned_into_ratios() -> None:
    stats = EngineStats(
        kv_blocks_total=10,
        kv_blocks_used=4,
        vocoder_batches=5,
        vocoder_rows=15,
        vocoder_frames=60,
        vocoder_window_frames=100,
        num_preemptions=3,
        waiting_by_reason=(("capacity", 2), ("blocks", 1)),
    )
    metrics = families(ServerMetrics().render(stats).decode())
    assert value(metrics, "stretto:kv_cache_usage_perc") == pytest.approx(0.4)
    assert value(metrics, "stretto:vocoder_batch_size") == pytest.approx(3.0)
    assert value(metrics, "stretto:vocoder_batch_padding_ratio") == pytest.approx(0.4)
    assert value(metrics, "stretto:num_preemptions_total") == 3
    assert value(metrics, "stretto:num_requests_waiting_by_reason", reason="blocks") == 1


def sample_names() -> set[str]:
    """Every name a query may use, labelled metrics without samples included."""
    names: set[str] = set()
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    for family in families(ServerMetrics().render(None).decode()).values():
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"stretto:\w+", query)}
    assert asked <= sample_names(), asked - sample_names()
    drawn = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in asked}
    made = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in sample_names()}
    assert made == drawn, "every metric has its place on the dashboard"


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"`(stretto:\w+)`", (ROOT / "docs/http-api.md").read_text()))
    made = {re.sub(r"_(bucket|sum|count)$", "", name) for name in sample_names()}
    assert made == documented


def test_the_playback_clock_counts_only_dry_time() -> None:
    now = 0.0
    clock = PlaybackClock(lambda: now)
    assert clock.lateness_s(1.0) == 0.0  # playback begins
    now = 0.9
    assert clock.lateness_s(1.0) == 0.0  # in time; the player has audio until 2.0
    now = 2.5
    assert clock.lateness_s(1.0) == pytest.approx(0.5)
    now = 3.4
    assert clock.lateness_s(1.0) == 0.0  # playback went on at 2.5, until 3.5
