"""Notes on the labels of a dataset: spellings of one label, missing values written as text, rare labels.

They are notes and not errors: a dataset may intend each of these, but a user who trains on it should know.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from emofuse.datasets.split_needs import describe_counts, rare_labels
from emofuse.datasets.splits import SPLITS
from emofuse.specs.datasets import SplitSpec
from emofuse.wording import count_of, join_first

_NAMED = 5
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")
_MISSING = frozenset(
    {"", "nan", "none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nat", "missing"}
    | {"#value!", "#ref!", "#null!", "#num!", "#name?", "#div/0!"}
)


def label_notes(labels: Sequence[str | None], splits: Sequence[str | None], split: SplitSpec) -> list[str]:
    """Return the notes on the labels, one line each.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        splits: train, val, test or None (N,).
        split: the spec that the splits were made by.
    """
    counts: Counter[str] = Counter(sorted(label for label in labels if label is not None))
    notes = [*_spellings(counts), *_missing_values(counts)]
    splits_of: dict[str, set[str]] = defaultdict(set)
    for label, name in zip(labels, splits, strict=True):
        if label is not None and name is not None:
            splits_of[label].add(name)
    splits_of = {label: splits_of[label] for label in counts if splits_of[label]}
    if split.kind == "stratified":
        return [*notes, *_rare(counts, splits_of)]
    return [*notes, *_absent(splits_of)]


def same_label(label: str) -> str:
    """Return the normal form of a label, which all spellings of one label have in common.

    It ignores case, Unicode's normal and compatibility forms, invisible characters, the number of spaces, hyphens and
    underscores for spaces, and the format of a number.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    text = "".join(character for character in text if unicodedata.category(character) != "Cf").strip()
    if _NUMBER.fullmatch(text):
        return repr(float(text))
    return re.sub(r"[\s_-]+", " ", text).strip() or text


def _spellings(counts: Mapping[str, int]) -> list[str]:
    alike: dict[str, dict[str, int]] = defaultdict(dict)
    for label, rows in counts.items():
        alike[same_label(label)][label] = rows
    groups = [describe_spellings(group) for group in alike.values() if len(group) > 1]
    if not groups:
        return []
    text = (
        "labels that differ only in case, spaces, number format or Unicode form, and count as different labels: "
        f"{join_first(groups, _NAMED, joint='; ')}. Give them one spelling if they are one label"
    )
    return [text]


def describe_spellings(counts: Mapping[str, int]) -> str:
    """Return `'Happy' (6 rows) and 'happy' (6 rows)`, with code points where the letters look the same."""
    shown = [unicodedata.normalize("NFC", label) for label in counts]
    names = [
        repr(label) if shown.count(unicodedata.normalize("NFC", label)) == 1 and label.isprintable() else ascii(label)
        for label in counts
    ]
    return " and ".join(f"{name} ({count_of(rows, 'row')})" for name, rows in zip(names, counts.values(), strict=True))


def _missing_values(counts: Mapping[str, int]) -> list[str]:
    missing = {label: rows for label, rows in counts.items() if same_label(label) in _MISSING}
    if not missing:
        return []
    named = join_first(_with_rows(missing), _NAMED, joint="; ")
    return [f"labels that look like missing values, and count as labels: {named}. Leave a label empty if there is none"]


def _rare(counts: Mapping[str, int], splits_of: Mapping[str, set[str]]) -> list[str]:
    rare = rare_labels(counts)
    if not rare:
        return []
    lacking = [
        f"{sum(split not in splits_of.get(label, ()) for label in rare)} of them without a {split} row"
        for split in ("val", "test")
    ]
    text = (
        f"labels with too few rows for one in each split: {len(rare)} of {len(counts)} have fewer than {len(SPLITS)}, "
        f"{describe_counts(rare)}; {' and '.join(lacking)}"
    )
    return [text]


def _absent(splits_of: Mapping[str, set[str]]) -> list[str]:
    """Return a note on labels without a row in a split that has rows of other labels."""
    present = [split for split in SPLITS if any(split in splits for splits in splits_of.values())]
    parts = []
    for split in present:
        absent = [repr(label) for label, splits in splits_of.items() if split not in splits]
        if absent:
            parts.append(f"no {split} row has {join_first(absent, _NAMED, word='or')}")
    if not parts:
        return []
    return [f"labels that are missing in a split: {'; '.join(parts)}"]


def _with_rows(counts: Mapping[str, int]) -> list[str]:
    return [f"{label!r} ({count_of(rows, 'row')})" for label, rows in counts.items()]
