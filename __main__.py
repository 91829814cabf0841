"""The command line: parses, imports what the command needs, and words errors in one line.

`stretto --help` must be instant, so nothing heavy is imported before a command is known. The work
is in `engine.commands`, `server.app` and `benchmarks.cli`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

logger = logging.getLogger("stretto")

_EXIT_FAILURE, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from .benchmarks import cli as benchmarks
    from .engine import commands
    from .engine.cli_arguments import add_config_arguments
    from .engine.config import EngineConfig
    from .server.config import ServerConfig

    parser = argparse.ArgumentParser(
        prog="stretto", description="Text-to-speech with continuous batching."
    )
    parser.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error")
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    say = subparsers.add_parser("say", help="speak a text into a file")
    commands.add_say_arguments(say)
    generate = subparsers.add_parser("generate", help="speak every text of a file into a folder")
    commands.add_generate_arguments(generate)
    serve = subparsers.add_parser("serve", help="serve an OpenAI-compatible audio endpoint")
    add_config_arguments(serve, ServerConfig)
    add_config_arguments(serve, EngineConfig)
    benchmarks.add_parser(subparsers)
    voices = subparsers.add_parser("voices", help="list what --voice accepts")
    commands.add_voices_arguments(voices)
    return parser


def run_command(args: argparse.Namespace) -> int:
    """Run a parsed command; returns its exit code."""
    from .engine import commands

    if args.command == "say":
        return commands.say(args)
    if args.command == "generate":
        return commands.generate(args)
    if args.command == "voices":
        return commands.voices(args)
    if args.command == "bench":
        from .benchmarks import cli

        return cli.run(args)
    return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from .engine.cli_arguments import config_from_arguments
    from .engine.commands import engine_config
    from .server.app import run
    from .server.config import ServerConfig

    run(config_from_arguments(args, ServerConfig), engine_config(args))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code: 0, 1 (failed), 2 (wrong use), 130 (interrupted)."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=args.log_level.upper())
    os.environ["STRETTO_LOG_LEVEL"] = args.log_level.upper()  # for the engine process
    try:
        return run_command(args)
    except KeyboardInterrupt:
        print("stretto: interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        return _EXIT_FAILURE
    except Exception as error:
        logger.debug("the command failed", exc_info=True)
        print(f"stretto: error: {_wording(error)}", file=sys.stderr)
        return _exit_code(error)


def _wording(error: Exception) -> str:
    """One line that names the cause."""
    from .engine.errors import StrettoError

    text = " ".join(str(error).split())
    if isinstance(error, (StrettoError, ValueError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _exit_code(error: Exception) -> int:
    """Values that were given wrong are wrong use; `RequestError` is a `ValueError` too."""
    return _EXIT_USAGE if isinstance(error, ValueError) else _EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
