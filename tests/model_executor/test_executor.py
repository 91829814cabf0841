"""`LocalExecutor` on the tiny checkpoint: from a prompt to waveforms, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from stretto.model_executor.executor import (
    ExecutorConfig,
    LocalExecutor,
    resolve_device,
    resolve_dtype,
)
from stretto.model_executor.memory import parse_size
from stretto.scheduler.interfaces import (
    ScheduledSequence,
    SchedulerOutput,
    VocoderBatch,
    VocoderJob,
)
from tests.model_executor.tiny import ASSETS, Case

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def executor() -> LocalExecutor:
    config = ExecutorConfig(model=str(ASSETS / "ckpt"), kv_cache_memory="2MiB", max_num_seqs=3)
    return LocalExecutor(config)


def test_it_says_what_is_loaded(executor: LocalExecutor) -> None:
    assert executor.model_info.architecture == "ChatTTS"
    assert executor.model_info.sample_rate == 24_000
    assert executor.speech_spec.frame_rate == 46.875
    assert executor.speech_spec.text_eos_id == 308
    assert executor.vocoder_spec.input_kind == "hidden"
    position = 2 * 3 * 64 * 4  # keys and values, layers, width, bytes
    assert executor.num_kv_blocks == 2 * 2**20 // (16 * position)


def test_a_prompt_becomes_a_waveform(executor: LocalExecutor) -> None:
    case = Case("single1")
    prompt = case.prompts[0]
    executor.add_sequence("a", prompt, case.sampling)
    computed = 0
    for _ in range(5):
        total = prompt.num_tokens + len(executor.generated("a"))
        item = ScheduledSequence("a", computed, total - computed, [0, 1], 0, True)
        result = executor.execute_model(SchedulerOutput((item,)))
        assert result.sampled == ("a",)
        computed = total
    num_frames = len(executor.generated("a"))
    job = VocoderJob("a", 0, num_frames, 0, num_frames, True)
    (audio,) = executor.execute_vocoder(VocoderBatch((job,)))
    assert len(audio) == num_frames * 512 - 256
    assert np.isfinite(audio).all()
    executor.remove_sequence("a")
    executor.remove_sequence("a")
    executor.check_idle()


def test_a_step_says_where_its_phases_begin(executor: LocalExecutor) -> None:
    phases: list[str] = []
    executor.watch_steps(phases.append)
    case = Case("single1")
    executor.add_sequence("a", case.prompts[0], case.sampling)
    item = ScheduledSequence("a", 0, case.prompts[0].num_tokens, [0, 1], 0, True)
    executor.execute_model(SchedulerOutput((item,)))
    executor.remove_sequence("a")
    assert phases == ["model", "sample", "end"]


def test_warm_up_leaves_nothing(executor: LocalExecutor) -> None:
    executor.warmup()
    executor.check_idle()


def test_a_held_sequence_is_found(executor: LocalExecutor) -> None:
    case = Case("single1")
    executor.add_sequence("held", case.prompts[0], case.sampling)
    with pytest.raises(AssertionError, match="still held"):
        executor.check_idle()
    executor.remove_sequence("held")


def test_settings_are_checked() -> None:
    cpu = torch.device("cpu")
    assert resolve_dtype("auto", cpu) is torch.float32
    with pytest.raises(ValueError, match="dtype must be"):
        resolve_dtype("int8", cpu)
    with pytest.raises(ValueError, match="needs CUDA"):
        resolve_dtype("float16", cpu)
    with pytest.raises(ValueError, match="device must be"):
        resolve_device("tpu")


@pytest.mark.parametrize(
    ("text", "size"), [("512MiB", 2**29), ("2GB", 2 * 10**9), ("1.5 KiB", 1536), ("7", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1GB", "0", "3 parsecs"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_compiled_kernels_are_imported_only_where_they_run() -> None:
    """Beside a GPU numba may be missing, or refuse the NumPy it finds."""
    code = "import sys; sys.modules['numba'] = None; import stretto.model_executor.executor"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
