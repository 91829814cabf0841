"""`stretto bench ...`: the list of benchmarks, each imported only when it is asked for.

This module parses and dispatches; every benchmark's options and work are in its own module, which
has `add_arguments(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

logger = logging.getLogger(__name__)

COMMANDS = {
    "serve": "load a speech server and report how listeners fared",
    "capacity": "find the highest Poisson rate at which a server keeps an SLO",
    "engine": "load the engine itself, without a server: first request, many at once, Poisson",
    "offline": "bulk seconds of audio per second, against the batch size",
    "step": "time of a speech-model step, by phase, sequences and context",
    "vocoder": "seconds of audio per second of the vocoder, by rows and frames",
    "attention": "the attention backends side by side",
    "scheduler": "microseconds that a scheduling decision costs per sequence",
    "simulate": "the whole engine on a simulated clock: policies, replicas, rates",
    "agreement": "compare a simulation with a run of the real engine",
}
_MODULES = {"engine": "engine_bench", "scheduler": "scheduler_bench"}


def _module(name: str) -> str:
    return f"{__package__}.{_MODULES.get(name, name)}"


class _LazyParser(argparse.ArgumentParser):
    """A parser that imports its benchmark when its options are needed."""

    module: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the benchmark's options, then parse."""
        if self.module is not None:
            import_module(self.module).add_arguments(self)
            self.module = None
        return super().parse_known_args(args, namespace)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per benchmark to `parser`."""
    commands = parser.add_subparsers(
        dest="benchmark", required=True, metavar="BENCHMARK", parser_class=_LazyParser
    )
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        command.module = _module(name)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `bench` to the sub-commands of `stretto`; returns its parser."""
    text = "measure a server or the engine"
    parser: argparse.ArgumentParser = subparsers.add_parser("bench", help=text, description=text)
    add_commands(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that was parsed; user errors become exit code 2."""
    try:
        code: int = import_module(_module(args.benchmark)).run(args)
    except (ValueError, TimeoutError, RuntimeError) as error:
        logger.info("where it failed", exc_info=True)
        print(f"stretto bench {args.benchmark}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m stretto.benchmarks`: the same commands without the rest of Stretto."""
    parser = argparse.ArgumentParser(prog="stretto bench")
    add_commands(parser)
    return run(parser.parse_args(argv))
