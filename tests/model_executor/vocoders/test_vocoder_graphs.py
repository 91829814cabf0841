"""Vocoder batches at bucket sizes give what each job gives alone: here without CUDA, where a graph
is the captured function replayed on its static inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.engine.request import VocoderInput
from stretto.model_executor.frame_store import SCRATCH_ROW, FrameStore
from stretto.model_executor.interfaces import Prompt
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoder_graphs import FRAME_BUCKETS, VocoderGraphs, row_buckets
from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.frame_vocoder import FrameVocoder, load_vocoder
from stretto.model_executor.vocoders.layers import FrameConv, Placement
from stretto.model_executor.vocoders.padded_chain import PaddedChain
from stretto.scheduler.interfaces import VocoderBatch, VocoderJob
from tests.model_executor.vocoders.vocoder_support import (
    chunk_jobs,
    decode_whole,
    random_codes,
    random_hidden,
    whole_job,
)

CPU = torch.device("cpu")
CONTEXT = 52
Audio = torch.Tensor


class Source(NamedTuple):
    """A sequence: its frames, and how many frames its prompt had before them."""

    frames: torch.Tensor
    num_prompt: int = 0


class Bench:
    """Graphs over a frame store with sequences in it; `eager`: jobs decoded without graphs."""

    def __init__(
        self,
        vocoder: FrameVocoder,
        sources: dict[str, Source],
        *,
        num_streams: int = 4,
        max_batch_frames: int = 1024,
    ) -> None:
        self.sources = sources
        self.runner = VocoderRunner(vocoder)
        self.eager: list[VocoderJob] = []
        self.store = FrameStore(4, 64, CPU)
        for seq_id, source in sources.items():
            self._fill(seq_id, source)
        self.graphs = VocoderGraphs(
            vocoder,
            self.store,
            self._prompt,
            self._decode,
            num_streams=num_streams,
            max_batch_frames=max_batch_frames,
        )

    def run(self, *jobs: VocoderJob) -> list[Audio]:
        return self.graphs.launch(VocoderBatch(jobs))

    def stream(self, seq_id: str, jobs: Sequence[VocoderJob]) -> Audio:
        return torch.cat([self.run(named(job, seq_id))[0] for job in jobs])

    def alone(self, seq_id: str) -> Audio:
        """The whole sequence by the runner without graphs."""
        return torch.from_numpy(decode_whole(self.runner, self.sources[seq_id].frames))

    def _fill(self, seq_id: str, source: Source) -> None:
        count = source.num_prompt + len(source.frames)
        self.store.add(seq_id)
        self.store.reserve(seq_id, count)
        rows = torch.from_numpy(self.store.rows(seq_id, 0, count))
        drawn = rows[source.num_prompt :]
        self.store.hidden[rows], self.store.codes[rows] = 7.0, 7  # of the prompt
        if source.frames.is_floating_point():
            self.store.hidden[drawn] = source.frames
        else:
            self.store.codes[drawn] = source.frames.long()

    def _kind(self, seq_id: str) -> VocoderInput:
        return "hidden" if self.sources[seq_id].frames.is_floating_point() else "codes"

    def _prompt(self, seq_id: str) -> Prompt:
        num = self.sources[seq_id].num_prompt
        frames = np.zeros((num, 4), np.int32) if num else None
        return Prompt(
            token_ids=np.zeros(1, np.int32), frames=frames, vocoder_input=self._kind(seq_id)
        )

    def _decode(self, batch: VocoderBatch) -> list[Audio]:
        self.eager += batch.jobs
        windows = [
            self.sources[job.seq_id].frames[job.window_start : job.window_end] for job in batch.jobs
        ]
        return self.runner.launch(windows, batch.jobs)


def assert_close(audio: Audio, wanted: Audio) -> None:
    torch.testing.assert_close(audio, wanted, atol=1e-5, rtol=0)


def named(job: VocoderJob, seq_id: str) -> VocoderJob:
    return replace(job, seq_id=seq_id)


def chunks(length: int, first: int, steady: int, right: int = CONTEXT) -> list[VocoderJob]:
    return list(chunk_jobs(length, first, steady, CONTEXT, right))


@pytest.mark.parametrize("most", [1, 16, 100, 512, 8192])
def test_row_buckets_keep_to_the_largest_batch(most: int) -> None:
    for frames in FRAME_BUCKETS:
        buckets = row_buckets(frames, most)
        assert buckets[0] == 1
        assert buckets[-1] == 1 or buckets[-1] * frames <= most
        assert buckets[-1] <= 64


@pytest.mark.parametrize("kind", ["hidden", "codes"])
@pytest.mark.parametrize("length", [1, 15, 16, 40, 130])
def test_whole_sequences_are_those_of_the_runner(
    deep_vocoder: FrameVocoder, kind: str, length: int
) -> None:
    frames = random_hidden(length) if kind == "hidden" else random_codes(length)
    bench = Bench(deep_vocoder, {"s": Source(frames), "p": Source(frames, num_prompt=9)})
    for seq_id in ("s", "p"):
        (audio,) = bench.run(whole_job(length, seq_id))
        assert_close(audio, bench.alone(seq_id))
    assert not bench.eager
    assert bench.graphs.num_streams == 0


@pytest.mark.parametrize(("first", "steady"), [(1, 16), (7, 9), (24, 48)])
def test_streams_are_whole_decodes(deep_vocoder: FrameVocoder, first: int, steady: int) -> None:
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(150), num_prompt=3)})
    audio = bench.stream("s", chunks(150, first, steady))
    assert_close(audio, bench.alone("s"))
    assert not bench.eager
    assert bench.graphs.num_streams == 0
    captured = bench.graphs.num_captured
    assert torch.equal(bench.stream("s", chunks(150, first, steady)), audio)
    assert bench.graphs.num_captured == captured, "the same work captured other graphs"


def test_neighbours_and_padding_change_no_bit(deep_vocoder: FrameVocoder) -> None:
    """Streams of both kinds that start, advance and end at different times share launches."""
    sources = {
        "a": Source(random_hidden(150)),
        "b": Source(random_codes(97)),
        "c": Source(1e3 * random_hidden(60, 1)),
        "d": Source(random_hidden(3, 2)),
        "e": Source(random_hidden(81, 3), num_prompt=5),
    }
    bench = Bench(deep_vocoder, sources)

    def schedule_of(seq_id: str) -> list[VocoderJob]:
        index = list(sources).index(seq_id)
        return chunks(len(sources[seq_id].frames), 1 + index, 11 + 7 * index)

    schedules: dict[str, Iterator[VocoderJob]] = {s: iter(schedule_of(s)) for s in sources}
    audio: dict[str, list[Audio]] = {seq_id: [] for seq_id in sources}
    for turn in range(100):
        late = list(schedules)[: turn + 1]
        jobs = {s: job for s in late if (job := next(schedules[s], None)) is not None}
        if not jobs and turn > len(sources):
            break
        if jobs:
            decoded = bench.run(*(named(job, seq_id) for seq_id, job in jobs.items()))
            for seq_id, samples in zip(jobs, decoded, strict=True):
                audio[seq_id].append(samples)
    for seq_id, pieces in audio.items():
        assert torch.equal(torch.cat(pieces), bench.stream(seq_id, schedule_of(seq_id))), seq_id
        assert_close(torch.cat(pieces), bench.alone(seq_id))
    assert not bench.eager
    assert bench.graphs.num_streams == 0


@pytest.mark.parametrize("kind", ["hidden", "codes"])
def test_what_padded_decode_steps_write_is_never_read(
    deep_vocoder: FrameVocoder, kind: str
) -> None:
    """They may draw the end of speech, for which the quantiser has no vector."""
    frames = random_hidden(20) if kind == "hidden" else random_codes(20)
    bench = Bench(deep_vocoder, {"s": Source(frames)})
    bench.store.codes[SCRATCH_ROW] = 10**6
    bench.store.hidden[SCRATCH_ROW] = torch.nan
    assert_close(bench.run(whole_job(20))[0], bench.alone("s"))
    assert_close(bench.stream("s", chunks(20, 7, 9)), bench.alone("s"))
    assert not bench.eager


def test_more_rows_than_a_bucket_holds_are_split(deep_vocoder: FrameVocoder) -> None:
    sources = {f"s{i}": Source(random_hidden(10 + i, i)) for i in range(7)}
    bench = Bench(deep_vocoder, sources, max_batch_frames=32)
    audio = bench.run(*(whole_job(len(s.frames), seq_id) for seq_id, s in sources.items()))
    for seq_id, samples in zip(sources, audio, strict=True):
        assert_close(samples, bench.alone(seq_id))


def test_without_a_free_slot_windows_are_decoded(deep_vocoder: FrameVocoder) -> None:
    sources = {"a": Source(random_hidden(80)), "b": Source(random_hidden(80, 1))}
    bench = Bench(deep_vocoder, sources, num_streams=1)
    pieces: dict[str, list[Audio]] = {"a": [], "b": []}
    for job in chunks(80, 7, 20):
        for seq_id, samples in zip("ab", bench.run(named(job, "a"), named(job, "b")), strict=True):
            pieces[seq_id].append(samples)
        assert bench.graphs.num_streams <= 1
    for seq_id, parts in pieces.items():
        assert_close(torch.cat(parts), bench.alone(seq_id))


def test_a_slot_is_clean_for_its_next_stream(deep_vocoder: FrameVocoder) -> None:
    spoilt = random_hidden(80, 1)
    spoilt[3:] = torch.nan
    sources = {"bad": Source(spoilt), "good": Source(random_hidden(80))}
    bench = Bench(deep_vocoder, sources, num_streams=1)
    bench.run(named(chunks(80, 7, 20)[0], "bad"))
    bench.graphs.forget("bad")
    bench.graphs.forget("never seen")
    assert_close(bench.stream("good", chunks(80, 7, 20)), bench.alone("good"))


@pytest.mark.parametrize("right", [4, 16, 30])
def test_a_smaller_lookahead_is_that_of_the_runner(deep_vocoder: FrameVocoder, right: int) -> None:
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(130))})
    frames = bench.sources["s"].frames
    for job in chunks(130, 7, 20, right):
        (audio,) = bench.run(job)
        (wanted,) = bench.runner.launch([frames[job.window_start : job.window_end]], [job])
        assert_close(audio, wanted)
    assert not bench.eager


def test_a_lost_state_changes_nothing(deep_vocoder: FrameVocoder) -> None:
    """Jobs may be decoded twice, two in one batch, or after their sequence was forgotten."""
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(150))})
    jobs, pieces = chunks(150, 10, 20), []
    pieces += bench.run(jobs[0])
    pieces += bench.run(jobs[1], jobs[2])
    pieces += bench.run(jobs[3])
    bench.run(jobs[3])
    bench.graphs.forget("s")
    pieces += bench.stream("s", jobs[4:]).unsqueeze(0)
    assert_close(torch.cat(pieces), bench.alone("s"))


def test_a_failed_batch_spoils_its_states(
    deep_vocoder: FrameVocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(150))})
    jobs = chunks(150, 10, 20)
    pieces = bench.run(jobs[0])
    with monkeypatch.context() as patch:
        patch.setattr(bench.graphs, "_run", lambda calls: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.run(jobs[1])
    pieces += [samples for job in jobs[1:] for samples in bench.run(job)]
    assert_close(torch.cat(pieces), bench.alone("s"))


def test_windows_longer_than_any_bucket_run_as_they_are(deep_vocoder: FrameVocoder) -> None:
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(600)), "t": Source(random_hidden(20))})
    audio = bench.run(whole_job(600), whole_job(20, "t"))
    assert [job.seq_id for job in bench.eager] == ["s"]
    assert_close(audio[0], bench.alone("s"))
    assert_close(audio[1], bench.alone("t"))


def test_bad_jobs_are_refused(deep_vocoder: FrameVocoder) -> None:
    default = load_vocoder(load_checkpoint("default"))
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(8))})
    with pytest.raises(ValueError, match="look-ahead"):
        bench.run(VocoderJob("s", 0, 8, 0, 8, is_last=False))
    with pytest.raises(ValueError, match="takes"):
        Bench(default, {"s": Source(random_hidden(8))}).run(whole_job(8))


def test_the_default_voice_streams() -> None:
    vocoder = load_vocoder(load_checkpoint("default"))
    bench, spec = Bench(vocoder, {"s": Source(random_codes(70))}), vocoder.spec
    jobs = list(chunk_jobs(70, 7, 12, spec.left_context, spec.right_context))
    assert_close(bench.stream("s", jobs), bench.alone("s"))


def test_warmup_captures_what_streams_need(deep_vocoder: FrameVocoder) -> None:
    bench = Bench(deep_vocoder, {"s": Source(random_hidden(120))}, max_batch_frames=64)
    bench.graphs.warmup()
    captured = bench.graphs.num_captured
    assert_close(bench.stream("s", chunks(120, 7, 16)), bench.alone("s"))
    assert bench.graphs.num_captured == captured > 0
    assert bench.graphs.num_streams == 0


def convolutions(rights: Sequence[int]) -> list[FrameConv]:
    generator = torch.Generator().manual_seed(0)
    return [
        FrameConv(
            torch.randn(3, 3, 5, generator=generator),
            torch.randn(3, generator=generator),
            Placement(CPU),
            right=right,
            activation="gelu",
        )
        for right in rights
    ]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    rights=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_any_paddings_and_any_chunks(rights: list[int], counts: list[int]) -> None:
    """A delay line gives the outputs of the whole, late, however its inputs are cut."""
    chain = PaddedChain(convolutions(rights), features=3, num_slots=2, device=CPU)
    length, total = sum(counts), sum(counts) + chain.delay
    source = torch.randn(1, total, 3, generator=torch.Generator().manual_seed(length))
    wanted = chain.whole(source[:, :length], torch.tensor([length]))[0]
    outputs, at = [], 0
    for count in (*counts, chain.delay):
        padded = torch.full((2, count + 5, 3), torch.nan)
        padded[1, :count] = source[0, at : at + count]
        rows = {"slots": [2, 1], "first": [0, at], "counts": [0, count], "ends": [0, length]}
        tensors = {name: torch.tensor(values) for name, values in rows.items()}
        outputs.append(chain.resume(padded, **tensors)[1, :count])
        at += count
    assert_close(torch.cat(outputs)[chain.delay :], wanted)
