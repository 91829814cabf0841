"""Long text to segments that a model speaks in one breath.

Sentences come from sentencex; a sentence over the limit is cut at clause punctuation, then at
words; very short neighbours are merged. A line break always ends a segment. Lengths are counted in
units: a Chinese character is one, a word of another script `WORD_UNITS`, more
if it is long. Text is not rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .scripts import dominant_language

__all__ = ["Segment", "SegmentLimits", "join_text", "segment_lines", "units"]

WORD_UNITS = 2
_HAN = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_UNIT = re.compile(rf"\[[a-z_0-9]+\]|[{_HAN}]|[^\W_{_HAN}]+")
_HAN_UNIT = re.compile(f"[{_HAN}]")
_ATOM = re.compile(rf"\[[a-z_0-9]+\]\s*|[{_HAN}][，。、]*\s*|[^\s{_HAN}\[]+\s*|.\s*")
_LINE_END = re.compile(r"[\r\n\v\f\x85\u2028\u2029]+")
_CLAUSE_END = re.compile(r"[,;:，；：、—–](?![0-9])[\"'”’)）」]*\s*|\s+-+\s+")
_MAX_SENTENCE_CHARS = 400
_LINE_PAUSE_S, _SENTENCE_PAUSE_S, _CLAUSE_PAUSE_S = 0.45, 0.2, 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentLimits:
    """How long segments should be, in units (see module).

    Attributes:
        max_units: longer ones are cut.
        min_units: shorter ones join a neighbour of the same line where that still fits.
    """

    max_units: int
    min_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of text and the silence after it, in seconds."""

    text: str
    pause_after_s: float = 0.0


def segment_lines(
    text: str, limits: SegmentLimits, normalize: Callable[[str], str]
) -> list[Segment]:
    """Segments of `text` in order, each of them normalised; empty where nothing is left.

    Args:
        normalize: called on every sentence; what it leaves empty is dropped.
    """
    segments: list[Segment] = []
    for sentences in _split_sentences(text):
        spoken = [out for sentence in sentences if (out := normalize(sentence).strip())]
        line = [piece for each in spoken for piece in _split_to_limit(each, limits.max_units)]
        segments += _with_line_pause(_merge_short(line, limits))
    return segments


def units(text: str) -> int:
    """Length of `text` in units; control tags and punctuation count nothing."""
    total = 0
    for match in _UNIT.finditer(text):
        piece = match[0]
        if piece[0] != "[":
            total += 1 if _HAN_UNIT.match(piece) else max(WORD_UNITS, len(piece) // 4)
    return total


def _split_sentences(text: str) -> list[list[str]]:
    """The sentences of every non-empty line. None is longer than 400 characters."""
    lines = (line.strip() for line in _LINE_END.split(text))
    return [list(_line_sentences(line)) for line in lines if line]


def _line_sentences(line: str) -> Iterator[str]:
    import sentencex  # here, so that a model can be measured without it, on token ids

    for sentence in sentencex.segment(dominant_language(line), line):
        if sentence.strip():
            yield from _bounded(sentence.strip())


def _bounded(sentence: str) -> Iterator[str]:
    while len(sentence) > _MAX_SENTENCE_CHARS:
        window = sentence[:_MAX_SENTENCE_CHARS]
        ends = [match.end() for match in _CLAUSE_END.finditer(window)]
        cut = ends[-1] if ends else window.rfind(" ") + 1
        cut = cut or _MAX_SENTENCE_CHARS
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence


def _split_to_limit(sentence: str, max_units: int) -> list[Segment]:
    """Cut one sentence so that no piece is over `max_units`, evenly, at clauses if it can."""
    if units(sentence) <= max_units:
        return [Segment(text=sentence, pause_after_s=_SENTENCE_PAUSE_S)]
    pieces = [
        piece for clause in _clauses(sentence) for piece in _words_to_limit(clause, max_units)
    ]
    merged = _pack(pieces, max_units)
    pauses = [_CLAUSE_PAUSE_S if _ends_clause(piece) else 0.0 for piece in merged]
    pauses[-1] = _SENTENCE_PAUSE_S
    return [
        Segment(text=piece, pause_after_s=pause)
        for piece, pause in zip(merged, pauses, strict=True)
    ]


def _ends_clause(piece: str) -> bool:
    return piece[-1] in ",;:，；：、—–-\"'”’)）」"


def _clauses(sentence: str) -> list[str]:
    cuts = [0, *(match.end() for match in _CLAUSE_END.finditer(sentence)), len(sentence)]
    return [piece for start, end in pairwise(cuts) if (piece := sentence[start:end].strip())]


def _words_to_limit(clause: str, max_units: int) -> list[str]:
    total = units(clause)
    if total <= max_units:
        return [clause]
    num_pieces = -(-total // max_units)
    atoms = _atoms(clause)
    pieces, size = [""], 0
    for atom in atoms:
        cost = units(atom)
        if (size and size + cost > max_units) or size >= total / num_pieces:
            pieces.append("")
            size = 0
        pieces[-1] += atom
        size += cost
    return [piece.strip() for piece in pieces if piece.strip()]


def _atoms(clause: str) -> list[str]:
    """Words with the space after them; Chinese characters one by one."""
    return _ATOM.findall(clause)


def _pack(pieces: list[str], max_units: int) -> list[str]:
    """Join neighbours into about equally long groups, as few as the limit allows."""
    lengths = [units(piece) for piece in pieces]
    num_groups = max(1, -(-sum(lengths) // max_units))
    target = sum(lengths) / num_groups
    groups: list[str] = []
    size = 0
    for piece, length in zip(pieces, lengths, strict=True):
        fits = groups and size + length <= max_units
        if fits and abs(size + length - target) <= abs(size - target):
            groups[-1] = join_text(groups[-1], piece)
            size += length
        else:
            groups.append(piece)
            size = length
    return groups


def join_text(left: str, right: str) -> str:
    """Two pieces with a space between them, except beside Chinese."""
    wide = left[-1:] >= "\u2e80" or right[:1] >= "\u2e80"
    return left + right if wide else f"{left} {right}"


def _merge_short(segments: list[Segment], limits: SegmentLimits) -> list[Segment]:
    """Join segments under `min_units` to the one before (or the next) where they fit."""
    merged: list[Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if last is not None and _should_merge(last, segment, limits):
            merged[-1] = Segment(
                text=join_text(last.text, segment.text), pause_after_s=segment.pause_after_s
            )
        else:
            merged.append(segment)
    return merged


def _should_merge(left: Segment, right: Segment, limits: SegmentLimits) -> bool:
    sizes = units(left.text), units(right.text)
    return min(sizes) < limits.min_units and sum(sizes) <= limits.max_units


def _with_line_pause(segments: list[Segment]) -> list[Segment]:
    """The segments of one line, its last with the longer pause of a line end."""
    if not segments:
        return []
    last = Segment(text=segments[-1].text, pause_after_s=_LINE_PAUSE_S)
    return [*segments[:-1], last]
