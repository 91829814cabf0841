"""The README's snippets run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("code", snippets("python"), ids=range(len(snippets("python"))))
def test_python_snippets_run(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_first_command_speaks(tmp_path: Path) -> None:
    command = re.search(r"stretto say (.*?) -o (\S+)", README)
    assert command is not None
    text, target = command.group(1).strip('"'), command.group(2)
    done = subprocess.run(
        [sys.executable, "-m", "stretto", "say", text, "-o", target],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / target).stat().st_size > 20_000


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target
