"""Digits in English text to words: money, phones, units, ranges, ratios, plain numbers.

Rules run in a fixed order, each on what the ones before left; after the last no digit is left.
Dates and times are spoken by `english_dates` before; symbols and abbreviations by `english_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from re import Match

from . import english_numbers as words
from .english_dates import is_year
from .wetext_rules import verbalize

__all__ = ["speak_quantities"]

_Speak = Callable[[Match[str]], str]

_NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_START, _END = r"(?<![0-9A-Za-z.,])", r"(?![0-9A-Za-z])"
_SIGN = r"(?<![0-9A-Za-z.,])(?P<minus>[-−])?"
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "￥": ("yuan", "yuan", "fen", "fen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
}
_CODES = {"USD": "$", "GBP": "£", "EUR": "€", "JPY": "¥", "INR": "₹", "CNY": "￥", "RMB": "￥"}
_SYMBOL = f"[{''.join(_CURRENCIES)}]"
_CODE = rf"(?:{'|'.join(_CODES)})\b"
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion"}
_SCALE = r"(?:\s?(?P<scale>thousand|million|billion|trillion)\b|(?P<short>[kKmMbB]n?)\b)?"
_UNITS = {
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "in": "inch",
    "ft": "foot", "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "l": "liter", "L": "liter", "ml": "milliliter",
    "mL": "milliliter", "s": "second", "sec": "second", "secs": "second", "ms": "millisecond",
    "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "Hz": "hertz",
    "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "KB": "kilobyte",
    "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "W": "watt",
    "Mbps": "megabit per second", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour",
    "V": "volt", "px": "pixel", "mph": "mile per hour", "km/h": "kilometer per hour",
    "kph": "kilometer per hour", "m/s": "meter per second", "°C": "degree Celsius",
    "℃": "degree Celsius", "°F": "degree Fahrenheit", "℉": "degree Fahrenheit", "°": "degree",
    "m²": "square meter", "km²": "square kilometer", "cm²": "square centimeter",
    "ft²": "square foot", "m³": "cubic meter", "dB": "decibel", "rpm": "revolution per minute",
    "fps": "frame per second", "k": "thousand",
    "μm": "micrometer", "μs": "microsecond", "μg": "microgram", "Ω": "ohm", "kΩ": "kiloohm",
}  # fmt: skip
_ONLY_ATTACHED = frozenset({"in", "s", "h", "k"})
_UNIT = "|".join(
    rf"(?:{re.escape(unit)})" if unit in _ONLY_ATTACHED else rf"\s?{re.escape(unit)}"
    for unit in sorted(_UNITS, key=len, reverse=True)
)
_IRREGULAR = {"foot": "feet", "inch": "inches"}
_UNCHANGED = frozenset({"hertz", "kilohertz", "megahertz", "gigahertz", "thousand"})
_SPECIAL_FRACTIONS = {"24/7": "twenty four seven", "9/11": "nine eleven"}
_YEAR_CUES = frozenset(
    str.split(
        "in since from by until till before after during around circa of year early late mid "
        "spring summer autumn fall winter class copyright between and to"
    )
)
_AMOUNT_WORD = re.compile(r"\s(?!was\b|is\b|has\b|as\b|his\b|this\b|its\b)[a-z]+s\b")
_DIGIT = re.compile(r"[0-9]")
_GLUED = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")


def speak_quantities(text: str) -> str:
    """`text` with every number in words; text without digits comes back as it is."""
    if not _DIGIT.search(text):
        return text
    for pattern, speak in _RULES:
        text = pattern.sub(speak, text)
    return _PLAIN.sub(_plain, _GLUED.sub(" ", text))


def _signed(match: Match[str], spoken: str) -> str:
    return f"minus {spoken}" if match["minus"] else spoken


def _count(amount: str, singular: str, plural: str) -> str:
    return f"{words.number(amount)} {singular if amount == '1' else plural}"


def _money(match: Match[str]) -> str:
    one, many, cent, cents = _CURRENCIES[_CODES.get(match["sign"], match["sign"])]
    amount = match["amount"].replace(",", "")
    scale = match["scale"] or _SCALES.get((match["short"] or "").lower())
    whole, _, part = amount.partition(".")
    if scale:
        return _signed(match, f"{words.number(amount)} {scale} {many}")
    if len(part) != 2:
        return _signed(match, _count(amount, one, many))
    spoken = [_count(str(int(whole)), one, many)] if int(whole or 0) or not int(part) else []
    if int(part):
        spoken.append(_count(str(int(part)), cent, cents))
    return _signed(match, " and ".join(spoken))


def _phone(match: Match[str]) -> str:
    groups = re.findall(r"[0-9]+", match[0])
    spoken = ("eight hundred" if group == "800" else words.digits(group) for group in groups)
    return ("plus " if match[0].startswith("+") else "") + ", ".join(spoken)


def _measure(match: Match[str]) -> str:
    amount, unit = match["amount"], _UNITS[match["unit"].strip()]
    head, space, tail = unit.partition(" ")
    if amount != "1":
        if head in ("square", "cubic"):
            tail = _IRREGULAR.get(tail, tail + "s")
        elif tail == "hour":
            tail = "hours"
        elif head not in _UNCHANGED:
            head = _IRREGULAR.get(head, head + "s")
    return _signed(match, f"{words.number(amount)} {head}{space}{tail}")


def _measure_by_grammar(match: Match[str]) -> str:
    """A unit glued to its number that is not in the table: wetext knows many more."""
    spoken = verbalize(match[0], "en")
    if not spoken or _DIGIT.search(spoken) or spoken.endswith(match["unit"]):
        return match[0]
    return spoken


def _decade(match: Match[str]) -> str:
    if match["century"]:
        return words.plural(words.year(int(f"{match['century']}{match['tens']}0")))
    return words.plural(words.cardinal(int(f"{match['tens']}0")))


def _fraction(match: Match[str]) -> str:
    if match[0] in _SPECIAL_FRACTIONS:
        return _SPECIAL_FRACTIONS[match[0]]
    top, bottom = int(match["top"]), int(match["bottom"])
    if top == bottom:
        return f"{words.cardinal(top)} {words.cardinal(bottom)}"
    if top > bottom or bottom > 100:
        spoken = f"{words.cardinal(top)} over {words.cardinal(bottom)}"
    else:
        spoken = words.fraction(top, bottom)
    if not match["whole"]:
        return spoken
    return f"{words.cardinal(int(match['whole']))} and {'a' + spoken[3:] if top == 1 else spoken}"


def _range(match: Match[str]) -> str:
    low, high = match["low"], match["high"]
    years = is_year(low) and low < low[: 4 - len(high)] + high <= "2099"
    return f"{words.year(int(low)) if years else words.number(low)} to "


def _dotted(match: Match[str]) -> str:
    joint = " dot " if match[0].count(".") == 3 else " point "
    return " " + joint.join(map(words.number, match[0].split(".")))


def _plain(match: Match[str]) -> str:
    text, cue = match["digits"], match["cue"] or ""
    bare = text.isdigit()
    if bare and is_year(text) and (cue.lower() in _YEAR_CUES or _alone_as_year(match)):
        spoken = words.year(int(text))
    elif bare and len(text) >= 7 and not text.endswith("000"):
        spoken = words.digits(text)
    else:
        spoken = words.number(text)
    return f"{cue}{match['space'] or ''}{spoken}"


def _alone_as_year(match: Match[str]) -> bool:
    is_amount = _AMOUNT_WORD.match(match.string, match.end())
    return match["digits"] >= "1900" and not is_amount


_PLAIN = re.compile(rf"(?:(?P<cue>\b[A-Za-z]+)(?P<space>\s))?(?<![0-9])(?P<digits>{_NUMBER})")
_RULES: tuple[tuple[re.Pattern[str], _Speak], ...] = tuple(
    (re.compile(pattern), speak)
    for pattern, speak in (
        (r"(?<=[0-9℃℉%])~(?=[-−]?[0-9])", lambda m: " to "),
        (rf"~(?={_SYMBOL}?[0-9])", lambda m: "about "),
        (rf"(?P<sign>{_SYMBOL})(?P<low>{_NUMBER})\s?[-–—]\s?(?:(?P=sign))?(?P<high>(?={_NUMBER}))",
         lambda m: f"{words.number(m['low'])} to {m['sign']}"),
        (rf"(?P<minus>[-−])?(?P<sign>{_SYMBOL})\s?(?P<amount>{_NUMBER}){_SCALE}", _money),
        (rf"(?P<minus>[-−])?\b(?P<sign>{_CODE})\s?(?P<amount>{_NUMBER}){_SCALE}", _money),
        (rf"{_SIGN}(?P<amount>{_NUMBER}){_SCALE}\s?(?P<sign>[€£]|{_CODE})", _money),
        (rf"{_START}(?P<amount>[0-9]+)\s?¢", lambda m: _count(m["amount"], "cent", "cents")),
        (r"(?<![0-9A-Za-z])(?:\+?[0-9]{1,3}[ .-])?(?:\([0-9]{3}\)\s?|[0-9]{3}[ .-])"
         rf"[0-9]{{3}}[ .-][0-9]{{4}}{_END}", _phone),
        (rf"{_START}[0-9]{{3}}-[0-9]{{4}}{_END}", _phone),
        (rf"{_START}[0-9]+(?:-[0-9]+){{2,}}{_END}", _phone),
        (rf"{_START}\+[0-9]{{1,3}}(?:[ -][0-9]{{2,4}}){{2,5}}{_END}", _phone),
        (rf"(?<![0-9.,])[0-9]+(?:\.[0-9]+){{2,}}{_END}", _dotted),
        (r"(?<![0-9A-Za-z.])'?(?P<century>1[0-9]|20)?(?P<tens>[0-9])0'?s\b", _decade),
        (rf"{_START}([0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]+)(?:st|nd|rd|th)\b",
         lambda m: words.ordinal(int(m[1].replace(",", ""))) if len(m[1]) < 16 else m[1]),
        (rf"{_START}(?:(?P<whole>[0-9]{{1,9}})[ -])?(?P<top>[0-9]{{1,3}})/"
         r"(?P<bottom>[1-9][0-9]{0,3})(?![0-9A-Za-z/])", _fraction),
        (rf"{_START}(?P<low>{_NUMBER})%?(?:\s?[–—]\s?|[-~])(?=(?P<high>{_NUMBER}))", _range),
        (r"(?<![0-9A-Za-z])([0-9])'\s?([0-9]{1,2})(?![0-9])(?:\"|'')?",
         lambda m: f"{words.number(m[1])} foot {words.number(m[2])}"),
        (rf"{_SIGN}(?P<amount>{_NUMBER})\s?%",
         lambda m: _signed(m, f"{words.number(m['amount'])} percent")),
        (rf"{_SIGN}(?P<amount>{_NUMBER})(?P<unit>{_UNIT})(?![0-9A-Za-z])", _measure),
        (rf"{_START}{_NUMBER}(?P<unit>[°µA-Za-z][A-Za-z/²³]{{1,7}})(?![0-9A-Za-z])",
         _measure_by_grammar),
        (rf"{_START}(?P<low>[0-9]+):(?=[0-9]+{_END})", lambda m: f"{words.number(m['low'])} to "),
        (r"(?<=[0-9])\s?x\s?(?=[0-9])", lambda m: " by "),
        (r"(?<=[0-9])\s?[×*]\s?(?=[0-9])|(?<=[0-9])x\b", lambda m: " times "),
        (r"(?<=[0-9)])\s?\+\s?(?=[0-9(])|(?<=[0-9])\+(?=\s|$)", lambda m: " plus "),
        (r"(?<=[0-9])\^(?=[0-9])", lambda m: " to the power of "),
        (r"(?<=[0-9)])\s[-−–]\s(?=[0-9(])", lambda m: " minus "),
        (r"(?<=[0-9)])\s?÷\s?(?=[0-9(])", lambda m: " divided by "),
        (r"(?<![0-9A-Za-z])[-−](?=\.?[0-9])", lambda m: "minus "),
        (r"(?<![0-9A-Za-z])\+(?=[0-9])", lambda m: "plus "),
        (r"#(?=[0-9])", lambda m: "number "),
    )
)  # fmt: skip
"""Patterns with what they say; earlier ones see the text first."""
