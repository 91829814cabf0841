"""Trains the speech model on frozen codes, with guided attention and a phone loss.

Free-running speech needs both helpers early: one attention head in two layers is taught to look at
the token being spoken, and a middle layer to name it and the two after it. Neither is shipped.
A second phase goes on from the first at a lower rate, with a share of short texts. Validation loss
does not rank checkpoints; choose by recognised speech (``evaluate.py``).
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Utterance
from .language_model import GPTShape, Layer, SpeechGPT, rotary

__all__ = ["FIRST_PHASE", "SECOND_PHASE", "Batch", "Phase", "Source", "batches", "train_gpt"]

_TOKENS_PER_BATCH = 4096
_WARMUP_STEPS = 150
_EMA = 0.998
_SAVE_SECONDS = 150.0
_IGNORE = -100


@dataclass(frozen=True)
class Source:
    """Utterances with their codes int16 [frames, codebooks], and the share of batches they fill."""

    utterances: list[Utterance]
    codes: list[npt.NDArray[np.int16]]
    share: float = 1.0


@dataclass(frozen=True)
class Phase:
    """A learning-rate schedule: warm up to ``peak``, stay for ``hold`` of the time, fall to 0."""

    peak: float
    hold: float

    def rate(self, step: int, share: float) -> float:
        """The rate of the ``step``-th step, after ``share`` of the time."""
        return self.peak * min(
            1.0, (step + 1) / _WARMUP_STEPS, max(0.0, (1 - share) / (1 - self.hold))
        )


FIRST_PHASE = Phase(2e-3, 0.4)
SECOND_PHASE = Phase(7e-4, 0.0)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of one batch; ``rows * length <= 4096``.

    ``tokens`` [rows, length] text ids, 0 in frames; ``codes`` [rows, length, codebooks] inputs;
    ``is_frame`` [rows, length]; ``targets`` [rows, length, codebooks] with -100 where none;
    ``spoken`` [rows, length] index of the token that the predicted frame speaks, or -100;
    ``speaker`` [rows].
    """

    tokens: Tensor
    codes: Tensor
    is_frame: Tensor
    targets: Tensor
    spoken: Tensor
    speaker: Tensor


def _collate(items: list[tuple[Utterance, npt.NDArray[np.int16]]], end: int) -> Batch:
    length = max(len(u.tokens) + len(codes) for u, codes in items)
    books = items[0][1].shape[1]
    tokens = torch.zeros(len(items), length, dtype=torch.long)
    codes_in = torch.zeros(len(items), length, books, dtype=torch.long)
    is_frame = torch.zeros(len(items), length, dtype=torch.bool)
    targets = torch.full((len(items), length, books), _IGNORE)
    spoken = torch.full((len(items), length), _IGNORE)
    for row, (utterance, codes) in enumerate(items):
        start, count = len(utterance.tokens), len(codes)
        tokens[row, :start] = torch.from_numpy(utterance.tokens.astype(np.int64))
        frames = torch.from_numpy(codes.astype(np.int64))
        codes_in[row, start : start + count] = frames
        is_frame[row, start : start + count] = True
        targets[row, start - 1 : start - 1 + count] = frames
        targets[row, start - 1 + count] = end
        alignment = torch.from_numpy(utterance.alignment.astype(np.int64))
        spoken[row, start - 1 : start - 1 + count] = alignment
        spoken[row, start - 1 + count] = start - 1
    speaker = torch.tensor([utterance.speaker for utterance, _ in items])
    return Batch(tokens, codes_in, is_frame, targets, spoken, speaker)


def batches(sources: Sequence[Source], seed: int) -> Iterator[Batch]:
    """Endless batches, each of one source, drawn by the sources' shares."""
    random = np.random.default_rng(seed)
    weights = np.array([source.share for source in sources])
    epochs = [_epochs(source, np.random.default_rng(seed)) for source in sources]
    while True:
        yield next(epochs[random.choice(len(epochs), p=weights / weights.sum())])


