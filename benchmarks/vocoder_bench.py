"""What a second of audio costs in the vocoder: whole utterances, streamed chunks, look-aheads.

    python -m stretto.benchmarks.vocoder_bench --model FOLDER [--streamed [--lookahead N]]

Where `stretto bench vocoder` times windows through the engine's executor, this needs the vocoder's
files alone and counts what streaming adds: successive chunks of streams, given the context that
the vocoder declares, or a smaller look-ahead. CPU time of the process stands beside wall time: on
a shared machine it is the figure to trust.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter, process_time

import torch
from torch import Tensor

from ..engine.request import VocoderInput
from ..model_executor.models.checkpoint import load_checkpoint
from ..model_executor.vocoder_runner import VocoderRunner
from ..model_executor.vocoders.frame_vocoder import load_vocoder
from ..scheduler.interfaces import VocoderJob


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderTiming:
    """One shape of batch, and the fastest and the median of its launches.

    Attributes:
        rows: jobs in the batch.
        frames: frames emitted by each job.
        window_frames: frames given for each job, context included.
        launch_ms: wall time of a launch, median.
        best_ms: wall time of the fastest launch.
        cpu_ms: CPU time of a launch over all threads, median.
        audio_s: seconds of audio that a launch gives.
    """

    rows: int
    frames: int
    window_frames: int
    launch_ms: float
    best_ms: float
    cpu_ms: float
    audio_s: float


def run_vocoder_benchmark(
    runner: VocoderRunner,
    *,
    kind: VocoderInput,
    input_size: int,
    rows: Sequence[int],
    frames: Sequence[int],
    streamed: bool = False,
    lookahead: int | None = None,
    repeats: int = 10,
) -> list[VocoderTiming]:
    """Time every combination of `rows` and `frames`.

    Args:
        input_size: width of a hidden state, or codebooks of a frame.
        streamed: time successive chunks of a stream, each with its context.
        lookahead: frames of right context when streamed; None is the declared one.
        repeats: launches timed, after one that is not.
    """
    timings = []
    for count in frames:
        jobs = _chunks(runner, count, lookahead, repeats + 1) if streamed else None
        for number in rows:
            series = jobs or [_whole(count)] * (repeats + 1)
            sources = [_random_frames(kind, series[-1].window_end, input_size)] * number
            timings.append(_time(runner, sources, series))
    return timings


def _whole(frames: int) -> VocoderJob:
    return VocoderJob("bench", 0, frames, 0, frames, is_last=True)


def _chunks(
    runner: VocoderRunner, frames: int, lookahead: int | None, count: int
) -> list[VocoderJob]:
    """The first chunks of a long stream."""
    left = runner.spec.left_context
    right = runner.spec.right_context if lookahead is None else lookahead
    starts = [index * frames for index in range(count)]
    return [
        VocoderJob("bench", at, at + frames, max(0, at - left), at + frames + right, is_last=False)
        for at in starts
    ]


def _random_frames(kind: VocoderInput, length: int, size: int) -> Tensor:
    return torch.randn(length, size) if kind == "hidden" else torch.randint(0, 625, (length, size))


def _time(
    runner: VocoderRunner, sources: list[Tensor], series: Sequence[VocoderJob]
) -> VocoderTiming:
    """Time the launches of `series`, each job for every source, but the first one."""
    wall, cpu, samples = [], [], 0
    for job in series:
        batch = [replace(job, seq_id=f"{job.seq_id}-{row}") for row in range(len(sources))]
        windows = [source[job.window_start : job.window_end] for source in sources]
        start, cpu_start = perf_counter(), process_time()
        waveforms = runner.decode(windows, batch)
        wall.append(perf_counter() - start)
        cpu.append(process_time() - cpu_start)
        samples = sum(len(waveform) for waveform in waveforms)
    for row in range(len(sources)):
        runner.forget(f"{series[0].seq_id}-{row}")
    middle = len(series) // 2
    return VocoderTiming(
        rows=len(sources),
        frames=job.end - job.start,
        window_frames=job.num_window_frames,
        launch_ms=1e3 * sorted(wall[1:])[middle - 1],
        best_ms=1e3 * min(wall[1:]),
        cpu_ms=1e3 * sorted(cpu[1:])[middle - 1],
        audio_s=samples / runner.spec.sample_rate,
    )


def format_timings(timings: Sequence[VocoderTiming]) -> str:
    """A table of the timings."""
    head = f"{'rows':>4} {'frames':>6} {'window':>6} {'launch ms':>9}"
    head += f" {'ms/s':>7} {'best ms/s':>9} {'cpu ms/s':>8} {'x real time':>11}"
    lines = [head]
    for t in timings:
        per_second = [ms / t.audio_s for ms in (t.launch_ms, t.best_ms, t.cpu_ms)]
        lines.append(
            f"{t.rows:4d} {t.frames:6d} {t.window_frames:6d} {t.launch_ms:9.1f} "
            f"{per_second[0]:7.1f} {per_second[1]:9.1f} {per_second[2]:8.1f} "
            f"{1e3 / per_second[0]:11.1f}"
        )
    return "\n".join(lines)


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--model", default="default", help="default, a folder, or a hub id")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--input", choices=("hidden", "codes"), help="default: the model's own")
    parser.add_argument("--rows", type=_counts, default=[1, 4, 16], help="jobs in a batch")
    parser.add_argument("--frames", type=_counts, default=[24, 96], help="frames emitted by each")
    parser.add_argument("--streamed", action="store_true", help="with a chunk's context")
    parser.add_argument("--lookahead", type=int, help="right context when streamed, frames")
    parser.add_argument("--matmul-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves them")
    parser.add_argument("--repeats", type=int, default=10, help="launches timed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run what `add_arguments` describes."""
    if args.threads:
        torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(args.model)
    dtype = getattr(torch, args.matmul_dtype)
    runner = VocoderRunner(load_vocoder(checkpoint, device=args.device, matmul_dtype=dtype))
    kind: VocoderInput = args.input or runner.input_kinds[0]
    timings = run_vocoder_benchmark(
        runner,
        kind=kind,
        input_size=checkpoint.gpt.hidden_size if kind == "hidden" else checkpoint.gpt.num_vq,
        rows=args.rows,
        frames=args.frames,
        streamed=args.streamed,
        lookahead=args.lookahead,
        repeats=args.repeats,
    )
    print(json.dumps([asdict(t) for t in timings]) if args.json else format_timings(timings))
    return 0


def main() -> int:
    """Run as `python -m stretto.benchmarks.vocoder_bench`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
