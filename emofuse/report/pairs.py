"""Finds the pairs of configurations that a report is asked to compare."""

from __future__ import annotations

from collections.abc import Sequence

from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration, Results, find_configuration


def find_pairs(results: Results, wanted: Sequence[str], where: str) -> list[tuple[str, str]]:
    """Return the labels of pairs that are written as `A=B`: A is compared with B.

    A and B are names or labels of configurations, which may have equals signs themselves.

    Raises:
        ResultsError: a text has no equals sign between two configurations, or names one configuration twice.
    """
    return [_find_pair(results.configurations, text, where) for text in wanted]


def _find_pair(configurations: Sequence[ReportedConfiguration], text: str, where: str) -> tuple[str, str]:
    parts = text.split("=")
    if len(parts) == 1:
        raise ResultsError(f"{where}: a comparison is written as A=B, got {text!r}")
    names = {name for item in configurations for name in (item.label, item.name)}
    splits = [("=".join(parts[:at]).strip(), "=".join(parts[at:]).strip()) for at in range(1, len(parts))]
    first, second = next((pair for pair in splits if set(pair) <= names), splits[0])
    labels = [find_configuration(configurations, name, where, "configuration").label for name in (first, second)]
    if labels[0] == labels[1]:
        raise ResultsError(f"{where}: a configuration cannot be compared with itself, got {text!r}")
    return labels[0], labels[1]
