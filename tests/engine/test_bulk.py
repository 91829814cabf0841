"""Bulk generation over the fake executor: resuming, errors per item, a full batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import soundfile

from stretto.engine.bulk import MANIFEST, BulkGenerator, BulkSummary, ManifestEntry
from stretto.engine.bulk_jobs import read_jobs
from stretto.engine.errors import RequestError
from stretto.engine.offline import SpeechEngine
from stretto.engine.output import SpeechResult
from stretto.engine.request import SpeechRequest
from stretto.engine.step_loop import Sink
from tests.fake_executor import FakeExecutor, build_fake_core


@pytest.fixture
def engine() -> Iterator[SpeechEngine]:
    with SpeechEngine(build=build_fake_core, max_num_seqs=4) as engine:
        yield engine
        engine.check_integrity()


def make_request(text: str) -> SpeechRequest:
    return SpeechRequest(text=text, priority="bulk")


def generate(engine: SpeechEngine, source: Path, out: Path) -> BulkSummary:
    return BulkGenerator(engine, out).run(read_jobs(source, make_request))


def entries(out: Path) -> list[ManifestEntry]:
    lines = (out / MANIFEST).read_text().splitlines()
    return [msgspec.json.decode(line, type=ManifestEntry) for line in lines]


def test_one_text_a_line(engine: SpeechEngine, tmp_path: Path) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("first @20\n\nsecond @30\r\nthird @5\n")
    summary = generate(engine, source, tmp_path / "out")
    assert (summary.num_done, summary.num_skipped, summary.num_failed) == (3, 0, 0)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.wav"))
    assert files == ["000001.wav", "000003.wav", "000004.wav"]
    audio, rate = soundfile.read(tmp_path / "out" / "000003.wav")
    assert (len(audio), rate) == (30 * 8 - 4, 800)
    assert "real-time factor" in str(summary)


def test_json_jobs(engine: SpeechEngine, tmp_path: Path) -> None:
    source = tmp_path / "jobs.jsonl"
    source.write_text(
        '{"id": "a", "text": "one @20", "voice": "beta", "seed": 4}\n'
        '{"id": "b", "text": "two @50", "sampling": {"max_new_tokens": 7}}\n'
        '{"text": "three @6", "seed": 4, "normalize": false}\n'
    )
    generate(engine, source, tmp_path)
    by_id = {entry.id: entry for entry in entries(tmp_path)}
    assert set(by_id) == {"a", "b", "000003"}
    assert (by_id["a"].seed, by_id["a"].file) == (4, "a.wav")
    assert by_id["b"].finish_reason == "length"


def test_errors_cost_one_item_each(engine: SpeechEngine, tmp_path: Path) -> None:
    source = tmp_path / "jobs.jsonl"
    source.write_text(
        '{"id": "ok", "text": "fine @5"}\n'
        '{"id": "voice", "text": "fine @5", "voice": "nobody"}\n'
        '{"id": "empty", "text": " "}\n'
        '{"id": "speed", "text": "fine @5", "speed": -1}\n'
        '{"id": "../escape", "text": "fine @5"}\n'
        '{"id": "field", "text": "fine @5", "tempo": 2}\n'
        '{"id": "sampling", "text": "fine @5", "sampling": {"top_p": 7}}\n'
        '{"id": "reference", "text": "fine @5", "ref_audio": "nowhere.wav", "ref_text": "x"}\n'
        "not json\n"
        '{"id": "vocoder", "text": "bad @5"}\n'
        '{"id": "encode", "text": "... !!!"}\n'
        '{"id": "last", "text": "fine @5"}\n'
    )
    assert isinstance(engine._core.executor, FakeExecutor)
    engine._core.executor.faults.vocoder = "bad"
    summary = generate(engine, source, tmp_path / "out")
    assert (summary.num_done, summary.num_failed) == (2, 10)
    failed = {entry.id: entry.error for entry in entries(tmp_path / "out") if entry.error}
    assert "nobody" in (failed["voice"] or "")
    assert "line 9" in (failed["000009"] or "")
    assert "speed" in (failed["speed"] or "")
    assert "'../escape'" in (failed["000005"] or "")


def test_a_second_run_does_only_what_is_missing(engine: SpeechEngine, tmp_path: Path) -> None:
    source = tmp_path / "jobs.jsonl"
    source.write_text(
        '{"id": "a", "text": "one @20"}\n{"id": "b", "text": "two"}\n'
        '{"id": "bad", "text": "three", "voice": "nobody"}\n'
    )
    generate(engine, source, tmp_path)
    before = (tmp_path / "b.wav").stat().st_mtime_ns
    source.write_text(
        '{"id": "a", "text": "changed @10"}\n{"id": "b", "text": "two"}\n'
        '{"id": "bad", "text": "three", "voice": "beta"}\n'
    )
    summary = generate(engine, source, tmp_path)
    assert (summary.num_done, summary.num_skipped, summary.num_failed) == (2, 1, 0)
    assert (tmp_path / "b.wav").stat().st_mtime_ns == before
    assert len(soundfile.read(tmp_path / "a.wav")[0]) == 10 * 8 - 4
    (tmp_path / "b.wav").unlink()
    assert generate(engine, source, tmp_path).num_done == 1


class _Interrupted(BaseException):
    """Stands for a kill: nothing in between catches it."""


def test_an_interrupted_run_resumes(
    engine: SpeechEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(f"text {number} @{number}" for number in range(1, 21)))
    out = tmp_path / "out"
    save, num_saved = SpeechResult.save, 0

    def save_six(result: SpeechResult, path: Path) -> None:
        nonlocal num_saved
        num_saved += 1
        save(result, path)
        if num_saved == 7:
            raise _Interrupted

    monkeypatch.setattr(SpeechResult, "save", save_six)
    with pytest.raises(_Interrupted):
        generate(engine, source, out)
    with (out / MANIFEST).open("a") as manifest:
        manifest.write('{"id": "cut sho')
    kept = {entry.id for entry in entries_of_whole_lines(out)}
    assert len(kept) == 6
    monkeypatch.setattr(SpeechResult, "save", save)
    with SpeechEngine(build=build_fake_core, max_num_seqs=4) as fresh:
        summary = generate(fresh, source, out)
    assert (summary.num_done, summary.num_skipped) == (14, 6)
    assert len(list(out.glob("[0-9]*.wav"))) == 20
    assert {entry.id for entry in entries(out)} == {f"{n:06d}" for n in range(1, 21)}


def entries_of_whole_lines(out: Path) -> list[ManifestEntry]:
    lines = (out / MANIFEST).read_text().split("\n")[:-1]
    return [msgspec.json.decode(line, type=ManifestEntry) for line in lines]


class _HeldEngine(SpeechEngine):
    """Lets requests end only when it holds as many as it was promised."""

    def __init__(self, num_jobs: int) -> None:
        super().__init__(build=build_fake_core, max_num_seqs=4)
        self.num_to_come = num_jobs
        self.held: list[tuple[SpeechRequest, Sink]] = []
        self.levels: list[int] = []

    def submit(self, request: SpeechRequest, sink: Sink, *, request_id: str | None = None) -> str:
        self.num_to_come -= 1
        self.held.append((request, sink))
        self.levels.append(len(self.held))
        while self.held and (len(self.held) == 8 or not self.num_to_come):
            super().submit(*self.held.pop(0))
        return ""


def test_the_batch_is_kept_full(tmp_path: Path) -> None:
    """Twice as many requests as fit a batch are in flight as long as there are so many."""
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(f"text @{number % 7}" for number in range(40)))
    engine = _HeldEngine(40)
    with engine:
        summary = generate(engine, source, tmp_path / "out")
    assert summary.num_done == 40
    assert max(engine.levels) == 8
    assert engine.levels[7:] == [8] * 33


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "no such file"),
        ("empty.txt", b"\n  \n", "holds no text"),
        ("binary.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("twice.jsonl", b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "have the id 'a'"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=message):
        read_jobs(tmp_path / name, make_request)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("\ufefffirst")
    request = read_jobs(source, make_request)[0].request
    assert request is not None
    assert request.text == "first"
