"""The attributes by which rows form subgroups: the class, a face that was found, and the columns of the manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.analysis.answers import Ints
from emofuse.cache.reader import Cache
from emofuse.specs import digest
from emofuse.status import Status

Bools = npt.NDArray[np.bool_]
MOST_GROUPS = 12
"""The largest number of values of a column that are subgroups; the rarer ones are one subgroup together."""
_BINS = 4
_FEW_NUMBERS = 6  # a column of at most this many different numbers is no scale
_PLACES = re.compile(
    r"^(sample_id|path|member|split|label|group|problem|audio_path|start_s|end_s|face_(left|top|width|height)|votes?_.*)$"
)
"""Columns that name a row or its place, or are targets."""
_PEOPLE = re.compile(
    r"(^|_)(speaker|actor|subject|person|identity|sex|gender|age|race|ethnic\w*|skin\w*|nationality|country|group)(_|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Subgroup:
    """Some of the analysed rows.

    Attributes:
        attribute: what they have in common, such as `face` or a column of the manifest.
        name: its value.
        rows: whether each row is one of them, bool (n,).
    """

    attribute: str
    name: str
    rows: Bools

    @property
    def count(self) -> int:
        """The number of rows."""
        return int(self.rows.sum())


def find_subgroups(
    classes: Sequence[str],
    label: Ints,
    cache: Cache | None = None,
    rows: Ints | None = None,
    *,
    without: Collection[str] = (),
) -> tuple[list[Subgroup], list[str]]:
    """Return the subgroups of some rows, and the columns that form none because nearly every row has another value.

    Args:
        classes: the names of the classes.
        label: the class of each row, int64 (n,).
        cache: the cache with their features and manifest; without it, only classes form subgroups.
        rows: the rows of the cache, int64 (n,).
        without: columns that form no subgroups, such as those of the target: in rows of similar true values every
            correlation is small.
    """
    found = [Subgroup("class", name, label == place) for place, name in enumerate(classes)]
    left_out: list[str] = []
    if cache is not None and rows is not None:
        found += _presence(cache, rows)
        for column in cache.manifest.table.columns:
            if _PLACES.match(column) or column in without:
                continue
            of_column = list(_of_column(column, cache.manifest.table[column][rows]))
            found += of_column
            if not of_column and cache.manifest.table[column].n_unique() > MOST_GROUPS:
                left_out.append(column)
    return [group for group in found if group.count], left_out


def people_of(cache: Cache, rows: Ints) -> list[list[Subgroup]]:
    """Return the subgroups of each attribute of people: speaker, sex, age, and the groups of the manifest.

    Attributes are found by the names of their columns.
    """
    table = cache.manifest.table
    found = []
    for column in table.columns:
        if (column == "group" and cache.has_groups) or (not _PLACES.match(column) and _PEOPLE.search(column)):
            of_column = list(_of_column(column, table[column][rows], most=60, different=True))
            if len(of_column) > 1:
                found.append(of_column)
    return found


def _presence(cache: Cache, rows: Ints) -> Iterator[Subgroup]:
    """Yield rows with and without a detection; streams that lack the same rows are one attribute."""
    seen: dict[str, None] = {}
    for name, stream in cache.streams.items():
        absent = stream.status[rows, 0] == Status.NO_DETECTION
        key = digest(np.flatnonzero(absent).tolist())
        if not absent.any() or absent.all() or key in seen:
            continue
        seen[key] = None
        attribute = "face" if stream.kind in {"landmarks", "action_units", "lbp", "hog"} else name
        yield Subgroup(attribute, "found" if attribute == "face" else "there", ~absent)
        yield Subgroup(attribute, "not found" if attribute == "face" else "not there", absent)


def _of_column(
    column: str, values: pl.Series, *, most: int = MOST_GROUPS, different: bool = False
) -> Iterator[Subgroup]:
    """Yield the subgroups of a column: its values, bins of its numbers, or what its lists hold."""
    if isinstance(values.dtype, pl.List):
        yield from _of_lists(column, values.to_list(), most)
    elif values.dtype.is_numeric() and values.n_unique() > _FEW_NUMBERS:
        yield from _of_numbers(column, values.cast(pl.Float64).to_numpy())
    elif values.dtype.is_numeric() or values.dtype in {pl.String, pl.Boolean, pl.Categorical}:
        texts = [None if value is None else _text(value) for value in values.to_list()]
        yield from _of_texts(column, texts, most, different=different)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_texts(column: str, texts: Sequence[str | None], most: int, *, different: bool) -> Iterator[Subgroup]:
    counts = Counter(text for text in texts if text is not None)
    if len(counts) > most and len(counts) > len(texts) / 3 and not different:
        return  # a name, not an attribute
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    shown, others = ranked[:most], set(ranked[most:])
    array = np.array(["" if text is None else f"={text}" for text in texts], dtype=object)
    if len(counts) + (len(counts) < len(set(texts))) < 2:
        return
    for text in shown:
        yield Subgroup(column, text, array == f"={text}")
    if others:
        rare = np.array([text in others for text in texts])
        yield Subgroup(column, f"{len(others)} rarer values", rare)
    if None in texts:
        yield Subgroup(column, "none given", np.array([text is None for text in texts]))


def _of_numbers(column: str, numbers: npt.NDArray[np.float64]) -> Iterator[Subgroup]:
    known = np.isfinite(numbers)
    if not known.any():
        return
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, _BINS + 1)))
    if len(edges) < 3:
        return
    for place, (low, high) in enumerate(pairwise(edges.tolist())):
        last = place == len(edges) - 2
        inside = known & (numbers >= low) & ((numbers <= high) if last else (numbers < high))
        yield Subgroup(column, f"{low:.3g} to {'' if last else 'below '}{high:.3g}", inside)
    if not known.all():
        yield Subgroup(column, "none given", ~known)


def _of_lists(column: str, lists: Sequence[Sequence[object] | None], most: int) -> Iterator[Subgroup]:
    """Yield the rows that have each of the most frequent values; a row may be in several."""
    counts = Counter(str(value) for values in lists if values for value in set(values))
    for name, count in counts.most_common(most):
        if 1 < count < len(lists):
            yield Subgroup(
                column, name, np.array([bool(values) and name in map(str, values or ()) for values in lists])
            )
