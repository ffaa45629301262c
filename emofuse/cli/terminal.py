"""Output that cannot fail: terminals and logs in Latin-1, cp1252 or ASCII cannot show every character of a report."""

from __future__ import annotations

import codecs
import io
import sys

_HANDLER = "emofuse-readable"
_IN_ASCII = {
    "\u0394": "Delta",
    "\u00b1": "+/-",
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
    "\u00d7": "x",
}
_IN_ASCII |= {"\u00b7": "-", "\u2020": "+", "\u2192": "->", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
_IN_ASCII |= {"\u2501": "-", "\u2500": "-", "\u257a": "-", "\u2578": "-", "\u2022": "*", "\u00a0": " "}


def make_output_safe() -> None:
    """What standard output and error cannot show is written in other characters, and never raises.

    Characters of emofuse's own tables have a spelling in ASCII; of names and labels the code points are shown, so that
    two of them stay two.
    """
    codecs.register_error(_HANDLER, _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelt = []
    for character in error.object[error.start : error.end]:
        text = _IN_ASCII.get(character)
        spelt.append(text or character.encode("ascii", "backslashreplace").decode())
    return "".join(spelt), error.end
