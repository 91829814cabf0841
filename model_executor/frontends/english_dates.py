"""Dates and times in English text to words. Dates with slashes are read month first.

Numbers that are neither are left for `english_quantities`.
"""

from __future__ import annotations

import re
from re import Match

from . import english_numbers as words

__all__ = ["is_year", "speak_dates"]

_START, _END = r"(?<![0-9A-Za-z.,/-])", r"(?![0-9A-Za-z])"
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_MONTH = "(?P<month>Sept\\.?|{})".format("|".join(f"{name}|{name[:3]}\\.?" for name in _MONTHS))
_HALF = r"(?:\s?(?P<half>[aApP])(?:\.\s?[mM]\.|[mM]\b))"
_DAY = r"(?P<d>[12][0-9]|3[01]|0?[1-9])"
_YEAR_AFTER = r"(?:,?\s(?P<y>[12][0-9]{3})(?![0-9A-Za-z]))?"


def is_year(text: str) -> bool:
    """Whether digits look like a year of recent centuries."""
    return len(text) == 4 and "1100" <= text <= "2099"


def speak_dates(text: str) -> str:
    """`text` with dates and clock times in words."""
    for pattern, speak in _RULES:
        text = pattern.sub(speak, text)
    return text


def _date(month: str, day: str, year: str | None) -> str:
    spoken = f"{month} {words.ordinal(int(day))}"
    return f"{spoken}, {words.year(int(year))}" if year else spoken


def _to(match: Match[str]) -> str:
    return f"{match[1]} to "


def _numeric(match: Match[str]) -> str:
    month, day, year = int(match["m"]), int(match["d"]), match["y"]
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return " ".join(re.findall(r"[0-9]+", match[0]))
    if len(year) == 2:
        year = ("19" if int(year) > 50 else "20") + year
    return _date(_MONTHS[month - 1], str(day), year)


def _month_name(match: Match[str]) -> str:
    start = match["month"][:3]
    return next(name for name in _MONTHS if name.startswith(start))


def _month_first(match: Match[str]) -> str:
    return _date(_month_name(match), match["d"], match["y"])


def _day_first(match: Match[str]) -> str:
    the = match["the"] or "the "
    year = f", {words.year(int(match['y']))}" if match["y"] else ""
    return f"{the}{words.ordinal(int(match['d']))} of {_month_name(match)}{year}"


def _month_and_year(match: Match[str]) -> str:
    return f"{_month_name(match)} {words.year(int(match['y']))}"


def _half(match: Match[str]) -> str:
    """ "a m" or "p m", with the full stop that an abbreviation at the end has swallowed."""
    if not match["half"]:
        return ""
    stop = "." if match[0].endswith(".") and not match.string[match.end() :].strip() else ""
    return f" {match['half'].upper()} M{stop}"


def _clock(match: Match[str]) -> str:
    hour, minute = int(match["hour"]), match["minute"]
    if minute != "00":
        tail = f" oh {words.number(minute[1])}" if minute[0] == "0" else f" {words.number(minute)}"
    elif match.string.startswith(" to ", match.end()):
        tail = ""
    elif match["half"] or not 1 <= hour <= 12:
        tail = "" if match["half"] else " hundred hours"
    else:
        tail = " o'clock"
    second = match["second"] and f" and {words.number(str(int(match['second'])))} seconds"
    return f"{words.cardinal(hour)}{tail}{second or ''}{_half(match)}"


def _hour(match: Match[str]) -> str:
    return words.cardinal(int(match["hour"])) + _half(match)


_RULES = tuple(
    (re.compile(pattern), speak)
    for pattern, speak in (
        (r"([0-9]{1,2}:[0-9]{2}|[0-9]\s?[AaPp]\.?[Mm]\.?)\s?[-–—]\s?(?=[0-9]{1,2}(?::|\s?[ap]\.?m))",
         _to),
        (rf"{_START}(?P<y>[12][0-9]{{3}})-(?P<m>[01]?[0-9])-{_DAY}{_END}", _numeric),
        (rf"{_START}{_DAY}\.(?P<m>[01]?[0-9])\.(?P<y>[12][0-9]{{3}}){_END}", _numeric),
        (rf"{_START}(?P<y>[12][0-9]{{3}})/(?P<m>[01]?[0-9])/{_DAY}{_END}", _numeric),
        (rf"{_START}(?P<m>[0-3]?[0-9])/{_DAY}/(?P<y>[12][0-9]{{3}}|[0-9]{{2}}){_END}", _numeric),
        (rf"\b{_MONTH}\s{_DAY}(?:st|nd|rd|th)?(?![0-9:])(?!\s?[ap]\.?m)(?![.,][0-9]){_YEAR_AFTER}",
         _month_first),
        (rf"{_START}(?P<the>[tT]he\s)?{_DAY}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?![a-z]){_YEAR_AFTER}",
         _day_first),
        (rf"\b{_MONTH},?\s(?P<y>[12][0-9]{{3}})(?![0-9A-Za-z])", _month_and_year),
        (rf"{_START}(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
         rf"(?::(?P<second>[0-5][0-9]))?{_HALF}?{_END}", _clock),
        (rf"(?<![0-9A-Za-z.,/])(?P<hour>1[0-2]|[1-9]){_HALF}", _hour),
    )
)  # fmt: skip
