"""`ServerMetrics`: what Prometheus reads, under vLLM's names where vLLM has one.

Counters and histograms of the server are kept here as things happen; the engine's own are read from
its `EngineStats` at each scrape. Nothing here decides anything. The full list with meanings is in
`docs/http-api.md`; the dashboard in `examples/monitoring` draws it.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..engine.interface import EngineStats
from ..engine.output import AudioChunk
from .gpu import read_gpus

# They double every counter and nothing reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

PREFIX = "stretto:"
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 120, 300)
_GAP = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5, 10)
_RTF = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.25, 1.5, 2, 5, 10)
_ENCODE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_TOKENS = (1, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)

_ENGINE_GAUGES = {
    "num_requests_running": "Requests the engine is working on.",
    "num_requests_waiting": "Requests waiting in the engine.",
    "num_seqs_running": "Sequences (segments) running.",
    "num_seqs_waiting": "Sequences (segments) waiting.",
}
_ENGINE_COUNTERS = {
    "num_preemptions": ("num_preemptions", "Sequences preempted."),
    "prefix_cache_queries": ("prefix_cache_queries", "Prompt tokens looked up in the cache."),
    "prefix_cache_hits": ("prefix_cache_hits", "Prompt tokens found in the cache."),
    "num_steps": ("engine_steps", "Steps of the engine."),
    "frames_generated": ("generation_tokens", "Frames generated."),
    "prompt_tokens": ("prompt_tokens", "Prompt positions."),
    "audio_s_generated": ("audio_generated_seconds", "Seconds of audio the engine made."),
    "vocoder_batches": ("vocoder_batches", "Vocoder launches."),
    "vocoder_rows": ("vocoder_rows", "Rows in all vocoder launches."),
    "vocoder_frames": ("vocoder_frames", "Frames the vocoder emitted."),
    "vocoder_window_frames": ("vocoder_window_frames", "Frames decoded, context included."),
    "vocoder_queue_s": ("vocoder_queue_wait_seconds", "Sum of waits of vocoder jobs."),
    "step_s": ("engine_step_seconds", "Sum of the durations of all steps."),
    "busy_s": ("engine_busy_seconds", "Time in which the engine had work."),
}


class _EngineCollector:
    """Turns the latest `EngineStats` into metrics."""

    def __init__(self) -> None:
        self.stats = EngineStats()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        stats = self.stats
        for field, text in _ENGINE_GAUGES.items():
            yield GaugeMetricFamily(PREFIX + field, text, value=getattr(stats, field))
        for field, (name, text) in _ENGINE_COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, text, value=getattr(stats, field))
        yield self._waiting(stats)
        yield from self._ratios(stats)
        yield from _gpu_families()

    def _waiting(self, stats: EngineStats) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "num_requests_waiting_by_reason", "Waiting, by reason.", labels=["reason"]
        )
        for reason, count in stats.waiting_by_reason:
            family.add_metric([reason], count)
        return family

    def _ratios(self, stats: EngineStats) -> Iterator[Metric]:
        kv = stats.kv_blocks_used / max(1, stats.kv_blocks_total)
        yield GaugeMetricFamily(PREFIX + "kv_cache_usage_perc", "Used KV blocks, 0-1.", value=kv)
        rows = stats.vocoder_rows / max(1, stats.vocoder_batches)
        yield GaugeMetricFamily(PREFIX + "vocoder_batch_size", "Mean rows per launch.", value=rows)
        padding = 1 - stats.vocoder_frames / max(1, stats.vocoder_window_frames)
        yield GaugeMetricFamily(
            PREFIX + "vocoder_batch_padding_ratio",
            "Share of decoded frames that were context or padding.",
            value=padding if stats.vocoder_window_frames else 0.0,
        )
        yield GaugeMetricFamily(
            PREFIX + "vocoder_queue_depth",
            "Vocoder jobs waiting.",
            value=stats.vocoder_jobs_waiting,
        )


def _gpu_families() -> Iterator[Metric]:
    names = {
        "utilization": ("gpu_utilization_ratio", "GPU busy, 0-1."),
        "memory_used_bytes": ("gpu_memory_used_bytes", "GPU memory in use."),
        "power_watts": ("gpu_power_watts", "GPU power draw."),
    }
    gpus = read_gpus()
    for field, (name, text) in names.items():
        family = GaugeMetricFamily(PREFIX + name, text, labels=["gpu"])
        for gpu in gpus:
            family.add_metric([str(gpu.index)], getattr(gpu, field))
        yield family


class ServerMetrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._engine = _EngineCollector()
        self.registry.register(self._engine)
        self._make_counters()
        self._make_histograms()
        self.streams_active = self._gauge("streams_active", "Answers being sent.")
        self.websockets_active = self._gauge("websocket_connections_active", "Open WebSockets.")
        self.buffered_bytes = self._gauge("buffered_audio_bytes", "Samples waiting for readers.")
        self.cache_bytes = self._gauge("result_cache_bytes", "Bytes in the result cache.")
        self.ready = self._gauge("ready", "1 when requests would be served now.")

    def _make_counters(self) -> None:
        self.http_requests = self._counter("http_requests", "Answers.", "route", "status")
        self.succeeded = self._counter("request_success", "Finished requests.", "finished_reason")
        self.failed = self._counter("requests_failed", "Failed requests.", "reason")
        self.rejections = self._counter("admission_rejections", "Refused for load.", "reason")
        self.aborted = self._counter("stream_aborted", "Answers cut short.", "reason")
        self.truncated = self._counter("truncated", "Ended before the text did.", "reason")
        self.audio_s = self._counter("audio_seconds", "Seconds of audio sent.", "format")
        self.text_chars = self._counter("text_chars", "Characters spoken.")
        self.underruns = self._counter("playback_underruns", "A player would have run dry.")
        self.underrun_s = self._counter("playback_underrun_seconds", "And for how long.")
        self.joined = self._counter("single_flight_joined", "Requests that joined an equal one.")
        self.cache_hits = self._counter("result_cache_hits", "Answers from the result cache.")
        self.cache_queries = self._counter("result_cache_queries", "Look-ups in the cache.")
        self.websockets = self._counter("websocket_connections", "WebSockets opened.")

    def _make_histograms(self) -> None:
        self.ttfa = self._histogram(
            "time_to_first_audio_seconds", "Arrival to first encoded audio.", _LATENCY
        )
        self.chunk_gap = self._histogram(
            "inter_audio_chunk_seconds", "Between audio chunks of one answer.", _GAP
        )
        self.e2e = self._histogram(
            "e2e_request_latency_seconds", "Arrival to last encoded audio.", _LATENCY
        )
        self.rtf = self._histogram("realtime_factor", "Time taken over seconds of audio.", _RTF)
        self.queue_time = self._histogram(
            "request_queue_time_seconds", "Submission to first scheduling.", _LATENCY
        )
        self.encode_s = self._histogram("encode_seconds", "One encoding.", _ENCODE, "format")
        self.prompt_tokens = self._histogram(
            "request_prompt_tokens", "Prompt positions of a request.", _TOKENS
        )
        self.generation_tokens = self._histogram(
            "request_generation_tokens", "Frames of a request.", _TOKENS
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(PREFIX + name, text, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)

    def cache_looked_up(self, *, hit: bool) -> None:
        """The result cache was asked."""
        self.cache_queries.inc()
        if hit:
            self.cache_hits.inc()

    def engine_finished(self, chunk: AudioChunk) -> None:
        """The engine sent a terminal chunk."""
        self.succeeded.labels(chunk.finish_reason or "error").inc()
        if chunk.finish_reason == "length":
            self.truncated.labels("max_tokens").inc()
        metrics = chunk.metrics
        if metrics is None:
            return
        if metrics.queue_s is not None:
            self.queue_time.observe(metrics.queue_s)
        if metrics.audio_s:
            self.rtf.observe(metrics.total_s / metrics.audio_s)
        self.prompt_tokens.observe(metrics.prompt_tokens)
        self.generation_tokens.observe(metrics.frames)

    def render(self, stats: EngineStats | None) -> bytes:
        """The text Prometheus reads; None leaves the engine's numbers as last seen."""
        if stats is not None:
            self._engine.stats = stats
        return generate_latest(self.registry)
