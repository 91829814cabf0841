"""The tiny ChatTTS checkpoint, its golden numbers, and drivers that need no engine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stretto.model_executor.attention.interface import AttentionBackend
from stretto.model_executor.attention.selector import KVCacheShape, create_attention
from stretto.model_executor.frame_store import FrameStore
from stretto.model_executor.interfaces import Prompt, ResolvedSampling
from stretto.model_executor.model_runner import ModelRunner
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.models.llama_speech import LlamaSpeech
from stretto.model_executor.models.registry import load_speech_model
from stretto.model_executor.sampler import Sampler, SamplingTensors
from stretto.scheduler.interfaces import NewSequence, SchedulerConfig
from stretto.scheduler.scheduler import Scheduler

ASSETS = Path(__file__).parents[1] / "assets" / "chattts_tiny"
CPU = torch.device("cpu")
BLOCK_SIZE = 4
NUM_STEPS = 16
Array = npt.NDArray[Any]


@lru_cache(maxsize=1)
def golden() -> dict[str, Array]:
    """Upstream's numbers."""
    with np.load(ASSETS / "golden.npz") as file:
        return dict(file)


@lru_cache(maxsize=2)
def model(dtype: torch.dtype = torch.float32) -> LlamaSpeech:
    """The speech model of the tiny checkpoint."""
    return load_speech_model(load_checkpoint(str(ASSETS / "ckpt")), dtype=dtype, device=CPU)


def attention(name: str, num_blocks: int, dtype: torch.dtype = torch.float32) -> AttentionBackend:
    """A backend for the tiny model."""
    shape = KVCacheShape.of(
        model().spec, num_blocks=num_blocks, block_size=BLOCK_SIZE, dtype=dtype, device=CPU
    )
    return create_attention(name, shape)


class ForcedSampler(Sampler):
    """Draws what it is told, row by row, and keeps logits and probabilities.

    Args:
        forced: draws of each row, by the row's temperature-independent order of arrival.
    """

    def __init__(self, eos_id: int) -> None:
        super().__init__(eos_id)
        self.next_draws: list[Array] = []
        self.logits: list[Array] = []
        self.probs: list[Array] = []

    def __call__(self, logits: torch.Tensor, tensors: SamplingTensors) -> torch.Tensor:
        probs = self.probabilities(logits, tensors)
        self.logits = list((logits / tensors.temperature[..., None]).numpy())
        self.probs = list(probs.numpy())
        return torch.from_numpy(np.stack(self.next_draws))


class Case:
    """One golden case: prompts, forced draws and expectations of its rows."""

    def __init__(self, name: str) -> None:
        data = golden()
        self.name = name
        self.is_text = name == "refine"
        ids, mask = data[f"{name}.ids"], data[f"{name}.att"].astype(bool)
        self.emb = data[f"{name}.emb"]
        self.mask = mask
        self.hidden = data[f"{name}.hidden"]
        rows = len(ids)
        columns = 1 if self.is_text else 4
        self.logits = data[f"{name}.logits"].reshape(NUM_STEPS, rows, columns, -1)
        self.probs = data[f"{name}.probs"].reshape(NUM_STEPS, rows, columns, -1)
        first = int(name[-1]) if name.startswith("single") else 0
        forced = data["refine.forced"][..., None] if self.is_text else data["forced"]
        self.forced = forced[first : first + rows]
        self.prompts = [self._prompt(ids[row][mask[row]]) for row in range(rows)]

    def _prompt(self, ids: Array) -> Prompt:
        data = golden()
        frames = data["prompt"].T if self.name == "zs" else None
        num_text = len(ids) - (0 if frames is None else len(frames))
        token_ids = ids[:num_text, 0].astype(np.int32)
        where = np.flatnonzero(token_ids == 315)
        spoken = len(where) and self.name != "refine" and self.name != "zs"
        return Prompt(
            token_ids=token_ids,
            frames=None if frames is None else frames.astype(np.int32),
            speaker=speaker() if spoken else None,
            speaker_position=int(where[0]) if spoken else None,
            output="text" if self.is_text else "frames",
        )

    @property
    def sampling(self) -> ResolvedSampling:
        """The parameters of the golden probabilities."""
        return ResolvedSampling(
            temperature=(0.7,) if self.is_text else (0.3,) * 4,
            top_p=0.7,
            top_k=20,
            repetition_penalty=1.0 if self.is_text else 1.05,
            min_new_tokens=0,
            max_new_tokens=NUM_STEPS,
            seed=1,
        )


def speaker() -> npt.NDArray[np.float32]:
    """The golden voice, normalised in half precision as upstream does for strings."""
    half = torch.from_numpy(golden()["spk"]).half()
    return torch.nn.functional.normalize(half, p=2.0, dim=0, eps=1e-12).float().numpy()


class Driver:
    """A runner under the real scheduler, stepped by hand."""

    def __init__(
        self,
        *,
        num_blocks: int = 256,
        max_batched: int = 512,
        max_num_seqs: int = 64,
        prefix_caching: bool = True,
        dtype: torch.dtype = torch.float32,
        backend: str = "auto",
    ) -> None:
        speech = model(dtype)
        self.runner = ModelRunner(
            speech,
            attention(backend, num_blocks, dtype),
            FrameStore(speech.spec.num_codebooks, speech.spec.hidden_size, CPU),
            block_size=BLOCK_SIZE,
        )
        self.scheduler = Scheduler(
            SchedulerConfig(
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_batched,
                num_blocks=num_blocks,
                block_size=BLOCK_SIZE,
                max_model_len=speech.spec.max_model_len,
                enable_prefix_caching=prefix_caching,
            )
        )
        self.now = 0.0
        self.finished: set[str] = set()

    def add(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """Submit a sequence."""
        self.runner.add_sequence(seq_id, prompt, sampling)
        new = NewSequence(
            seq_id=seq_id,
            request_id=seq_id,
            arrival_time=self.now,
            num_prompt_tokens=prompt.num_tokens,
            prefix_keys=prompt.prefix_keys(),
            prefix_salt=prompt.prefix_salt(),
            max_new_frames=sampling.max_new_tokens,
        )
        self.scheduler.add(new, self.now)

    def step(self) -> tuple[str, ...]:
        """One step; the ids that drew."""
        self.now += 1.0
        output = self.scheduler.schedule(self.now)
        result = self.runner.execute(output)
        for update in self.scheduler.update_from_output(output, result, self.now):
            if update.finish_reason is not None:
                self.finished.add(update.seq_id)
        return result.sampled

    def run(self, max_steps: int = 2000) -> None:
        """Step until nothing is left."""
        for _ in range(max_steps):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("still at work")

    def codes(self, seq_ids: Iterable[str]) -> dict[str, list[list[int]]]:
        """What each sequence drew."""
        return {seq_id: self.runner.generated(seq_id).tolist() for seq_id in seq_ids}

    def hidden(self, seq_id: str) -> Array:
        """Hidden states [T, hidden] of a sequence's frames."""
        count = len(self.runner.generated(seq_id))
        return self.runner.window(seq_id, 0, count)[1].numpy()
