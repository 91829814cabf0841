"""What a GPU would run, on torch's `meta` device, whose tensors have shapes and no values.

Asking such a tensor for a value raises, so what passes here waits for no device: no `item`, no
boolean index, no branch on data. Nor does it call a kernel that is made for the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from stretto.model_executor import model_runner
from stretto.model_executor.attention.interface import AttentionMetadata
from stretto.model_executor.frame_store import FrameStore
from stretto.model_executor.interfaces import Prompt, ResolvedSampling
from stretto.model_executor.model_runner import ModelRunner
from stretto.model_executor.models.checkpoint import Checkpoint, load_checkpoint
from stretto.model_executor.models.registry import load_speech_model
from stretto.model_executor.transfer import HostArray
from stretto.model_executor.vocoder_graphs import VocoderGraphs
from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.frame_vocoder import load_vocoder
from stretto.scheduler.interfaces import (
    ScheduledSequence,
    SchedulerOutput,
    VocoderBatch,
    VocoderJob,
)
from tests.model_executor.tiny import ASSETS

META = torch.device("meta")
PROMPT = 5  # tokens


@pytest.fixture(params=[str(ASSETS / "ckpt"), "default"], ids=["chattts", "default"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return load_checkpoint(request.param)


class CheckedAttention:
    """Attends to nothing, and looks at what it is given."""

    takes_padding = True

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        counts = (metadata.query_start_loc, metadata.seq_lens, metadata.block_tables)
        assert {tensor.dtype for tensor in counts} == {torch.int32}
        assert metadata.slot_mapping.dtype == torch.int64
        assert all(t.is_meta for t in (query, key, value, metadata.slot_mapping, *counts))
        return torch.empty_like(query)


def on_meta(arrays: Mapping[str, HostArray], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def step(computed: int, count: int) -> SchedulerOutput:
    return SchedulerOutput(
        tuple(
            ScheduledSequence(f"s{row}", computed, count, [row], int(computed > 0), True)
            for row in range(3)
        )
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("buckets", [(), (2, 4)], ids=["eager", "graphs"])
def test_a_step_reads_nothing_back(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    buckets: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_runner, "to_device", on_meta)  # it would lock pages
    model = load_speech_model(checkpoint, dtype=dtype, device=META)
    spec = model.spec
    store = FrameStore(spec.num_codebooks, spec.hidden_size, META)
    runner = ModelRunner(model, CheckedAttention(), store, block_size=16, graph_buckets=buckets)
    sampling = ResolvedSampling(
        temperature=(0.3,) * spec.num_codebooks,
        top_p=0.7,
        top_k=20,
        repetition_penalty=1.05,
        min_new_tokens=0,
        max_new_tokens=9,
        seed=1,
    )
    speaker = np.zeros(spec.hidden_size, np.float32)
    prompt = Prompt(token_ids=np.zeros(PROMPT, np.int32), speaker=speaker, speaker_position=1)
    for row in range(3):
        runner.add_sequence(f"s{row}", prompt, sampling)
    runner.launch(step(0, PROMPT))
    runner.launch(step(PROMPT, 1))
    assert runner._graphs.num_captured == len(buckets[1:])


def test_a_vocoder_batch_reads_nothing_back(checkpoint: Checkpoint) -> None:
    """Whole, as streams, and without graphs."""
    vocoder = load_vocoder(checkpoint, device=META)
    runner, right = VocoderRunner(vocoder), vocoder.spec.right_context
    for kind in vocoder.input_kinds:
        prompt = Prompt(token_ids=np.zeros(1, np.int32), vocoder_input=kind)
        width = vocoder.blank_frames(1, kind).shape[1]
        store = FrameStore(checkpoint.gpt.num_vq, width, META)
        store.add("s")
        store.reserve("s", 300)
        jobs = (
            VocoderJob("s", 0, 7, 0, 7 + right, is_last=False),
            VocoderJob("s", 7, 20, 0, 20 + right, is_last=False),
            VocoderJob("s", 0, 40, 0, 40, is_last=True),
        )
        graphs = VocoderGraphs(
            vocoder,
            store,
            lambda _, prompt=prompt: prompt,  # type: ignore[misc]
            lambda batch: [],
            num_streams=2,
            max_batch_frames=64,
        )
        for job in jobs:
            (audio,) = graphs.launch(VocoderBatch((job,)))
            (eager,) = runner.launch([vocoder.blank_frames(job.num_window_frames, kind)], [job])
            assert audio.is_meta
            assert audio.shape == eager.shape
