"""`VoiceStore`: uploaded reference voices, on disk, valid for every server process.

One folder per voice: `voice.json` beside the recording. A voice appears whole or not at all,
because its folder is written under another name and renamed. Names never reach the file system
unchecked. Whether a model can use a reference recording is not decided here.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from pathlib import Path

import msgspec
import soundfile

from .errors import ApiError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_META, _RECORDING = "voice.json", "reference"


class StoredVoice(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a recording; `consent` is the text the uploader agreed to."""

    id: str
    name: str
    transcript: str
    consent: str
    created_at: int
    language: str | None = None
    duration_s: float = 0.0


def default_voices_dir() -> Path:
    """The user's data folder for uploaded voices."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "stretto" / "voices"


def check_recording(data: bytes, *, max_bytes: int, max_s: float, param: str) -> float:
    """Judge a recording by size and header, before anything is decoded.

    Returns:
        Its duration in seconds.

    Raises:
        ApiError: 400 or 413; it is too large, no audio, too short or too long.
    """
    if len(data) > max_bytes:
        message = f"{param} is larger than {max_bytes} bytes"
        raise ApiError(413, message, param=param, code="body_too_large")
    try:
        info = soundfile.info(io.BytesIO(data))
    except (soundfile.LibsndfileError, TypeError, ValueError):
        message = f"{param} is no wav, flac, ogg or mp3 recording"
        raise ApiError(400, message, param=param, code="unsupported_audio") from None
    if info.channels > 2 or not 8000 <= info.samplerate <= 192_000:
        message = f"{param} must have 1 or 2 channels at 8 to 192 kHz"
        raise ApiError(400, message, param=param, code="unsupported_audio")
    if not 0.5 <= info.duration <= max_s:
        message = f"{param} must last from 0.5 to {max_s:g} seconds"
        raise ApiError(400, message, param=param, code="invalid_value")
    return float(info.duration)


class VoiceStore:
    """The uploaded voices below one folder; every call reads the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self) -> list[StoredVoice]:
        """All voices, by id."""
        if not self._folder.is_dir():
            return []
        found = (self.get(path.name) for path in sorted(self._folder.iterdir()))
        return [voice for voice in found if voice is not None]

    def get(self, voice_id: str) -> StoredVoice | None:
        """One voice, or None."""
        if not _NAME.fullmatch(voice_id):
            return None
        try:
            data = (self._folder / voice_id / _META).read_bytes()
            return msgspec.json.decode(data, type=StoredVoice)
        except (OSError, msgspec.DecodeError):
            return None

    def recording(self, voice_id: str) -> bytes:
        """The bytes of a voice's recording, as uploaded."""
        return (self._folder / voice_id / _RECORDING).read_bytes()

    def add(self, voice: StoredVoice, recording: bytes) -> None:
        """Keep a new voice.

        Raises:
            ApiError: 400 for a bad name, 409 when it exists.
        """
        if not _NAME.fullmatch(voice.id):
            message = "a voice name is 1 to 64 letters, digits, - or _"
            raise ApiError(400, message, param="name", code="invalid_value")
        self._folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            (staging / _META).write_bytes(msgspec.json.encode(voice))
            (staging / _RECORDING).write_bytes(recording)
            staging.rename(self._folder / voice.id)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if self.get(voice.id) is None:
                raise
            message = f"a voice named {voice.id!r} exists"
            raise ApiError(409, message, param="name", code="voice_exists") from None

    def delete(self, voice_id: str) -> bool:
        """Remove a voice; False when there was none."""
        if self.get(voice_id) is None:
            return False
        shutil.rmtree(self._folder / voice_id, ignore_errors=True)
        return True
