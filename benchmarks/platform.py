"""How long things take on some machine, for the simulator: a model's shape and its costs.

A `Platform` is measured (`stretto bench step --platform-out`, `bench agreement`) or given as JSON.
Costs are piecewise linear in what drives them, because that is what measurements look like: a
step's price is nearly flat in the number of sequences until the device is full. The built-in
platforms that carry `assumed` in their name are roofline estimates and no measurements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..scheduler.interfaces import VocoderBatch

Points = tuple[tuple[float, float], ...]


def interpolate(points: Points, x: float) -> float:
    """Piecewise linear through `points`; beyond the ends the outer slopes go on."""
    if len(points) == 1:
        return points[0][1]
    xs = [point[0] for point in points]
    index = min(max(int(np.searchsorted(xs, x)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    return max(y0 + (y1 - y0) * (x - x0) / (x1 - x0), 0.0)


def within(points: Points, x: float) -> float:
    """Like `interpolate`, but beyond the outer points their values stay."""
    return interpolate(points, min(max(x, points[0][0]), points[-1][0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimModel:
    """The shape of a model, as far as scheduling depends on it.

    Attributes:
        frame_rate: frames per second of audio.
        samples_per_frame: samples that a frame adds.
        left_context: frames before a chunk that the vocoder reads.
        right_context: frames after it.
        max_model_len: positions of a sequence.
        num_kv_blocks: blocks of the KV cache.
        tokens_per_char: prompt positions per character of text.
        prompt_overhead: prompt positions besides the text.
        seconds_per_char: of audio, on average.
        length_sigma: spread of the logarithm of the audio's length for one text.
        max_segment_chars: longer texts are split at sentence ends.
        quiet_lead_s: of a segment's audio before anything is loud, which delivery may cut.
        quiet_tail_s: after the last that is loud.
    """

    frame_rate: float = 46.875
    samples_per_frame: int = 512
    left_context: int = 52
    right_context: int = 52
    max_model_len: int = 4096
    num_kv_blocks: int = 16384
    tokens_per_char: float = 0.3
    prompt_overhead: int = 8
    seconds_per_char: float = 0.065
    length_sigma: float = 0.1
    max_segment_chars: int = 160
    quiet_lead_s: float = 0.0
    quiet_tail_s: float = 0.0

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return round(self.frame_rate * self.samples_per_frame)

    def frames_of(self, text: str, seed: int) -> int:
        """Frames that speaking `text` takes; drawn, the same for the same seed."""
        chars = sum(3 if "\u4e00" <= char <= "\u9fff" else 1 for char in text)
        mean = chars * self.seconds_per_char * self.frame_rate
        rng = np.random.default_rng(seed)
        return max(round(mean * float(np.exp(rng.normal(0.0, self.length_sigma)))), 2)

    def tokens_of(self, text: str) -> int:
        """Positions of the prompt."""
        return self.prompt_overhead + max(round(len(text) * self.tokens_per_char), 1)


@dataclass(frozen=True, slots=True)
class VocoderWork:
    """What drives the cost of a vocoder batch.

    Attributes:
        num_rows: jobs.
        num_frames: that become audio, of all jobs.
        num_ahead_frames: of look-ahead, of the jobs that begin a stream.
    """

    num_rows: int
    num_frames: int
    num_ahead_frames: int

    @classmethod
    def of(cls, batch: VocoderBatch) -> VocoderWork:
        """The work that a batch is."""
        return cls(
            len(batch.jobs),
            sum(job.end - job.start for job in batch.jobs),
            sum(job.window_end - job.end for job in batch.jobs if job.start == 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of each piece of work.

    Attributes:
        decode: (sequences, seconds of a whole step that gives each one frame).
        prefill_s_per_token: each further position of a step.
        context_s_per_token: each cached position that a step's sequences attend to.
        vocoder: (frames that become audio in a batch, seconds). The vocoder carries its state
            from chunk to chunk, so a chunk costs its own frames and not its window.
        vocoder_s_per_ahead_frame: each frame of look-ahead of a job that begins a stream; later
            chunks have them computed already.
        vocoder_s_per_row: each job of a batch beyond the first.
        step_slowdown: (sequences, so many times as long takes a step beside a vocoder batch).
        vocoder_slowdown: (sequences of the steps, so many times as long takes a batch beside them).
        step_after_batch: (sequences, extra seconds of the step after a batch that it waited for).
        cold_after_s: seconds without work that leave the machine wholly cold; fewer, in proportion.
        cold_step: extra seconds of the step after that, (share of such steps, no more than).
        cold_vocoder: the same of the first batch after that.
        request_s: taking in a segment.
    """

    decode: Points
    prefill_s_per_token: float = 0.0
    context_s_per_token: float = 0.0
    vocoder: Points = ((0.0, 0.0), (1.0, 0.0))
    vocoder_s_per_ahead_frame: float = 0.0
    vocoder_s_per_row: float = 0.0
    step_slowdown: Points = ((1.0, 1.0),)
    vocoder_slowdown: Points = ((1.0, 1.0),)
    step_after_batch: Points = ((1.0, 0.0),)
    cold_after_s: float = 1.0
    cold_step: Points = ((0.0, 0.0),)
    cold_vocoder: Points = ((0.0, 0.0),)
    request_s: float = 0.0

    def step_s(self, num_seqs: int, num_tokens: int, num_context: int) -> float:
        """A step of `num_tokens` positions, `num_seqs` sequences and `num_context` cached ones."""
        extra = max(num_tokens - num_seqs, 0) * self.prefill_s_per_token
        return interpolate(self.decode, num_seqs) + extra + num_context * self.context_s_per_token

    def vocoder_s(self, work: VocoderWork) -> float:
        """A vocoder batch."""
        ahead_s = work.num_ahead_frames * self.vocoder_s_per_ahead_frame
        rows_s = (work.num_rows - 1) * self.vocoder_s_per_row
        return interpolate(self.vocoder, work.num_frames) + ahead_s + rows_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A model on a machine.

    Attributes:
        source: where the numbers come from.
        vocoder_beside: the vocoder runs beside the steps of the speech model, on a core of its
            own, instead of between them.
        waits_for_beginnings: steps wait for small batches that begin a stream even so; see
            `model_executor.vocoder_wait`.
    """

    name: str
    costs: Costs
    model: SimModel = field(default_factory=SimModel)
    source: str = ""
    vocoder_beside: bool = False
    waits_for_beginnings: bool = False

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Platform:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is no platform.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            costs = {key: _points(value) for key, value in data["costs"].items()}
            return cls(
                name=data["name"],
                costs=Costs(**costs),
                model=SimModel(**_known(SimModel, data.get("model", {}))),
                source=data.get("source", ""),
                vocoder_beside=data.get("vocoder_beside", False),
                waits_for_beginnings=data.get("waits_for_beginnings", False),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no platform file: {error!r}") from error


def _points(value: Any) -> Any:
    if isinstance(value, list):
        return tuple((float(x), float(y)) for x, y in value)
    return float(value)


def _known(kind: type[SimModel], data: dict[str, Any]) -> dict[str, Any]:
    unknown = set(data) - {item.name for item in fields(kind)}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    return data


def roofline(
    name: str, *, bytes_per_s: float, flops: float, launch_s: float, slowdown: float, kv_blocks: int
) -> Platform:
    """ChatTTS on a device that reaches 1/`slowdown` of its memory and compute limits.

    A step reads the weights once (189 M parameters in bf16) and the KV of each cached position
    (61,440 bytes); a position costs 2 x 189 M floating-point operations, a second of vocoded audio
    about 12 G of them per 46.875 frames.
    """
    weights = 2 * 189e6
    compute_s = slowdown * 2 * 189e6 / flops
    decode = tuple(
        (float(n), launch_s + max(slowdown * weights / bytes_per_s, n * compute_s))
        for n in (1, 64, 256, 1024, 4096)
    )
    frame_s = slowdown * 12e9 / 46.875 / flops
    return Platform(
        name=name,
        costs=Costs(
            decode=decode,
            prefill_s_per_token=compute_s,
            context_s_per_token=slowdown * 61440 / bytes_per_s,
            vocoder=((0.0, launch_s), (4096.0, launch_s + 4096 * frame_s)),
            vocoder_s_per_ahead_frame=frame_s,
        ),
        model=SimModel(num_kv_blocks=kv_blocks),
        source="assumed: a roofline, not a measurement",
    )


def builtin_platforms() -> dict[str, Platform]:
    """Platforms that need no file."""
    large = roofline(
        "h200-assumed", bytes_per_s=4.8e12, flops=4e14, launch_s=4e-4, slowdown=2.0, kv_blocks=90000
    )
    small = roofline(
        "t4-assumed", bytes_per_s=3.2e11, flops=3e13, launch_s=1e-3, slowdown=2.0, kv_blocks=12000
    )
    return {platform.name: platform for platform in (large, small)}


def find_platform(name: str) -> Platform:
    """A built-in platform by name, or one from a file.

    Raises:
        ValueError: neither.
    """
    known = builtin_platforms()
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Platform.load(Path(name))
    raise ValueError(f"no platform {name!r}: give a file, or one of {', '.join(known)}")


def fit_points(xs: Sequence[float], ys: Sequence[float]) -> Points:
    """Medians of `ys` at each distinct `xs`, ascending: the points of a measured cost."""
    groups: dict[float, list[float]] = {}
    for x, y in zip(xs, ys, strict=True):
        groups.setdefault(x, []).append(y)
    return tuple((x, float(np.median(groups[x]))) for x in sorted(groups))
