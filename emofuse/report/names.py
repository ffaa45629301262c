"""Shortens names for figures: they fit on few lines, and different names stay different."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence

from emofuse.report.configurations import ReportedConfiguration


def marked(item: ReportedConfiguration) -> str:
    """Return the label, with a dagger if streams ran with random weights."""
    return f"{item.label} †" if item.random_streams else item.label


def wrap_marked(items: Sequence[ReportedConfiguration], width: int = 24) -> list[str]:
    """Return labels in lines. Those with random weights have a dagger, which is never alone on a line."""
    line = width - 2 if any(item.random_streams for item in items) else width
    wrapped = _set_apart(
        [item.label for item in items],
        (lambda label: wrap(label, line), lambda label: wrap(shorten_middle(label, 3 * line), line)),
        lambda label, count: f"{wrap(shorten_middle(label, 2 * line), line, 3)}\n({count})",
    )
    return [f"{text} †" if item.random_streams else text for text, item in zip(wrapped, items, strict=True)]


def wrap(label: str, width: int = 24, lines: int = 4) -> str:
    """Break a name after `+`, `/`, `,` or a space; an ellipsis replaces what is beyond the last line."""
    wrapped = [""]
    for part in re.findall(r"[^+/,\s]*[+/,\s]?", label):
        for piece in textwrap.wrap(part, width, drop_whitespace=False) or [""]:
            if len(wrapped[-1]) + len(piece.rstrip()) > width:
                wrapped.append("")
            wrapped[-1] += piece
    kept = [line.rstrip() for line in wrapped[:lines]]
    if len(wrapped) > lines:
        kept[-1] = kept[-1][: width - 1] + "…"
    return "\n".join(kept)


def shorten_all(names: Sequence[str], width: int = 22, *, in_the_middle: bool = False) -> list[str]:
    """Return names on one line each, cut off at `width` characters.

    Names that would look alike are cut in the middle instead, or all of them with `in_the_middle`. Names that still
    look alike get a number: `a name … number (2)`.
    """
    middle: Callable[[str], str] = lambda name: shorten_middle(name, width)  # noqa: E731
    return _set_apart(
        names,
        (middle,) if in_the_middle else (lambda name: shorten(name, width), middle),
        lambda name, count: f"{shorten_middle(name, width - len(f' ({count})'))} ({count})",
    )


def shorten(name: str, width: int = 22) -> str:
    """Return a name on one line, cut off at `width` characters."""
    flat = " ".join(name.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def shorten_middle(name: str, width: int) -> str:
    """Return a name on one line, cut in the middle, because names of a search begin alike and differ at their end."""
    flat = " ".join(name.split())
    head = (width - 1) // 3
    return flat if len(flat) <= width else f"{flat[:head]}…{flat[head + 1 - width :]}"


def file_names(labels: Sequence[str]) -> list[str]:
    """Return parts of file names from labels, all different even where file systems ignore case."""
    slugs: list[str] = []
    for label in labels:
        base = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.")[:80] or "configuration"
        slug, count = base, 1
        while slug.lower() in (taken.lower() for taken in slugs):
            count += 1
            slug = f"{base}-{count}"
        slugs.append(slug)
    return slugs


def _set_apart(
    names: Sequence[str], forms: Sequence[Callable[[str], str]], numbered: Callable[[str, int], str]
) -> list[str]:
    """Return names in the first form, those that look alike in the next, and at last with a number of their own."""
    shown = [forms[0](name) for name in names]
    for form in forms[1:]:
        for index in _places_of_repeated(shown):
            shown[index] = form(names[index])
    taken = set(shown)
    for index in _places_of_repeated(shown):
        shown[index] = next(
            text for count in itertools.count(1) if (text := numbered(names[index], count)) not in taken
        )
        taken.add(shown[index])
    return shown


def _places_of_repeated(texts: Sequence[str]) -> list[int]:
    times = Counter(texts)
    return [index for index, text in enumerate(texts) if times[text] > 1]
