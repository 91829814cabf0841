"""Numbers as English words: cardinals, ordinals, years, digits, decimals, fractions.

American style without "and". What a number in a text means (a price, a year, a phone) is decided
in `english_rewrites`; here are only the words.
"""

from __future__ import annotations

__all__ = [
    "cardinal",
    "decimal",
    "digits",
    "fraction",
    "number",
    "ordinal",
    "plural",
    "roman_value",
    "year",
]

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = [".", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_MAX_CARDINAL_DIGITS = 3 * len(_SCALES)
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def _below_hundred(value: int) -> list[str]:
    if value < 20:
        return [_ONES[value]] if value else []
    return [_TENS[value // 10]] + ([_ONES[value % 10]] if value % 10 else [])


def _below_thousand(value: int) -> list[str]:
    head = [_ONES[value // 100], "hundred"] if value >= 100 else []
    return head + _below_hundred(value % 100)


def cardinal(value: int) -> str:
    """0 or more in words; from 10^18 on, digit by digit."""
    if value == 0:
        return "zero"
    if len(str(value)) > _MAX_CARDINAL_DIGITS:
        return digits(str(value))
    words: list[str] = []
    for power in range(len(_SCALES) - 1, -1, -1):
        group = value // 1000**power % 1000
        if group:
            words += _below_thousand(group) + ([_SCALES[power]] if power else [])
    return " ".join(words)


def ordinal(value: int) -> str:
    """Such as "twenty third"."""
    head, _, last = cardinal(value).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return f"{head} {last}".strip()


def digits(text: str, zero: str = "zero") -> str:
    """Digit by digit: "one two three"; other characters are left out."""
    return " ".join(zero if char == "0" else _ONES[int(char)] for char in text if char in _DIGITS)


_DIGITS = frozenset("0123456789")


def decimal(whole: str, fraction_digits: str) -> str:
    """Such as "three point one four"; an empty whole part is not spoken ("point five")."""
    head = f"{number(whole)} " if whole else ""
    return f"{head}point {digits(fraction_digits)}"


def number(text: str) -> str:
    """A plain number as written: "1,200", "3.14", ".5", "007" (leading zeros digit by digit)."""
    text = text.replace(",", "")
    whole, point, fraction_digits = text.partition(".")
    if point and fraction_digits:
        return decimal(whole, fraction_digits)
    if (len(whole) > 1 and whole[0] == "0") or len(whole) > _MAX_CARDINAL_DIGITS:
        return digits(whole)
    return cardinal(int(whole))


def year(value: int) -> str:
    """1000 to 9999 as a year: "nineteen oh five", "two thousand five", "twenty twenty four"."""
    century, rest = divmod(value, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(value)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    tail = f"oh {_ONES[rest]}" if rest < 10 else cardinal(rest)
    return f"{cardinal(century)} {tail}"


def fraction(numerator: int, denominator: int) -> str:
    """Such as "three quarters", "one half", "five sixteenths"; 1/100 style as "one over n"."""
    if denominator == 2:
        part = "half" if numerator == 1 else "halves"
    elif denominator == 4:
        part = "quarter" if numerator == 1 else "quarters"
    elif 2 < denominator <= 100:
        part = ordinal(denominator) + ("" if numerator == 1 else "s")
    else:
        return f"{cardinal(numerator)} over {cardinal(denominator)}"
    return f"{cardinal(numerator)} {part}"


def plural(words: str) -> str:
    """The plural of number words: "nineteen nineties", "sixes"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def roman_value(text: str) -> int | None:
    """1 to 3999 from well-formed upper-case Roman numerals, else None."""
    total = 0
    for char, following in zip(text, text[1:] + " ", strict=True):
        value = _ROMAN.get(char)
        if value is None:
            return None
        total += -value if _ROMAN.get(following, 0) > value else value
    return total if _to_roman(total) == text else None


def _to_roman(value: int) -> str:
    numerals = (
        ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"],
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
    )
    out = []
    for numeral, size in zip(*numerals, strict=True):
        out.append(numeral * (value // size))
        value %= size
    return "".join(out)
