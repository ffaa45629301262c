"""The pairs of configurations that a pipeline or sweep compares beside those with the baseline."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BeforeValidator

from emofuse.errors import did_you_mean


def _parse_pairs(written: Any) -> Any:
    """Check that each comparison is a list of two names: the user may have written one pair alone, or `A=B`."""
    is_list = isinstance(written, list | tuple)
    for pair in written if is_list else (written,):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise ValueError(f"expected a list of pairs of names like [[A, B], [A, C]], got {written!r}")
    return written


Pairs = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_parse_pairs)]
"""Pairs of names; the first of each is compared with the second."""


def pair_problems(pairs: Pairs, known: Collection[str] | None = None) -> list[str]:
    """Return what is wrong with pairs: a name beside itself, a pair given twice, names that no run has.

    Args:
        pairs: the pairs.
        known: the names of the runs; None if they are not known yet.
    """
    problems = []
    for index, pair in enumerate(pairs):
        place = f"compare[{index}]"
        if pair[0] == pair[1]:
            problems.append(f"{place}: {pair[0]!r} cannot be compared with itself")
        elif set(pair) in map(set, pairs[:index]):
            problems.append(f"{place}: {pair[0]!r} and {pair[1]!r} are compared above already")
        problems += [
            f"{place}: {name!r} is not the name of a run{did_you_mean(name, known)}"
            for name in dict.fromkeys(pair)
            if known is not None and name not in known
        ]
    return problems