def _epochs(source: Source, random: np.random.Generator) -> Iterator[Batch]:
    """Endless epochs of batches of utterances of like length, in random order."""
    utterances, codes = source.utterances, source.codes
    sizes = np.array([len(u.tokens) + len(u.alignment) for u in utterances])
    end = GPTShape().codes - 1
    while True:
        order = np.argsort(sizes + random.uniform(0, 24, len(sizes)))
        groups: list[list[int]] = [[]]
        for index in order:
            longest = max([sizes[i] for i in groups[-1]] + [sizes[index]])
            if longest * (len(groups[-1]) + 1) > _TOKENS_PER_BATCH:
                groups.append([])
            groups[-1].append(int(index))
        for place in random.permutation(len(groups)):
            yield _collate([(utterances[i], codes[i]) for i in groups[place]], end)


def _corrupt(codes: Tensor, levels: int = 5, dims: int = 4, rate: float = 0.05) -> Tensor:
    """Move some codes by one FSQ level in one dimension."""
    place = levels ** torch.randint(0, dims, codes.shape, device=codes.device)
    digit = codes // place % levels
    step = torch.where(digit == 0, 1, torch.where(digit == levels - 1, -1, 1))
    flip = (torch.rand(codes.shape, device=codes.device) < 0.5) & (digit > 0) & (digit < levels - 1)
    step = torch.where(flip, -1, step)
    return torch.where(
        torch.rand(codes.shape, device=codes.device) < rate, codes + step * place, codes
    )


def _rows(flat: Tensor, rows: int, length: int) -> Tensor:
    """[tokens, heads, size] to [rows, length, heads, size]; the padding after them is dropped."""
    return flat[: rows * length].view(rows, length, *flat.shape[1:])


