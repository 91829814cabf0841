"""`ModelRunner`: one step of the speech model over the paged cache, from plan to drawn frames.

It prepares inputs, runs the model and the sampler, keeps what was drawn, and reports who stopped.
`launch` queues a step on the device without waiting for it and `collect` waits for its draws, so
that the next step can be prepared in between. It never decides what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..scheduler.interfaces import ModelRunnerOutput, SchedulerOutput
from .attention.interface import AttentionBackend, AttentionMetadata
from .cuda_graphs import Padding, StepGraphs
from .frame_store import SCRATCH_ROW, FrameStore
from .input_batch import FIRST_ROWS, BatchPlan, InputBatch, SampleGroup
from .interfaces import IntArray, OutputKind, Prompt, ResolvedSampling
from .models.llama_speech import LlamaSpeech
from .sampler import PENALTY_WINDOW, Sampler, SamplingTensors
from .transfer import HostCopy, to_device

StepPhase = Literal["model", "sample", "end"]
"""What a step does next; before the first of them it prepares its inputs."""


@dataclass(frozen=True, slots=True, eq=False)
class PendingStep:
    """A step in flight: for each group, its draws [S, num_codebooks] on their way."""

    groups: tuple[tuple[SampleGroup, HostCopy], ...]


class ModelRunner:
    """Runs one speech model.

    Args:
        model: the weights.
        attention: the backend that holds the KV cache.
        store: where frames and hidden states are kept.
        block_size: positions in a KV block.
        graph_buckets: batch sizes at which decode steps run as graphs; none by default. The
            backend must then take padding rows (slots below 0, sequences of length 0).

    Attributes:
        samplers: by output kind; a test may replace them to force draws.
        on_phase: called where a step's next phase begins, for measurements; steps that run as
            graphs have no phases.
    """

    def __init__(
        self,
        model: LlamaSpeech,
        attention: AttentionBackend,
        store: FrameStore,
        *,
        block_size: int,
        graph_buckets: Sequence[int] = (),
    ) -> None:
        spec = model.spec
        self._model, self._attention, self.store = model, attention, store
        self._batch = InputBatch(
            num_codebooks=spec.num_codebooks,
            codebook_size=spec.codebook_size,
            text_vocab_size=spec.text_vocab_size,
            max_blocks=-(-spec.max_model_len // block_size),
            block_size=block_size,
            # Known sequences may outnumber running ones; growing would move what graphs point to.
            num_rows=max(FIRST_ROWS, 2 * max(graph_buckets, default=0)),
        )
        self.on_phase: Callable[[StepPhase], None] = _ignore
        self._ends = {"frames": spec.eos_id, "text": spec.text_eos_id}
        create = _sampler_type(model.device)
        self.samplers = {kind: create(end) for kind, end in self._ends.items() if end is not None}
        # The last row belongs to no sequence: padding rows write there.
        self._windows = self._new_windows(self._batch.num_rows + 1)
        self._graphs = StepGraphs(self._decode, graph_buckets, model.device, self._anchors)

    @property
    def num_sequences(self) -> int:
        """Sequences that are known."""
        return len(self._batch)

    @torch.inference_mode()
    def add_sequence(self, seq_id: str, prompt: Prompt, sampling: ResolvedSampling) -> None:
        """Make a sequence known, with the frames of its prompt."""
        state = self._batch.add(seq_id, prompt, sampling)
        self.store.add(seq_id)
        missing = self._batch.num_rows + 1 - len(self._windows)
        if missing:
            self._windows = torch.cat([self._windows, self._new_windows(missing)])
        self._windows[state.row] = self._padding(prompt)
        if prompt.frames is not None:
            self._store_prompt_frames(seq_id, prompt.frames)

    def remove_sequence(self, seq_id: str) -> None:
        """Forget a sequence; unknown ids are ignored."""
        if seq_id in self._batch:
            self._batch.remove(seq_id)
            self.store.remove(seq_id)

    def prompt(self, seq_id: str) -> Prompt:
        """What a sequence was given."""
        return self._batch.state(seq_id).prompt

    def generated(self, seq_id: str) -> IntArray:
        """Draws so far: int32 [num_frames, num_codebooks], or [n, 1] text ids."""
        state = self._batch.state(seq_id)
        columns = self._model.spec.num_codebooks if state.prompt.output == "frames" else 1
        return np.array(state.drawn, dtype=np.int32).reshape(-1, columns)

    def window(self, seq_id: str, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes int64 [T, C] and hidden states float32 [T, hidden] of drawn frames start to end."""
        skipped = self._batch.state(seq_id).num_prompt_frames
        rows = self.store.rows(seq_id, start + skipped, end + skipped)
        index = to_device({"rows": rows}, self._model.device)["rows"]
        return self.store.codes[index], self.store.hidden[index]

    def execute(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Run a step and wait for its draws."""
        return self.collect(self.launch(output))

    @torch.inference_mode()
    def launch(self, output: SchedulerOutput) -> PendingStep:
        """Queue a step; returns before the device has run it."""
        if not output.scheduled:
            return PendingStep(())
        plan = self._batch.plan(output.scheduled)
        if plan.is_decode and self._graphs.fits(len(plan.states)):
            return PendingStep(((plan.groups[0], HostCopy(self._launch_graph(plan))),))
        residual = self._forward(plan)
        self.on_phase("sample")
        draws = [(group, HostCopy(self._draw(group, residual))) for group in plan.groups]
        self.on_phase("end")
        return PendingStep(tuple(draws))

    def collect(self, pending: PendingStep) -> ModelRunnerOutput:
        """Wait for a step's draws, keep them, and say who drew and who stopped."""
        sampled: list[str] = []
        stopped: set[str] = set()
        for group, copy in pending.groups:
            draws = copy.wait().astype(np.int32)
            ended = (draws == self._ends[group.kind]).any(1).tolist()
            for state, codes, end in zip(group.states, draws, ended, strict=True):
                sampled.append(state.seq_id)
                if end or state.stopped:
                    state.stopped = True
                    stopped.add(state.seq_id)
                else:
                    state.drawn.append(codes)
        return ModelRunnerOutput(tuple(sampled), frozenset(stopped))

    def _forward(self, plan: BatchPlan) -> torch.Tensor:
        """Residual stream [N, hidden] of all scheduled positions."""
        arrays = self._batch.attention_arrays(plan)
        arrays |= self._batch.embedding_arrays(plan, self.store)
        tensors = to_device(arrays, self._model.device)
        metadata = AttentionMetadata(
            query_start_loc=tensors["query_start_loc"],
            seq_lens=tensors["seq_lens"],
            block_tables=tensors["block_tables"],
            slot_mapping=tensors["slot_mapping"],
            max_query_len=int(plan.counts.max()),
            max_seq_len=int((plan.computed + plan.counts).max()),
        )
        embeddings = self._embed(tensors, len(arrays["positions"]))
        self.on_phase("model")
        return self._model.forward(embeddings, tensors["positions"], metadata, self._attention)

    def _embed(self, tensors: dict[str, torch.Tensor], num_positions: int) -> torch.Tensor:
        """Input embeddings [N, hidden] float32; the speaker replaces its position's row."""
        model, codes = self._model, self.store.codes
        if len(tensors["frame_index"]) == num_positions:
            return model.embed_frames(codes[tensors["frame_source"]])
        out = torch.empty(num_positions, model.spec.hidden_size, device=model.device)
        out[tensors["text_index"]] = model.embed_text(tensors["text_source"])
        out[tensors["frame_index"]] = model.embed_frames(codes[tensors["frame_source"]])
        out[tensors["drawn_index"]] = model.embed_text(codes[tensors["drawn_source"], 0])
        if "speakers" in tensors:
            out[tensors["speaker_index"]] = tensors["speakers"]
        return out

    def _draw(self, group: SampleGroup, residual: torch.Tensor) -> torch.Tensor:
        """Draw one id per codebook for the group's sequences: [S, C] (text: [S, 1])."""
        tensors = to_device(self._batch.sampling_arrays(group, self.store), self._model.device)
        return self._draw_rows(group.kind, residual, tensors, self._race(group))

    def _draw_rows(
        self,
        kind: OutputKind,
        residual: torch.Tensor,
        tensors: dict[str, torch.Tensor],
        race: torch.Tensor | None,
    ) -> torch.Tensor:
        """Draw from the rows `last` of the residual, and store what was drawn with its state."""
        hidden = self._model.final_norm(residual[tensors["last"]])
        logits = self._model.text_logits(hidden) if kind == "text" else self._model.logits(hidden)
        draws = self.samplers[kind](logits, self._sampling_tensors(tensors, race))
        frames = draws.expand(-1, self._model.spec.num_codebooks)
        self._windows[tensors["rows"], tensors["ring"]] = frames
        self.store.write(tensors["store_rows"], frames, hidden)
        return draws

    def _sampling_tensors(
        self, tensors: dict[str, torch.Tensor], race: torch.Tensor | None
    ) -> SamplingTensors:
        columns = tensors["temperature"].shape[1]
        return SamplingTensors(
            temperature=tensors["temperature"],
            top_p=tensors["top_p"],
            top_k=tensors["top_k"],
            repetition_penalty=tensors["repetition_penalty"],
            ban_eos=tensors["ban_eos"],
            window=self._windows[tensors["rows"]][..., :columns],
            uniform=tensors["uniform"],
            race=race,
            uses_race=tensors["uses_race"],
        )

    def _launch_graph(self, plan: BatchPlan) -> torch.Tensor:
        """Queue a decode step as one graph: draws [B, C]."""
        arrays = self._batch.attention_arrays(plan)
        del arrays["query_start_loc"]  # one position each
        arrays["frame_source"] = self._batch.newest_frames(plan, self.store)
        arrays |= self._batch.sampling_arrays(plan.groups[0], self.store)
        return self._graphs.run(arrays, self._paddings(), len(plan.states))

    def _paddings(self) -> dict[str, Padding]:
        """Padding rows read and write rows that belong to nobody."""
        nothing = dict.fromkeys(("positions", "seq_lens", "ring", "last"), Padding())
        flags = dict.fromkeys(("ban_eos", "uses_race"), Padding())
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "uniform")
        store_row = Padding(SCRATCH_ROW)
        return {
            **nothing,
            **flags,
            **dict.fromkeys(names, Padding(1)),
            "block_tables": Padding(width=self._batch.max_blocks),
            "slot_mapping": Padding(-1),
            "rows": Padding(len(self._windows) - 1),
            "frame_source": store_row,
            "store_rows": store_row,
        }

    def _decode(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """What a graph runs: from the newest frames to the next draws [B, C]."""
        positions = tensors["positions"]
        starts = torch.arange(len(positions) + 1, dtype=torch.int32, device=positions.device)
        metadata = AttentionMetadata(
            query_start_loc=starts,
            seq_lens=tensors["seq_lens"],
            block_tables=tensors["block_tables"],
            slot_mapping=tensors["slot_mapping"],
            max_query_len=1,
            max_seq_len=self._model.spec.max_model_len,
        )
        embeddings = self._model.embed_frames(self.store.codes[tensors["frame_source"]])
        residual = self._model.forward(embeddings, positions, metadata, self._attention)
        return self._draw_rows("frames", residual, tensors, None)

    def _anchors(self) -> tuple[torch.Tensor, ...]:
        return self._windows, self.store.codes, self.store.hidden

    def _race(self, group: SampleGroup) -> torch.Tensor | None:
        """Upstream's noise [S, C, V] of the rows that use it (others: ones), or None."""
        given = [state.race for state in group.states if state.race is not None]
        if not given:
            return None
        blank = torch.ones_like(given[0])
        rows = [blank if state.race is None else state.race for state in group.states]
        stacked = torch.stack(rows)
        if self._model.device.type == "cuda":
            stacked = stacked.pin_memory()
        return stacked.to(self._model.device, non_blocking=True)

    def _padding(self, prompt: Prompt) -> int:
        """The id that stands for "no code" in a penalty window: one past the vocabulary."""
        spec = self._model.spec
        return spec.codebook_size if prompt.output == "frames" else spec.text_vocab_size

    def _new_windows(self, rows: int) -> torch.Tensor:
        """Penalty windows int64 [rows, PENALTY_WINDOW, num_codebooks], written as rings."""
        spec = self._model.spec
        shape = (rows, PENALTY_WINDOW, spec.num_codebooks)
        return torch.zeros(shape, dtype=torch.int64, device=self._model.device)

    def _store_prompt_frames(self, seq_id: str, frames: IntArray) -> None:
        self.store.reserve(seq_id, len(frames))
        rows = self.store.rows(seq_id, 0, len(frames))
        arrays = {"rows": rows, "codes": frames.astype(np.int64)}
        tensors = to_device(arrays, self._model.device)
        blank = torch.zeros(len(frames), self.store.hidden.shape[1], device=self._model.device)
        self.store.write(tensors["rows"], tensors["codes"], blank)


def _sampler_type(device: torch.device) -> type[Sampler]:
    """The faster one for the device. Compiled kernels are imported where they run."""
    if device.type != "cpu":
        return Sampler
    from .cpu_sampler import CpuSampler

    return CpuSampler


def _ignore(phase: StepPhase) -> None:
    """Nobody measures."""
