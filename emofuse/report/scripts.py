"""Finds the font families that have the letters of a script, for advice on names that cannot be drawn."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_FAMILIES = {
    **dict.fromkeys(
        ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "KANGXI", "FULLWIDTH", "HALFWIDTH"),
        "Noto Sans CJK",
    ),
    **dict.fromkeys(("LATIN", "GREEK", "CYRILLIC", "COMBINING"), "Noto Sans"),
    "TIBETAN": "Noto Serif Tibetan",
    "TANGUT": "Noto Serif Tangut",
    "CANADIAN": "Noto Sans Canadian Aboriginal",
    "NKO": "Noto Sans NKo",
    "MATHEMATICAL": "Noto Sans Math",
}
"""First word of the Unicode name of a letter -> family, if that is not `Noto Sans` and the name of the script."""
_AFTER_SCRIPT = {
    *(
        "LETTER",
        "SMALL",
        "CAPITAL",
        "LIGATURE",
        "CHARACTER",
        "IDEOGRAPH",
        "SYLLABLE",
        "SYLLABICS",
        "CONSONANT",
        "VOWEL",
    ),
    *(
        "SIGN",
        "INDEPENDENT",
        "DEPENDENT",
        "SUBJOINED",
        "MEDIAL",
        "FINAL",
        "TONE",
        "MARK",
        "PUNCTUATION",
        "DIGIT",
        "NUMBER",
    ),
}
"""Words that follow the name of the script in Unicode names, as in `OL CHIKI LETTER LA`."""


def families_for(letters: Iterable[int]) -> list[str]:
    """Return the families that hold the letters, in the order of the code points; none for letters without a script."""
    families = (_family_for(chr(letter)) for letter in sorted(letters))
    return list(dict.fromkeys(family for family in families if family))


def _family_for(letter: str) -> str:
    words = unicodedata.name(letter, "").split()
    if not words:
        return ""
    if words[0] in _FAMILIES:
        return _FAMILIES[words[0]]
    if unicodedata.category(letter).startswith("S"):
        return "Noto Emoji" if ord(letter) >= 0x1F000 else "Noto Sans Symbols 2"
    ends = [index for index, word in enumerate(words) if word in _AFTER_SCRIPT]
    return f"Noto Sans {' '.join(words[: ends[0]]).title()}" if ends and ends[0] else ""
