"""The commands that speak: `say`, `generate` and `voices`.

They turn parsed options into requests, run an engine and print what came of it. Errors are raised,
never printed: `__main__` words them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic

from .cli_arguments import add_config_arguments, config_from_arguments
from .config import EngineConfig
from .errors import RequestError, StrettoError
from .output import SpeechResult
from .request import MAX_SPEED, MIN_SPEED, SamplingParams, SpeechRequest, Voice


def add_say_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `stretto say`."""
    parser.add_argument("text", help="what to say; - reads standard input")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="file to write: wav, flac, ogg or mp3"
    )
    _add_speech_arguments(parser)
    add_config_arguments(parser, EngineConfig)


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `stretto generate`."""
    parser.add_argument("input", type=Path, help="texts, one a line, or .jsonl with one job a line")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the audio and manifest.jsonl"
    )
    parser.add_argument("--format", default="wav", choices=("wav", "flac", "ogg", "mp3"))
    _add_speech_arguments(parser)
    add_config_arguments(parser, EngineConfig)


def add_voices_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `stretto voices`."""
    add_config_arguments(parser, EngineConfig)


def _add_speech_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--speed", type=float, default=1.0, help=f"tempo, {MIN_SPEED} to {MAX_SPEED:g}"
    )
    group.add_argument("--language", help="en, zh; detected when left out")
    group.add_argument("--ref-audio", type=Path, help="recording of the voice to speak with")
    group.add_argument("--ref-text", help="the words spoken in that recording")
    group.add_argument("--temperature", type=float, help="of sampling; the model's own if left out")
    group.add_argument("--top-p", type=float, help="mass kept; the model's own if left out")
    group.add_argument("--top-k", type=int, help="codes kept; the model's own if left out")
    group.add_argument("--max-new-tokens", type=int, help="frames of one segment at most")
    group.add_argument("--refine", action="store_true", help="let the model refine the text first")
    group.add_argument("--prompt", help="control tokens, such as [speed_5]")
    group.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="speak digits, dates and units as words (default: on)",
    )


def speech_request(args: argparse.Namespace, text: str) -> SpeechRequest:
    """The request that the options describe.

    Raises:
        RequestError: a value is out of range, or the text is empty.
    """
    sampling = SamplingParams(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        max_new_tokens=args.max_new_tokens,
    )
    return SpeechRequest(
        text=text,
        voice=_voice(args),
        language=args.language,
        speed=args.speed,
        sampling=sampling,
        refine=args.refine,
        prompt=args.prompt,
        normalize=args.normalize,
        priority="bulk",
    )


def _voice(args: argparse.Namespace) -> str | Voice | None:
    """A reference recording, a speaker file, or a name (left to the engine's default)."""
    name: str | None = args.default_voice
    if args.ref_audio is not None:
        if not args.ref_audio.is_file():
            raise RequestError(f"no such file: {args.ref_audio}", param="ref_audio")
        return Voice(audio=args.ref_audio.read_bytes(), transcript=args.ref_text)
    if args.ref_text is not None:
        raise RequestError("--ref-text needs --ref-audio", param="ref_text")
    return Voice(path=name) if name and name.endswith(".pt") else name


def engine_config(args: argparse.Namespace) -> EngineConfig:
    """The engine's settings; a speaker file is a request's voice and no default."""
    if (args.default_voice or "").endswith(".pt"):
        args = argparse.Namespace(**{**vars(args), "default_voice": None})
    return config_from_arguments(args, EngineConfig)


def say(args: argparse.Namespace) -> int:
    """Speak one text into a file."""
    from .offline import SpeechEngine

    text = sys.stdin.read() if args.text == "-" else args.text
    request = speech_request(args, text)
    check_output_format(args.output)
    with SpeechEngine(config=engine_config(args)) as engine:
        started = monotonic()
        result = engine.generate(request)[0]
        seconds = monotonic() - started
    if result.finish_reason == "error":
        raise StrettoError(result.error)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    result.save(args.output)
    print(_summary(args.output, result, seconds))
    return 0


def check_output_format(path: Path) -> None:
    """Refuse an unknown extension before any work is done.

    Raises:
        RequestError: the extension names no format that can be written.
    """
    import soundfile

    extension = path.suffix.lstrip(".").upper()
    if extension not in soundfile.available_formats():
        raise RequestError(f"cannot write {path.name}: use .wav, .flac, .ogg or .mp3")


def _summary(path: Path, result: SpeechResult, seconds: float) -> str:
    duration = result.duration_s
    factor = f", real-time factor {seconds / duration:.3f}" if duration else ""
    note = "" if result.finish_reason == "stop" else f" (finish reason: {result.finish_reason})"
    return (
        f"wrote {path}: {duration:.2f} s of audio in {seconds:.2f} s{factor}, "
        f"seed {result.metrics.seed}{note}"
    )


def generate(args: argparse.Namespace) -> int:
    """Speak every text of a file into a folder; 1 when an item failed."""
    from .bulk import BulkGenerator
    from .bulk_jobs import read_jobs
    from .offline import SpeechEngine

    jobs = read_jobs(args.input, lambda text: speech_request(args, text))
    with SpeechEngine(config=engine_config(args)) as engine:
        summary = BulkGenerator(engine, args.output, args.format).run(jobs)
    print(summary)
    return 1 if summary.num_failed else 0


def voices(args: argparse.Namespace) -> int:
    """List what `--voice` accepts; no weights are loaded."""
    from ..model_executor.models.checkpoint import load_checkpoint
    from ..model_executor.models.registry import load_frontend

    frontend = load_frontend(load_checkpoint(args.model))
    for voice in frontend.voices:
        mark = "  (default)" if voice.id == frontend.default_voice else ""
        print(f"{voice.id:16} {voice.language:6} {voice.description or voice.name}{mark}")
    return 0
