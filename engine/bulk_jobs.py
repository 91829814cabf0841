"""Reading the input of `stretto generate`: one text a line, or one JSON job a line.

A line that is wrong becomes a job with an error, so that one typing mistake in a thousand lines
costs one item. Running the jobs is `bulk`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from .errors import RequestError
from .request import SamplingParams, SpeechRequest, Voice

_SAFE_ID = re.compile(r"[\w][\w.-]{0,199}")


@dataclass(frozen=True, slots=True)
class BulkJob:
    """One item: `request` to speak, or the `error` of its line."""

    id: str
    request: SpeechRequest | None = None
    error: str | None = None

    def key(self, model: str) -> str:
        """Equal for equal work: a job that was changed since is done again."""
        payload = msgspec.json.encode([self.request, model])
        return blake2b(payload, digest_size=12).hexdigest()


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a .jsonl file; what is left out comes from the command line."""

    text: str
    id: str | int | None = None
    voice: str | None = None
    ref_audio: str | None = None
    ref_text: str | None = None
    language: str | None = None
    speed: float | None = None
    seed: int | None = None
    sampling: SamplingParams | None = None
    normalize: bool | None = None
    refine: bool | None = None
    prompt: str | None = None


def read_jobs(path: Path, make_request: Callable[[str], SpeechRequest]) -> list[BulkJob]:
    """The jobs of a file, in order; blank lines are skipped.

    Args:
        path: `.jsonl` for JSON jobs; anything else holds one text a line.
        make_request: a request for a text, with the command line's options.

    Raises:
        RequestError: the file is missing, not UTF-8 or empty, or two jobs share an id.
    """
    jobs = list(_parse_lines(path, make_request))
    seen: set[str] = set()
    for job in jobs:
        if job.id in seen:
            raise RequestError(f"{path}: two jobs have the id {job.id!r}", param="id")
        seen.add(job.id)
    if not jobs:
        raise RequestError(f"{path} holds no text", param="input")
    return jobs


def _parse_lines(path: Path, make_request: Callable[[str], SpeechRequest]) -> Iterator[BulkJob]:
    is_json = path.suffix == ".jsonl"
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            default_id = f"{number:06d}"
            try:
                yield (
                    _json_job(line, default_id, make_request)
                    if is_json
                    else BulkJob(default_id, make_request(line.strip()))
                )
            except (RequestError, msgspec.DecodeError) as error:
                yield BulkJob(default_id, error=f"line {number}: {error}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RequestError(f"no such file: {path}", param="input") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error}", param="input") from error


def _json_job(line: str, default_id: str, make_request: Callable[[str], SpeechRequest]) -> BulkJob:
    item = msgspec.json.decode(line, type=_Line)
    job_id = default_id if item.id is None else str(item.id)
    if not _SAFE_ID.fullmatch(job_id):
        return BulkJob(default_id, error=f"id {job_id!r} does not make a file name")
    try:
        request = make_request(item.text)
        return BulkJob(job_id, replace(request, **_overrides(item)))
    except (RequestError, OSError) as error:
        return BulkJob(job_id, error=str(error))


def _overrides(item: _Line) -> dict[str, Any]:
    names = ("language", "speed", "seed", "sampling", "normalize", "refine", "prompt")
    given = {name: getattr(item, name) for name in names if getattr(item, name) is not None}
    if item.ref_audio is not None:
        audio = Path(item.ref_audio).read_bytes()
        given["voice"] = Voice(audio=audio, transcript=item.ref_text)
    elif item.voice is not None:
        given["voice"] = Voice(path=item.voice) if item.voice.endswith(".pt") else item.voice
    return given
