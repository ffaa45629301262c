"""Numbers and names as a reader sees them: in cells, sentences and captions."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

from emofuse.report.configurations import Spread
from emofuse.statistics import Interval

UNDEFINED = "–"
MOST_NAMES = 6
_SPELLING = "\u00ad\u061c\u200c\u200d\u200e\u200f\u06dd\u070f\u08e2"
"""Format characters that words and numbers are spelled with: a soft hyphen, joiners, marks of direction."""
_TAGS = 0x11000  # from here on they belong to letters and pictures beside them: hieroglyphs, notes, flags


def format_score(value: float | None) -> str:
    """A score between 0 and 1."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.3f}"


def format_difference(value: float, decimals: int = 3) -> str:
    """A difference with its sign and a true minus; zero has no sign."""
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def format_range(spread: Spread) -> str:
    """A count, or its smallest and largest value over the repeats."""
    if spread.n == 0:
        return UNDEFINED
    return f"{spread.low:,.0f}" if spread.low == spread.high else f"{spread.low:,.0f}–{spread.high:,.0f}"


def format_interval(interval: Interval | None, *, signed: bool = False) -> str:
    """An interval of scores, or of differences with their signs; empty if there is none."""
    if interval is None or math.isnan(interval.low):
        return ""
    show = format_difference if signed else format_score
    return f"{show(interval.low)}, {show(interval.high)}"


def format_p(value: float) -> str:
    """A p value; below a thousandth only that it is."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def format_sd(spread: Spread) -> str:
    """The standard deviation over repeats; empty if there are not two."""
    return "" if math.isnan(spread.sd) else f"{spread.sd:.3f}"


def join_names(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def join_some(names: Iterable[str]) -> str:
    """The same, but of many names the first few and how many more there are: no sentence is a list of sixty."""
    known = list(names)
    if len(known) <= MOST_NAMES:
        return join_names(known)
    return f"{', '.join(known[: MOST_NAMES - 1])} and {len(known) - MOST_NAMES + 1} more"


def show_controls(text: str) -> str:
    r"""Text in which characters that nobody sees, or that turn text around, are written as in Python: `joy\x07`.

    Tabs and ends of lines stay, and so do the joiners and marks that Persian, Indic and Hebrew words are spelled with.
    """
    return "".join(_escaped(letter) if is_control(letter) else letter for letter in text)


def is_control(letter: str) -> bool:
    """Whether a character is a control character, half of one, or one without a width that no word is spelled with."""
    category = unicodedata.category(letter)
    if category == "Cf":
        return letter not in _SPELLING and ord(letter) < _TAGS and "NUMBER" not in unicodedata.name(letter)
    return (category == "Cc" and letter not in "\t\n\r") or category == "Cs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line; `<0.001` begins no tag and stays readable as plain text."""
    escaped = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(show_controls(text).split()))
    return re.sub(r"<(?!\d)", "&lt;", escaped.replace("&", "&amp;")).replace(">", "&gt;")
