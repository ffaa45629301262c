"""Formats numbers and names for cells, sentences and captions."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

from emofuse.report.configurations import Spread
from emofuse.report.targets import decimals_of
from emofuse.statistics import Interval
from emofuse.wording import join_first, join_names

UNDEFINED = "–"
MOST_NAMES = 6
_SPELLING = "\u00ad\u061c\u200c\u200d\u200e\u200f\u06dd\u070f\u08e2"
"""Format characters that are part of words and numbers: a soft hyphen, joiners, marks of direction."""
_TAGS = 0x11000  # from here on they belong to the symbols beside them: hieroglyphs, musical notes, flags


def format_score(value: float | None, decimals: int | None = 3) -> str:
    """Return a score with three decimals, with others, or (None) with three significant digits."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return format_difference(value, decimals).removeprefix("+")


def format_difference(value: float, decimals: int | None = 3) -> str:
    """Return a difference with its sign, with a true minus; zero has no sign.

    Args:
        value: the difference.
        decimals: the number of decimals; None for three significant digits.
    """
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:+.{decimals_of(value) if decimals is None else decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def format_range(spread: Spread) -> str:
    """Return a count, or its smallest and largest value over the repeats."""
    if spread.n == 0:
        return UNDEFINED
    return f"{spread.low:,.0f}" if spread.low == spread.high else f"{spread.low:,.0f}–{spread.high:,.0f}"


def format_interval(interval: Interval | None, *, signed: bool = False, decimals: int | None = 3) -> str:
    """Return an interval of scores, or of differences with their signs; an empty text without an interval."""
    if interval is None or math.isnan(interval.low):
        return ""
    show = format_difference if signed else format_score
    return f"{show(interval.low, decimals)}, {show(interval.high, decimals)}"


def format_p(value: float) -> str:
    """Return a p value with three decimals, or `<0.001`."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def format_sd(spread: Spread, decimals: int | None = 3) -> str:
    """Return the standard deviation over repeats; an empty text for fewer than two."""
    return "" if math.isnan(spread.sd) else format_score(spread.sd, decimals)


def join_some(names: Iterable[str]) -> str:
    """Return the joined names; of many names the first ones and the number of the others."""
    every = list(names)
    if len(every) <= MOST_NAMES:
        return join_names(every)
    return join_first(every, MOST_NAMES - 1)


def show_controls(text: str) -> str:
    r"""Return the text with invisible characters, and those that reverse text, escaped as in Python: `joy\x07`.

    Tabs and line ends stay, and so do the joiners and marks of Persian, Indic and Hebrew words.
    """
    # Figures in a page are millions of letters, but few different ones.
    controls = {ord(letter): _escaped(letter) for letter in set(text) if is_control(letter)}
    return text.translate(controls) if controls else text


def is_control(letter: str) -> bool:
    """Return whether a character is a control character, a surrogate, or one without width that is part of no word."""
    category = unicodedata.category(letter)
    if category == "Cf":
        return letter not in _SPELLING and ord(letter) < _TAGS and "NUMBER" not in unicodedata.name(letter)
    return (category == "Cc" and letter not in "\t\n\r") or category == "Cs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows unchanged, on one line. `<0.001` begins no tag and stays as it is."""
    escaped = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(show_controls(text).split()))
    return re.sub(r"<(?!\d)", "&lt;", escaped.replace("&", "&amp;")).replace(">", "&gt;")
