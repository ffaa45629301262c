"""Finds the pairs of configurations that a report is asked to compare."""

from __future__ import annotations

from collections.abc import Sequence

from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration, Results, find_configuration


def find_pairs(results: Results, wanted: Sequence[str | tuple[str, str]], where: str) -> list[tuple[str, str]]:
    """Return the labels of pairs: A is compared with B.

    A and B are names or labels of configurations. As one text they are written as `A=B`, and may have equals signs
    themselves. Of several ways to write the same comparison, the first counts.

    Raises:
        ResultsError: a text has no equals sign between two configurations, or names one configuration twice.
    """
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for each in wanted:
        names = _split_pair(results.configurations, each, where) if isinstance(each, str) else each
        first, second = (
            find_configuration(results.configurations, name, where, "configuration").label for name in names
        )
        if first == second:
            raise ResultsError(f"{where}: a configuration cannot be compared with itself, got {each!r}")
        pairs.setdefault(frozenset((first, second)), (first, second))
    return list(pairs.values())


def _split_pair(configurations: Sequence[ReportedConfiguration], text: str, where: str) -> tuple[str, str]:
    parts = text.split("=")
    if len(parts) == 1:
        raise ResultsError(f"{where}: a comparison is written as A=B, got {text!r}")
    names = {name for item in configurations for name in (item.label, item.name)}
    splits = [("=".join(parts[:at]).strip(), "=".join(parts[at:]).strip()) for at in range(1, len(parts))]
    return next((pair for pair in splits if set(pair) <= names), splits[0])
