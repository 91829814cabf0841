"""Tables of English abbreviations and acronyms, written for this project. No rules are here."""

from __future__ import annotations

__all__ = [
    "ALWAYS_SPELLED",
    "AMBIGUOUS",
    "BEFORE_NAME",
    "BEFORE_NUMBER",
    "EVERYWHERE",
    "PRONOUNCED",
    "WITH_STOP",
]

BEFORE_NAME = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor",
    "St": "Saint", "Ste": "Saint", "Mt": "Mount", "Ft": "Fort", "Gen": "General",
    "Lt": "Lieutenant",
    "Col": "Colonel", "Capt": "Captain", "Sgt": "Sergeant", "Sen": "Senator", "Gov": "Governor",
    "Rep": "Representative", "Rev": "Reverend", "Hon": "Honorable", "Pres": "President",
}  # fmt: skip
"""With or without a full stop, before a capitalised word."""

BEFORE_NUMBER = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "Nr": "number",
    "Vol": "volume", "vol": "volume", "Ch": "chapter", "ch": "chapter", "Chap": "chapter",
    "Fig": "figure", "fig": "figure", "Figs": "figures", "Eq": "equation", "Sec": "section",
    "sec": "section", "p": "page", "pp": "pages", "pg": "page", "Ex": "example", "ca": "circa",
}  # fmt: skip
"""With or without a full stop, before a digit."""

EVERYWHERE = {
    "w/": "with ", "w/o": "without", "b/c": "because", "e.g.": "for example", "i.e.": "that is",
    "a.k.a.": "also known as", "aka": "also known as", "vs": "versus", "c/o": "care of",
    "Ph.D.": "P H D", "PhD": "P H D", "e.g": "for example", "i.e": "that is",
    "n/a": "not applicable",
    "N/A": "not applicable", "TL;DR": "T L D R", "p.s.": "P S", "etc": "et cetera",
    "approx": "approximately", "yrs": "years", "Wi-Fi": "wifi", "o'clock": "o'clock",
}  # fmt: skip
"""As they stand, as whole words."""

WITH_STOP = {
    "etc": "et cetera", "vs": "versus", "approx": "approximately", "dept": "department",
    "est": "established", "jr": "Junior", "sr": "Senior", "inc": "Incorporated", "ltd": "Limited",
    "corp": "Corporation", "co": "Company", "bros": "Brothers", "ave": "Avenue",
    "blvd": "Boulevard", "rd": "Road", "apt": "apartment", "govt": "government",
    "misc": "miscellaneous",
    "incl": "including", "excl": "excluding", "max": "maximum", "min": "minimum",
    "temp": "temperature",
    "tsp": "teaspoons", "tbsp": "tablespoons", "yr": "year", "yrs": "years",
    "tel": "telephone", "ext": "extension", "ed": "edition", "cf": "compare", "al": "al",
    "mon": "Monday", "tue": "Tuesday", "tues": "Tuesday", "wed": "Wednesday", "thu": "Thursday",
    "thur": "Thursday", "thurs": "Thursday", "fri": "Friday", "sat": "Saturday", "sun": "Sunday",
    "jan": "January", "feb": "February", "mar": "March", "apr": "April", "aug": "August",
    "sept": "September", "sep": "September", "oct": "October", "nov": "November", "dec": "December",
    "mr": "Mister", "mrs": "Missus", "ms": "Miz", "dr": "Doctor", "prof": "Professor",
    "ft": "feet", "lb": "pounds", "lbs": "pounds", "oz": "ounces", "hrs": "hours",
    "mins": "minutes",
}  # fmt: skip
"""Lower case; only with their full stop."""

AMBIGUOUS = frozenset(str.split("sat sun wed mar max min ed al temp dec co est mon sep ext"))
"""Of those, words of their own: abbreviations only with a capital, and not at a sentence's end."""

ALWAYS_SPELLED = frozenset(
    str.split(
        "AI API ATM BBC CEO CFO COO CIA CTO DIY DNA EU EV FAQ FBI GPA GPU CPU HR HIV ICU ID IMF "
        "IOU IP IQ IRS ISO IT LED MIT MRI NBA NYC OK OS PC PR QA RSVP SEO SUV TV UAE UFO UI UK UN "
        "UPS URL US USA USB UTC VIP WWE XML YMCA AM PM AC DC EPA EKG IPA IPO PDF SQL HTML HTTP "
        "HTTPS CSS UX AWS IBM BMW NHL NFL MLB GMT EST PST"
    )
)
"""Spelled letter by letter even where they could be read as words."""

PRONOUNCED = frozenset(
    str.split("NASA NATO UNESCO UNICEF COVID LASER RADAR SIM RAM ROM OPEC AIDS SWAT NAFTA TED")
)
"""Read as words though in capitals."""
