"""The engine under measurement: its options on the command line, its loading, random weights.

`--model random` and `random-tiny` stand for a checkpoint of seeded random weights in the published
ChatTTS layout, made once in the temporary folder: speed does not depend on what weights say.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine.cli_arguments import add_config_arguments, config_from_arguments
from ..engine.config import EngineConfig

_RANDOM = {"random": "full", "random-tiny": "tiny"}


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Every field of `EngineConfig`; `--model` also takes `random` and `random-tiny`."""
    add_config_arguments(parser, EngineConfig)
    parser.set_defaults(model="random")


def engine_config(args: argparse.Namespace) -> EngineConfig:
    """The settings that the options describe, random weights made where asked for."""
    config = config_from_arguments(args, EngineConfig)
    return replace(config, model=resolve_model(config.model))


def resolve_model(name: str) -> str:
    """A model's name or folder; random ones are written first."""
    if name not in _RANDOM:
        return name
    from .random_checkpoint import SIZES, write_checkpoint

    size = _RANDOM[name]
    folder = Path(tempfile.gettempdir()) / f"stretto_random_{size}"
    done = folder / "complete"
    if not done.exists():
        write_checkpoint(folder, SIZES[size])
        done.touch()
    return str(folder)


def load_executor(config: EngineConfig, *, reads_text: bool = True) -> Any:
    """A loaded `LocalExecutor`, warmed up if the settings say so.

    Args:
        reads_text: warm up what turns text into prompts too. Measurements on token ids do without
            the packages that needs.
    """
    from ..engine.build import build_core

    if reads_text:
        return build_core(config).executor
    executor = build_core(replace(config, warmup=False)).executor
    if config.warmup:
        executor.warmup()
    return executor


def describe_engine(config: EngineConfig) -> dict[str, Any]:
    """What a result file says about the engine."""
    import torch

    return {
        "model_id": config.model,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "dtype": config.dtype,
        "attention_backend": config.attention_backend,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Write random weights: `python -m stretto.benchmarks.engine_setup random`."""
    for name in sys.argv[1:]:
        print(resolve_model(name))


if __name__ == "__main__":
    main()
