"""The public names: all there, documented, and quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stretto

EXPECTED = {
    "AsyncSpeechEngine",
    "AudioChunk",
    "EngineConfig",
    "SamplingParams",
    "SpeechEngine",
    "SpeechRequest",
    "SpeechResult",
    "Voice",
    "StrettoError",
    "RequestError",
}


def test_the_promised_names_are_public() -> None:
    assert set(stretto.__all__) >= EXPECTED
    assert stretto.__all__ == sorted(stretto.__all__) == dir(stretto)


@pytest.mark.parametrize("name", stretto.__all__)
def test_every_name_exists_and_is_documented(name: str) -> None:
    thing = getattr(stretto, name)
    assert thing.__name__ == name
    assert thing.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = stretto.Nothing


@pytest.mark.parametrize("command", ["import stretto", "import stretto.__main__"])
def test_importing_loads_nothing_heavy(command: str) -> None:
    code = (
        f"{command}\nimport sys\n"
        "heavy = {'torch', 'numpy', 'aiohttp', 'zmq', 'av', 'tqdm'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stderr


def test_help_loads_no_torch() -> None:
    code = (
        "import contextlib, io, sys\nfrom stretto.__main__ import main\n"
        "for command in ([], ['say'], ['generate'], ['serve'], ['voices']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main([*command, '--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stderr
