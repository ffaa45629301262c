"""Chooses fonts for the letters of a report's figures, so that names in all scripts are drawn if possible.

DejaVu Sans comes with matplotlib and draws every letter that it has, so that figures are the same on every machine.
Other letters are looked up in the fonts of the system, by the letters that each font holds. Figures show a name with
letters that no font holds by a number, and the page lists the numbers with their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import is_control, show_controls
from emofuse.report.scripts import families_for
from emofuse.wording import join_names

PLAIN = "DejaVu Sans"
_NOT_DRAWN = ("coloremoji", "color emoji", "emojione", "twemoji", "lastresort", "fallback", "unifont")
"""Parts of the names of fonts that hold coloured pictures or placeholders in place of letters."""


@dataclass(frozen=True)
class Lettering:
    """The fonts and substitutes for names in figures. Names of streams are ASCII and need no substitute.

    Attributes:
        families: the font families; the first that has a letter draws it.
        labels: label that cannot be drawn -> what figures show instead; empty if all can be drawn.
        configurations: the same for names of configurations, which may equal names of labels.
        fitting: the families that have the missing letters, for advice.
    """

    families: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    configurations: Mapping[str, str] = field(default_factory=dict)
    fitting: tuple[str, ...] = ()

    def notice(self, most: int | None = None) -> str:
        """Return a sentence on names that are shown by number; empty if all names are drawn.

        Args:
            most: the largest number of names that it lists; all unless given.
        """
        pairs = [*self.labels.items(), *self.configurations.items()]
        if not pairs:
            return ""
        names = [f"{shown} is {show_controls(name)}" for name, shown in pairs]
        more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
        fonts = f", such as {join_names(self.fitting)}," if self.fitting else ""
        return (
            "No font of this machine has all letters of some names, so figures show them by number: "
            f"{', '.join(names[:most])}{more}. Install a font that has these letters{fonts} and write the report "
            "again: emofuse report."
        )


def choose_lettering(results: Results) -> Lettering:
    """Choose fonts for the names of all labels and configurations."""
    return choose_lettering_of(results.classes, [item.label for item in results.configurations])


def choose_lettering_of(labels: Sequence[str], configurations: Sequence[str] = ()) -> Lettering:
    """Choose fonts for these names of labels and configurations."""
    wanted = {ord(letter) for name in (*labels, *configurations) for letter in name if _needs_font(letter)}
    wanted -= letters_of(_plain_font())
    families, missing = [PLAIN], wanted
    for path in _other_fonts() if wanted else ():
        if not missing:
            break
        letters = missing & letters_of(path)
        if letters:
            family = _register(path)
            if family:
                families.append(family)
                missing = missing - letters
    return Lettering(
        tuple(families),
        _number("label", labels, missing),
        _number("configuration", configurations, missing),
        tuple(families_for(missing)),
    )


def _needs_font(letter: str) -> bool:
    """Return whether a font must hold the letter; spaces and control characters, which are escaped, need none."""
    return not letter.isspace() and not is_control(letter)


def _number(kind: str, names: Sequence[str], missing: Collection[int]) -> dict[str, str]:
    """Return names with missing letters -> their numbers, in a form that no other name of the kind has.

    The form is `label 1` or, if there is a label of that name, `label #1`, and so on.
    """
    places = [(name, place) for place, name in enumerate(names, start=1) if not set(missing).isdisjoint(map(ord, name))]
    taken = {_read(name) for name in names}
    for sign in itertools.accumulate(itertools.repeat("#"), initial=""):
        numbered = {name: f"{kind} {sign}{place}" for name, place in places}
        if taken.isdisjoint(numbered.values()):
            return numbered
    raise AssertionError("there are more signs than names")


def _read(name: str) -> str:
    """Return a name as readers compare it: without differences in case and spaces."""
    return " ".join(show_controls(name).casefold().split())


def with_drawn_names(results: Results, uncertainty: Uncertainty, lettering: Lettering) -> tuple[Results, Uncertainty]:
    """Return the results under names that can be drawn: numbers for missing letters, escapes for control characters."""
    classes = _drawn(results.classes, lettering.labels)
    labels = _drawn([item.label for item in results.configurations], lettering.configurations)
    if all(name == shown for drawn in (classes, labels) for name, shown in drawn.items()):
        return results, uncertainty

    def rename(item: ReportedConfiguration) -> ReportedConfiguration:
        runs = tuple(replace(run, classes=tuple(classes[name] for name in run.classes)) for run in item.runs)
        return replace(item, label=labels[item.label], runs=runs)

    items = {item.label: rename(item) for item in results.configurations}
    return (
        replace(results, configurations=tuple(items.values()), baseline=items[results.baseline.label]),
        replace(
            uncertainty,
            intervals={shown: uncertainty.intervals.get(label, {}) for label, shown in labels.items()},
            comparisons={
                (labels[first], labels[other]): each for (first, other), each in uncertainty.comparisons.items()
            },
        ),
    )


def _drawn(names: Sequence[str], numbered: Mapping[str, str]) -> dict[str, str]:
    """Return every name -> what figures show. All are different, although an escape may equal another name."""
    shown: dict[str, str] = {}
    taken = set(names)
    for name in names:
        text = numbered.get(name) or show_controls(name)
        if text != name:
            while text in taken:
                text += "′"
            taken.add(text)
        shown[name] = text
    return shown


@lru_cache(maxsize=512)
def letters_of(path: str) -> frozenset[int]:
    """Return the code points that a font file holds; an empty set if it cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _plain_font() -> str:
    return font_manager.findfont(PLAIN, fallback_to_default=True)


def _other_fonts() -> list[str]:
    """Return the font files of the system that draw letters, those with CJK in their names first."""
    paths = [path for path in font_manager.findSystemFonts() if not _is_left_out(path)]
    return sorted(paths, key=lambda path: ("cjk" not in path.lower(), "regular" not in path.lower(), path))


def _is_left_out(path: str) -> bool:
    name = Path(path).name.lower()
    return any(part in name for part in _NOT_DRAWN)


def _register(path: str) -> str:
    """Register a font with matplotlib and return its family; an empty text if matplotlib cannot use it."""
    try:
        font_manager.fontManager.addfont(path)
        return str(FT2Font(path).family_name)
    except (OSError, RuntimeError, ValueError):
        return ""
