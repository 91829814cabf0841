"""The command line: what it prints, what it writes, and errors in one line."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from stretto.__main__ import build_parser, main
from stretto.engine import commands
from stretto.engine.cli_arguments import config_from_arguments
from stretto.engine.config import EngineConfig
from stretto.server.config import ServerConfig

# Seconds on a quiet machine; a starved one may take its time.
pytestmark = pytest.mark.timeout(600)

TINY = Path(__file__).parent / "assets" / "chattts_tiny" / "ckpt"
SAY = ["say", "Hello there.", "--model", str(TINY), "--no-warmup", "--max-new-tokens", "40"]


def parse(*argv: str) -> argparse.Namespace:
    return build_parser().parse_args(argv)


# Options.


@pytest.mark.parametrize("command", [["say", "x", "-o", "x.wav"], ["serve"], ["voices"]])
def test_defaults_are_the_fields_own(command: list[str]) -> None:
    assert config_from_arguments(parse(*command), EngineConfig) == EngineConfig()


def test_server_defaults_are_the_fields_own() -> None:
    assert config_from_arguments(parse("serve"), ServerConfig) == ServerConfig()


def test_the_promised_options_exist() -> None:
    args = parse(
        *[
            "say",
            "text",
            "-o",
            "x.wav",
            "--model",
            "m",
            "--device",
            "cpu",
            "--dtype",
            "float32",
            "--max-num-seqs",
            "3",
        ],
        *[
            "--max-num-batched-tokens",
            "99",
            "--kv-cache-memory",
            "5MiB",
            "--seed",
            "4",
            "--voice",
            "v",
        ],
        *["--speed", "1.5", "--no-enable-prefix-caching"],
    )
    config = config_from_arguments(args, EngineConfig)
    assert config == EngineConfig(
        model="m",
        device="cpu",
        dtype="float32",
        max_num_seqs=3,
        max_num_batched_tokens=99,
        kv_cache_memory="5MiB",
        seed=4,
        default_voice="v",
        enable_prefix_caching=False,
    )
    assert args.speed == 1.5


def test_a_speaker_file_is_the_requests_voice(tmp_path: Path) -> None:
    args = parse("say", "text", "-o", "x.wav", "--voice", "some.pt")
    request = commands.speech_request(args, "text")
    assert not isinstance(request.voice, str)
    assert request.voice is not None
    assert request.voice.path == "some.pt"
    assert commands.engine_config(args).default_voice is None


def test_a_reference_recording_is_read(tmp_path: Path) -> None:
    path = tmp_path / "me.wav"
    path.write_bytes(b"RIFF")
    args = parse("say", "x", "-o", "x.wav", "--ref-audio", str(path), "--ref-text", "my words")
    voice = commands.speech_request(args, "x").voice
    assert voice is not None
    assert not isinstance(voice, str)
    assert (voice.audio, voice.transcript) == (b"RIFF", "my words")


# Speaking, with the tiny checkpoint.


def test_say_writes_a_file_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "sub" / "hello.wav"
    assert main([*SAY, "--seed", "5", "-o", str(target)]) == 0
    audio, rate = soundfile.read(target)
    assert rate == 24000
    assert len(audio) > 1000
    printed = capsys.readouterr().out
    assert printed.startswith(f"wrote {target}: {len(audio) / rate:.2f} s of audio in ")
    assert "real-time factor" in printed
    assert "seed 5" in printed


def test_say_reads_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello from a pipe."))
    target = tmp_path / "hello.flac"
    assert main(["say", "-", *SAY[2:], "-o", str(target)]) == 0
    assert soundfile.info(target).format == "FLAC"


def test_voices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voices", "--model", str(TINY)]) == 0
    assert "(default)" in capsys.readouterr().out


def test_voices_are_listed_without_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ckpt"
    shutil.copytree(TINY, folder)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"unreadable")
    assert main(["voices", "--model", str(folder)]) == 0
    assert "(default)" in capsys.readouterr().out


def test_generate_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "out"
    source.write_text("Hello there.\nGood bye.\n")
    command = ["generate", str(source), "-o", str(out), *SAY[2:]]
    assert main(command) == 0
    assert "2 done, 0 already there, 0 failed" in capsys.readouterr().out
    source.write_text("Hello there.\nGood bye.\n...\n")
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "0 done, 2 already there, 1 failed" in captured.out
    assert "000003: " in captured.err


@pytest.mark.slow
def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    target = tmp_path / "hello.wav"
    done = run("say", *SAY[1:], "-o", str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert target.exists()
    failed = run("say", "...", *SAY[2:], "-o", str(target))
    assert failed.returncode == 2
    assert failed.stderr.startswith("stretto: error: ")
    assert failed.stderr.count("\n") == 1


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "stretto", "--log-level", "error", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


# Errors.


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["say", "  ", "-o", "x.wav"], 2, "text is empty"),
        (["say", "x", "-o", "x.wav", "--speed", "nan"], 2, "speed must be"),
        (["say", "x", "-o", "x.wav", "--speed", "-1"], 2, "speed must be"),
        (["say", "x", "-o", "x.wav", "--temperature", "0"], 2, "temperature must be"),
        (["say", "x", "-o", "x.wav", "--top-p", "1.5"], 2, "top_p must be"),
        (["say", "x", "-o", "x.xyz"], 2, "cannot write x.xyz"),
        (["say", "x", "-o", "x.wav", "--ref-text", "words"], 2, "--ref-audio"),
        (["say", "x", "-o", "x.wav", "--ref-audio", "nowhere.wav"], 2, "no such file"),
        (["say", "x", "-o", "x.wav", "--voice", "nobody"], 2, "nobody"),
        (["say", "x", "-o", "x.wav", "--seed", "-3"], 2, "seed"),
        (["say", "x", "-o", "x.wav", "--device", "cuda"], 2, "cuda"),
        (["say", "x", "-o", "x.wav", "--max-num-seqs", "0"], 2, "max_num_seqs"),
        (["generate", "nowhere.txt", "-o", "out"], 2, "no such file"),
    ],
)
def test_errors_are_one_line(
    argv: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*argv, "--model", str(TINY), "--no-warmup"]) == code
    error = capsys.readouterr().err
    assert error.startswith("stretto: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.glob("x.*"))


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "x", "-o", "x.wav", "--model", "no/such/folder"]) != 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no/such/folder" in error


def test_wrong_use_is_told_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["say", "x"])
    assert caught.value.code == 2
    assert "-o" in capsys.readouterr().err
