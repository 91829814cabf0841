"""`Services`: what the handlers of one application share.

Made once by `app.make_app`; handlers reach it through `SERVICES`. It owns the encoder threads.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from ..engine.interface import EngineClient
from ..engine.output import AudioChunk
from .admission import Admission
from .answer import Answer
from .config import ServerConfig
from .metrics import ServerMetrics
from .parse import Catalog, OutputSpec, SpeechJob
from .synthesis import Synthesizer
from .voice_store import VoiceStore, default_voices_dir


@dataclass(slots=True)
class Services:
    """One server's parts; `draining` is set once, when it begins to shut down."""

    config: ServerConfig
    engine: EngineClient
    catalog: Catalog
    store: VoiceStore
    metrics: ServerMetrics
    admission: Admission
    synthesizer: Synthesizer
    pool: ThreadPoolExecutor
    draining: bool = field(default=False)
    answering: int = 0
    sessions: set[Session] = field(default_factory=set)

    def speak(self, job: SpeechJob) -> Answer:
        """The answer to a job."""
        return self.answer(self.synthesizer.stream(job.request), job.output)

    def answer(self, chunks: AsyncGenerator[AudioChunk, None], output: OutputSpec) -> Answer:
        """The answer made of these chunks."""
        return Answer(chunks, output, self.pool, self.metrics)

    @property
    def is_ready(self) -> bool:
        """Whether a request would be served now."""
        return self.engine.is_ready and not self.draining


if TYPE_CHECKING:
    from .websocket import Session

SERVICES = web.AppKey("services", Services)


def make_services(config: ServerConfig, engine: EngineClient, max_num_seqs: int) -> Services:
    """Put the parts together for one engine that runs `max_num_seqs` requests at once."""
    folder = Path(config.voices_dir) if config.voices_dir else default_voices_dir()
    store = VoiceStore(folder)
    metrics = ServerMetrics()
    admission = Admission(max_num_seqs, config.max_queue_size)
    threads = config.encoder_threads or os.cpu_count() or 1
    return Services(
        config=config,
        engine=engine,
        catalog=Catalog(engine, store, config),
        store=store,
        metrics=metrics,
        admission=admission,
        synthesizer=Synthesizer(engine, admission, metrics, config),
        pool=ThreadPoolExecutor(threads, thread_name_prefix="encode"),
    )
