"""The wheel holds exactly the package: every room, the voice, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
MAX_VOICE_BYTES = 25 * 2**20


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Names and sizes in a wheel built from a copy of the tracked files."""
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)],
        check=True,
    )
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        return {info.filename: info.file_size for info in wheel.infolist()}


@pytest.mark.slow
def test_the_top_level_is_stretto_alone(wheel_names: dict[str, int]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"stretto"}


@pytest.mark.slow
def test_every_room_is_in_it(wheel_names: dict[str, int]) -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    rooms = ("engine", "scheduler", "model_executor", "server", "benchmarks")
    folders = {
        "stretto." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
    }
    assert folders | {"stretto"} == set(packages)
    for package in packages:
        assert package.replace(".", "/") + "/__init__.py" in wheel_names
    assert "stretto/py.typed" in wheel_names


@pytest.mark.slow
def test_the_default_voice_is_in_it_and_small(wheel_names: dict[str, int]) -> None:
    voice = {n: s for n, s in wheel_names.items() if n.startswith("stretto/assets/default/")}
    assert "stretto/assets/default/asset/gpt/model.safetensors" in voice
    assert "stretto/assets/default/MODEL_CARD.md" in voice
    assert sum(voice.values()) <= MAX_VOICE_BYTES
