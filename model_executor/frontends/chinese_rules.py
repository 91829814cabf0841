"""Chinese text with digits and symbols to Chinese words: wetext, with what it misses before it.

Handles one run of a text that `split_runs` gave to Chinese; English runs are not seen here.
"""

from __future__ import annotations

import re

from .wetext_rules import MAX_VERBALIZE_CHARS, verbalize

__all__ = ["speak_chinese"]

_DIGITS = "零一二三四五六七八九"
_READINGS = tuple(
    (re.compile(pattern), spoken)
    for pattern, spoken in (
        (r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", ""),  # 1,234,567: separators confuse the grammar
        (r"\bNo\.\s?(?=[0-9])", "第"),
        (r"#(?=[0-9])", "第"),
        (r"&", "和"),
        (r"(?<=[0-9])\s?[×x*]\s?(?=[0-9])", "乘"),
        (r"(?<=[0-9])\s?÷\s?(?=[0-9])", "除以"),
        (r"km²", "平方公里"),
        (r"cm²", "平方厘米"),
        (r"m²", "平方米"),
        (r"m³", "立方米"),
        (r"²", "平方"),
        (r"³", "立方"),
        (r">(?=\s?[0-9])", "大于"),
        (r"<(?=\s?[0-9])", "小于"),
        (r"≈", "约等于"),
        (r"≥", "大于等于"),
        (r"≤", "小于等于"),
        (r"@", "艾特"),
        (r"[《》“”‘’「」『』\"【】\[\]{}<>*_#^|\\]", ""),
        (r"(?:…|\.{3,})+", "，"),
        (r"[（）()]|—+|～", "，"),
    )
)
_FRACTION = re.compile(r"(?<![0-9/])[0-9]{1,3}/[0-9]{1,3}(?![0-9/])")
_NEEDS_GRAMMAR = re.compile(r"[0-9%$€£¥￥℃°=+/~]")
_CUT = re.compile(r"(?<=[，。！？；])")
_MARKS = str.maketrans({",": "，", ".": "。", "!": "！", "?": "？", ";": "；", ":": "："})
_MARK = re.compile(r"[,.!?;:](?![0-9])")
_LEFT_OVER = re.compile(r"[0-9]")
_UNSPOKEN = re.compile(r"[^\w\s，。！？；：、]|_")
_REPEATED = re.compile(r"，(?=[，。！？；：])|(?<=[，。！？；：])，")


def speak_chinese(run: str) -> str:
    """Words of a run of Chinese text, with full-width marks."""
    for pattern, spoken in _READINGS:
        run = pattern.sub(spoken, run)
    # With "约" before it, the grammar would put that word inside the fraction.
    run = _FRACTION.sub(lambda match: verbalize(match[0], "zh") or match[0], run)
    if _NEEDS_GRAMMAR.search(run):
        run = "".join(_by_grammar(clause) for clause in _CUT.split(run))
    run = _MARK.sub(lambda mark: mark[0].translate(_MARKS), run)
    return _REPEATED.sub("", _UNSPOKEN.sub("", run))


def _by_grammar(clause: str) -> str:
    if not _NEEDS_GRAMMAR.search(clause):
        return clause
    pieces = (
        clause[start : start + MAX_VERBALIZE_CHARS]
        for start in range(0, len(clause), MAX_VERBALIZE_CHARS)
    )
    spoken = "".join(verbalize(piece, "zh") or piece for piece in pieces)
    return _LEFT_OVER.sub(lambda digit: _DIGITS[int(digit[0])], spoken)
