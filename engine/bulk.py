"""`BulkGenerator`: many texts to audio files, with a manifest that makes runs resumable.

It keeps the engine's batch full and holds no more audio than is in flight. A file is renamed into
place before its line is added to the manifest, so an interrupted run never leaves half a file that
counts as done. What the items mean is `bulk_jobs`' business.
"""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NoReturn, TypeAlias

import msgspec
from tqdm import tqdm

from .bulk_jobs import BulkJob
from .errors import StrettoError
from .offline import SpeechEngine
from .output import AudioChunk, SpeechResult

MANIFEST = "manifest.jsonl"

Bar: TypeAlias = "tqdm[NoReturn]"


class ManifestEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the manifest; the last line of an id counts.

    Attributes:
        id: of the job.
        key: of the job's content; see `BulkJob.key`.
        file: name of the audio file; None after an error.
        duration_s: seconds of audio.
        finish_reason: `stop`, `length` or `error`.
        seed: in force.
        error: the message.
    """

    id: str
    key: str
    finish_reason: str
    file: str | None = None
    duration_s: float = 0.0
    seed: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BulkSummary:
    """What a run did. Prints as one line."""

    num_done: int
    num_skipped: int
    num_failed: int
    audio_s: float
    seconds: float

    def __str__(self) -> str:
        factor = f", real-time factor {self.seconds / self.audio_s:.3f}" if self.audio_s else ""
        return (
            f"{self.num_done} done, {self.num_skipped} already there, {self.num_failed} failed: "
            f"{self.audio_s:.1f} s of audio in {self.seconds:.1f} s{factor}"
        )


@dataclass(frozen=True, slots=True)
class _Finished:
    job: BulkJob
    result: SpeechResult


class BulkGenerator:
    """Speaks jobs into a folder.

    Args:
        engine: stays open.
        folder: made if missing.
        audio_format: extension of the files.
    """

    def __init__(self, engine: SpeechEngine, folder: Path, audio_format: str = "wav") -> None:
        self._engine = engine
        self._folder = folder
        self._format = audio_format
        self._model = engine.model_info.name
        self._max_in_flight = 2 * engine.config.max_num_seqs
        self._finished: queue.SimpleQueue[_Finished] = queue.SimpleQueue()
        self._num_failed = 0
        self._audio_s = 0.0

    def run(self, jobs: Iterable[BulkJob]) -> BulkSummary:
        """Do all jobs that the folder's manifest does not show as done."""
        started = monotonic()
        jobs = list(jobs)
        self._folder.mkdir(parents=True, exist_ok=True)
        done = self._read_manifest()
        todo = [job for job in jobs if not self._is_done(job, done.get(job.id))]
        with (
            (self._folder / MANIFEST).open("a", encoding="utf-8") as self._manifest,
            tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="item", disable=None) as bar,
        ):
            self._run(todo, bar)
        num_done = len(todo) - self._num_failed
        seconds = monotonic() - started
        skipped = len(jobs) - len(todo)
        return BulkSummary(num_done, skipped, self._num_failed, self._audio_s, seconds)

    def _run(self, todo: list[BulkJob], bar: Bar) -> None:
        waiting = iter(todo)
        num_in_flight = 0
        for _ in todo:
            while num_in_flight < self._max_in_flight and (job := next(waiting, None)):
                num_in_flight += self._begin(job, bar)
            if not num_in_flight:
                break
            finished = self._finished.get()
            num_in_flight -= 1
            self._record(finished.job, self._save(finished), bar)

    def _begin(self, job: BulkJob, bar: Bar) -> bool:
        """Submit a job; False (and its error recorded) when that is refused."""
        if job.request is None:
            self._record(job, self._error_entry(job, job.error), bar)
            return False
        chunks: list[AudioChunk] = []

        def sink(chunk: AudioChunk) -> None:
            chunks.append(chunk)
            if chunk.is_last:
                self._finished.put(_Finished(job, SpeechResult.from_chunks(chunks)))

        try:
            self._engine.submit(job.request, sink)
        except (StrettoError, OSError) as error:
            self._record(job, self._error_entry(job, str(error)), bar)
            return False
        return True

    def _save(self, finished: _Finished) -> ManifestEntry:
        """Write the audio, under its name only once it is whole."""
        job, result = finished.job, finished.result
        if result.finish_reason not in ("stop", "length"):
            return self._error_entry(job, result.error or result.finish_reason)
        name = f"{job.id}.{self._format}"
        partial = self._folder / f".{job.id}.partial.{self._format}"
        result.save(partial)
        os.replace(partial, self._folder / name)
        return ManifestEntry(
            id=job.id,
            key=job.key(self._model),
            file=name,
            duration_s=result.duration_s,
            finish_reason=result.finish_reason,
            seed=result.metrics.seed,
        )

    def _error_entry(self, job: BulkJob, error: str | None) -> ManifestEntry:
        return ManifestEntry(
            id=job.id, key=job.key(self._model), finish_reason="error", error=error
        )

    def _record(self, job: BulkJob, entry: ManifestEntry, bar: Bar) -> None:
        self._manifest.write(msgspec.json.encode(entry).decode() + "\n")
        self._manifest.flush()
        self._audio_s += entry.duration_s
        if entry.error is not None:
            self._num_failed += 1
            bar.write(f"{job.id}: {entry.error}", file=sys.stderr)
        bar.set_postfix_str(f"{self._audio_s:.0f} s of audio", refresh=False)
        bar.update()

    def _read_manifest(self) -> dict[str, ManifestEntry]:
        """Entries by id; a last line cut short by a kill is not there."""
        path = self._folder / MANIFEST
        entries: dict[str, ManifestEntry] = {}
        if path.exists():
            text = path.read_bytes()
            if text and not text.endswith(b"\n"):
                path.write_bytes(text[: text.rfind(b"\n") + 1])
            for line in text.split(b"\n")[:-1]:
                entry = msgspec.json.decode(line, type=ManifestEntry)
                entries[entry.id] = entry
        return entries

    def _is_done(self, job: BulkJob, entry: ManifestEntry | None) -> bool:
        return (
            entry is not None
            and entry.file == f"{job.id}.{self._format}"
            and entry.key == job.key(self._model)
            and (self._folder / entry.file).exists()
        )
