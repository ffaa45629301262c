"""Fonts for the letters of a report's figures: Chinese, Japanese, Korean and other names are drawn where possible.

DejaVu Sans travels with matplotlib and is used for all that it has, so that figures are the same on every machine. For
other letters the fonts of the system are asked which letters they hold; their names promise nothing. A name with
letters that no font holds is replaced in figures by a number, and the page lists which number stands for which name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import Results

PLAIN = "DejaVu Sans"
_NOT_DRAWN = ("emoji", "lastresort", "fallback", "unifont")
"""Parts of the names of fonts that hold pictures or placeholders in place of letters."""


@dataclass(frozen=True)
class Lettering:
    """How the names of a report are written in its figures.

    Attributes:
        families: fonts, the first that has a letter draws it.
        numbered: name that cannot be drawn -> what figures show in its place; empty where all can be drawn.
    """

    families: tuple[str, ...]
    numbered: Mapping[str, str]

    def notice(self, most: int | None = None) -> str:
        """A sentence for a reader; empty where all names are drawn.

        Args:
            most: how many names it lists; all unless given.
        """
        if not self.numbered:
            return ""
        names = [f"{shown} is {name}" for name, shown in self.numbered.items()]
        more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
        return (
            "No font of this machine has all letters of some names, so figures show them by number: "
            f"{', '.join(names[:most])}{more}. Install a font that has these letters, such as Noto Sans CJK, and write "
            "the report again: emofuse report."
        )


def choose_lettering(results: Results) -> Lettering:
    """Fonts for all names of a report's figures: its labels, configurations and streams."""
    streams = [name for item in results.configurations for name in item.streams]
    kinds = {
        "label": results.classes,
        "configuration": tuple(item.label for item in results.configurations),
        "stream": tuple(dict.fromkeys(streams)),
    }
    wanted = {ord(letter) for names in kinds.values() for name in names for letter in name if not letter.isspace()}
    wanted -= letters_of(_plain_font())
    families, missing = [PLAIN], wanted
    for path in _other_fonts() if wanted else ():
        if not missing:
            break
        held = missing & letters_of(path)
        if held:
            family = _register(path)
            if family:
                families.append(family)
                missing = missing - held
    numbered = {
        name: f"{kind} {index}"
        for kind, names in kinds.items()
        for index, name in enumerate(names, start=1)
        if missing & set(map(ord, name))
    }
    return Lettering(tuple(families), numbered)


def with_drawn_names(
    results: Results, uncertainty: Uncertainty, numbered: Mapping[str, str]
) -> tuple[Results, Uncertainty]:
    """The same results with numbers in place of names that cannot be drawn."""
    if not numbered:
        return results, uncertainty
    items = {
        item.label: replace(
            item,
            label=numbered.get(item.label, item.label),
            runs=tuple(replace(run, classes=_shown(run.classes, numbered)) for run in item.runs),
        )
        for item in results.configurations
    }
    return (
        replace(results, configurations=tuple(items.values()), baseline=items[results.baseline.label]),
        replace(
            uncertainty,
            intervals={numbered.get(label, label): found for label, found in uncertainty.intervals.items()},
            comparisons={numbered.get(label, label): found for label, found in uncertainty.comparisons.items()},
        ),
    )


def _shown(names: Iterable[str], numbered: Mapping[str, str]) -> Sequence[str]:
    return tuple(numbered.get(name, name) for name in names)


@lru_cache(maxsize=512)
def letters_of(path: str) -> frozenset[int]:
    """Code points that a font file holds; none if it cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _plain_font() -> str:
    return font_manager.findfont(PLAIN, fallback_to_default=True)


def _other_fonts() -> list[str]:
    """Font files of the system that draw letters: those with CJK in their name first, then by name."""
    found = [path for path in font_manager.findSystemFonts() if not _is_left_out(path)]
    return sorted(found, key=lambda path: ("cjk" not in path.lower(), "regular" not in path.lower(), path))


def _is_left_out(path: str) -> bool:
    name = Path(path).name.lower()
    return any(part in name for part in _NOT_DRAWN)


def _register(path: str) -> str:
    """Makes a font known to matplotlib; returns its family, or "" if matplotlib cannot use it."""
    try:
        font_manager.fontManager.addfont(path)
        return str(FT2Font(path).family_name)
    except (OSError, RuntimeError, ValueError):
        return ""