class Trainer(nn.Module):
    """One training pass: losses of a batch."""

    def __init__(self, model: SpeechGPT) -> None:
        super().__init__()
        self.model = model
        self._before = torch.compile(Layer.before, dynamic=False)
        self._after = torch.compile(Layer.after, dynamic=False)
        self._code_loss = torch.compile(self._code_loss_eager, dynamic=False)

    def _inputs(self, batch: Batch) -> Tensor:
        model = self.model
        prompt = model.embed_prompt(batch.tokens, batch.speaker)
        frames = model.embed_codes(_corrupt(batch.codes))
        rate = torch.rand(len(batch.tokens), 1, device=frames.device) * 0.3
        shown = torch.rand(batch.is_frame.shape, device=frames.device) >= rate
        frames = frames * shown[..., None]
        return torch.where(batch.is_frame[..., None], frames, prompt)

    def _scores(self, q: Tensor, k: Tensor, rows: int, length: int) -> Tensor:
        """Masked attention scores [rows, heads, length, length] of flat q, k [tokens, heads, d].

        Plain products: on CPU they train twice as fast as the fused attention's backward pass.
        """
        q4, k4 = (_rows(part, rows, length).transpose(1, 2) for part in (q, k))
        hidden = torch.full((length, length), -1e4, dtype=q.dtype, device=q.device).triu(1)
        scores: Tensor = (q4 * q.shape[-1] ** -0.5) @ k4.transpose(2, 3) + hidden
        return scores

    def _attend(self, scores: Tensor, v: Tensor) -> Tensor:
        """Attention output [tokens, width]."""
        rows, _, length, _ = scores.shape
        used = rows * length
        v4 = _rows(v, rows, length).transpose(1, 2)
        out = torch.softmax(scores, -1, dtype=scores.dtype) @ v4
        return F.pad(out.transpose(1, 2).reshape(used, -1), (0, 0, 0, len(v) - used))

    def _guide(self, scores: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of head 0's attention against the token being spoken."""
        head = scores[:, 0].float().flatten(0, 1)
        return F.cross_entropy(head, batch.spoken.flatten(), ignore_index=_IGNORE)

    def _phone_loss(self, x: Tensor, batch: Batch) -> Tensor:
        wanted = batch.spoken.flatten() != _IGNORE
        logits = self.model.phone_head(x[: len(wanted)][wanted]).float()
        last = batch.tokens.shape[1] - 1
        loss = logits.new_zeros(())
        for ahead, part in enumerate(logits.chunk(3, -1)):
            place = (batch.spoken + ahead).clamp(0, last)
            label = batch.tokens.gather(1, place).flatten()[wanted]
            loss = loss + F.cross_entropy(part, label)
        mean: Tensor = loss / 3
        return mean

    def _code_loss_eager(self, x: Tensor, targets: Tensor) -> Tensor:
        hidden = self.model.gpt.norm(x)
        losses = [
            F.cross_entropy(head(hidden).float(), targets[:, i], ignore_index=_IGNORE)
            for i, head in enumerate(self.model.head_code)
        ]
        return torch.stack(losses).mean()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Code, guidance and phone losses (means over frames)."""
        shape, (rows, length) = self.model.shape, batch.tokens.shape
        spare = _TOKENS_PER_BATCH - rows * length
        x = F.pad(self._inputs(batch).flatten(0, 1), (0, 0, 0, spare)).bfloat16()
        positions = F.pad(torch.arange(length).repeat(rows), (0, spare)).to(x.device)
        cos, sin = rotary(positions, shape.width // shape.heads)
        guide = phone = x.new_zeros((), dtype=torch.float32)
        for index, layer in enumerate(self.model.gpt.layers):
            assert isinstance(layer, Layer)
            q, k, v = self._before(layer, x, cos, sin)
            scores = self._scores(q, k, rows, length)
            if index in shape.guided_layers:
                guide = guide + self._guide(scores, batch) / len(shape.guided_layers)
            x = self._after(layer, x, self._attend(scores, v))
            if index == shape.phone_layer:
                phone = self._phone_loss(x, batch)
        targets = F.pad(batch.targets.flatten(0, 1), (0, 0, 0, spare), value=_IGNORE)
        return self._code_loss(x, targets), guide, phone


def _optimizers(model: SpeechGPT) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.gpt.layers.parameters() if p.dim() == 2]
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.01),
    ]


@dataclass
class _Run:
    model: SpeechGPT
    average: SpeechGPT
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".part")
        torch.save(self.state(), partial)
        partial.rename(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]

    def follow(self) -> None:
        """Move the average towards the model."""
        keep = min(_EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
            for average, parameter in pairs:
                average.lerp_(parameter, 1 - keep)


def _train_step(run: _Run, trainer: Trainer, batch: Batch, rate: float) -> tuple[float, ...]:
    device = next(run.model.parameters()).device
    batch = Batch(*(getattr(batch, name).to(device) for name in Batch.__dataclass_fields__))
    with torch.autocast(device.type, torch.bfloat16):
        code, guide, phone = trainer(batch)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
    (code + 0.1 * guide + 0.1 * phone).backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        optimizer.step()
    run.step += 1
    run.follow()
    return code.item(), guide.item(), phone.item()


def train_gpt(
    sources: Sequence[Source],
    path: Path,
    minutes: float,
    device: torch.device,
    phase: Phase = FIRST_PHASE,
    start: Path | None = None,
) -> SpeechGPT:
    """Train up to ``minutes`` in all, going on from ``path`` if it is there, else from ``start``.

    On CPU the minutes are this thread's processor time, so that a busy machine costs no training.
    Returns the running average of the weights.
    """
    torch.manual_seed(0)
    model = SpeechGPT(GPTShape()).to(device)
    run = _Run(model, copy.deepcopy(model), _optimizers(model))
    if path.exists():
        run.load(path)
    elif start is not None:
        run.load(start)
        run.step, run.seconds = 0, 0.0
    clock = time.thread_time if device.type == "cpu" else time.monotonic
    _train(run, batches(sources, seed=run.step), path, minutes, phase, clock)
    return run.average.eval()


def _train(
    run: _Run,
    data: Iterator[Batch],
    path: Path,
    minutes: float,
    phase: Phase,
    clock: Callable[[], float],
) -> None:
    """Steps until ``run.seconds`` by ``clock`` reach ``minutes``, saved to ``path``."""
    trainer = Trainer(run.model)
    begin, saved = clock() - run.seconds, clock()
    tokens = 0
    for batch in data:
        run.seconds = clock() - begin
        share = run.seconds / (60 * minutes)
        if share >= 1:
            break
        losses = _train_step(run, trainer, batch, phase.rate(run.step, share))
        tokens += batch.tokens.numel()
        if run.step % 50 == 0:
            text = " ".join(f"{loss:.3f}" for loss in losses)
            print(f"gpt step {run.step} {run.seconds:.0f} s {tokens} tokens {text}", flush=True)
        if clock() - saved > _SAVE_SECONDS:
            run.save(path)
            saved = clock()
    run.save(path)
