"""Makes output safe for terminals and logs in Latin-1, cp1252 or ASCII, which lack characters of reports; exits."""

from __future__ import annotations

import codecs
import io
import sys

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended."""

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
    """Let standard output and error replace characters that they cannot encode, instead of raising.

    Characters of emofuse's tables have a spelling in ASCII. For other characters the code points are written, so that
    different names stay different.
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


class StoppedByUser(SystemExit):
    """Ends a command behind Ctrl-C, with the exit status of an interrupt; the command has said what it kept."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)
