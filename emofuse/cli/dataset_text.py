"""The text of `emofuse dataset check`: counts, columns that could be targets, sizes, and problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from emofuse.datasets.duplicates import DuplicateGroup
    from emofuse.datasets.near_duplicates import NearDuplicates
    from emofuse.datasets.rows import Listing
    from emofuse.datasets.summary import SizeSummary

_LISTED = 20
_PLAIN_WIDTH = 1000  # keeps rows on one line where the output is no terminal


def _print_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, with lines on a terminal and as aligned columns elsewhere."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table, width=None if console.is_terminal else _PLAIN_WIDTH)


def print_counts(console: Console, listing: Listing, kind: str, target: str) -> None:
    """Print the rows of each label and split, the groups, and the notes of the reader."""
    from emofuse.datasets.groups import describe_groups
    from emofuse.datasets.split_needs import SplitNeed, describe_lack
    from emofuse.datasets.summary import count_rows
    from emofuse.specs import OfficialSplit

    manifest = listing.manifest
    table = count_rows(manifest)
    labels = f"{len(manifest.classes) or 'no'} labels"
    console.print(f"{kind} dataset at {manifest.place}: {len(manifest)} rows, {labels}\n")
    rows = [(label, *counts, sum(counts)) for label, counts in table.counts.items()]
    rows.append(("total", *table.totals, sum(table.totals)))
    _print_table(console, ("label", *table.splits, "total"), rows)
    if groups := describe_groups(manifest.groups):
        console.print(f"Groups: {groups}")
    for note in manifest.info["notes"]:
        console.print(f"Note: {note}")
    lack = describe_lack(manifest, [SplitNeed(OfficialSplit())]) if manifest.classes else None
    if lack and kind == target:
        console.print(f"Note: runs cannot be trained on these splits as they are: {lack}")
    if not manifest.classes:
        console.print("Note: without labels, a run needs the columns of its `target`")


def print_target_columns(console: Console, listing: Listing) -> int:
    """Print the columns that could be targets and what is odd about them; return the number of these notes."""
    from emofuse.datasets.target_columns import find_target_columns

    columns = find_target_columns(listing.manifest)
    if not columns:
        return 0
    console.print("\nColumns that could be the target of a run\n")
    rows = [(column.name, column.kind, column.values, column.missing) for column in columns]
    _print_table(console, ("column", "kind", "values", "missing"), rows)
    notes = [note for column in columns for note in column.notes]
    for note in notes:
        console.print(f"Note: {note}")
    return len(notes)


def print_sizes(console: Console, sizes: SizeSummary) -> None:
    """Print the sizes of the images; nothing for a dataset without images."""
    if not sizes.candidates:  # a dataset of clips or sounds
        return
    part, advice = f"all {sizes.candidates}", ""
    if sizes.looked_at < sizes.candidates:
        part, advice = f"{sizes.looked_at} of {sizes.candidates}", ", chosen at random (--all reads every one)"
    console.print(f"\nSizes in pixels, from the headers of {part} images{advice}\n")
    if sizes.looked_at > len(sizes.unreadable):
        rows = (("width", *sizes.width), ("height", *sizes.height))
        _print_table(console, ("", "min", "median", "max"), rows)


def print_problems(
    console: Console,
    listing: Listing,
    sizes: SizeSummary,
    groups: Sequence[DuplicateGroup],
    lack: str | None,
    *,
    notes: int,
    is_problem: bool,
) -> bool:
    """Print what is wrong with the dataset, and return whether anything is.

    Args:
        console: the output.
        listing: the dataset.
        sizes: the sizes of its images.
        groups: its files with the same bytes.
        lack: what runs lack in it.
        notes: the number of notes that have been printed beside those of the listing.
        is_problem: whether a problem has been printed already.
    """
    if lack:
        console.print(f"\nProblem: the pipeline's runs cannot be trained on this dataset: {lack}")
    has_bad_groups = _print_duplicates(console, groups)
    if listing.bad_count or sizes.unreadable:
        _print_bad_rows(console, listing, sizes)
        return True
    if lack or has_bad_groups or is_problem:
        return True
    notes += len(listing.manifest.info["notes"]) + bool(groups)
    console.print("\nProblems: none" if not notes else f"\nNo bad rows; notes: {notes}, above")
    return False


def _print_bad_rows(console: Console, listing: Listing, sizes: SizeSummary) -> None:
    console.print(f"\nProblems: bad rows {listing.bad_count}, images with an unreadable header {len(sizes.unreadable)}")
    if listing.bad_count:
        console.print(listing.describe_bad_rows())
    if sizes.unreadable:
        console.print(f"  unreadable header: {len(sizes.unreadable)} (the build keeps such rows as `unreadable`)")
        _print_some(console, [f"{path}: {reason}" for path, reason in sizes.unreadable])


def _print_duplicates(console: Console, groups: Sequence[DuplicateGroup]) -> bool:
    """Print the files with the same bytes, and return whether their labels or splits make them a problem."""
    from emofuse.datasets.duplicates import describe_duplicates

    if not groups:
        return False
    is_problem = any(group.has_contradicting_labels or group.is_in_several_splits for group in groups)
    console.print(f"\n{'Problem' if is_problem else 'Note'}: files with the same bytes: {describe_duplicates(groups)}")
    _print_some(console, [str(group) for group in groups])
    return is_problem


def print_look_alikes(
    console: Console, found: NearDuplicates, exact: Sequence[DuplicateGroup], cache: Path | None
) -> bool:
    """Print the pictures that look the same and are not all of the same bytes; return whether they are a problem.

    With a cache, the features of its backbone confirm them or not.
    """
    from emofuse.datasets.duplicates import describe_duplicates

    same_bytes = {group.paths for group in exact}
    groups = [group for group in found.groups if group.paths not in same_bytes]
    is_problem = any(group.has_contradicting_labels or group.is_in_several_splits for group in groups)
    if groups:
        word = "Problem" if is_problem else "Note"
        console.print(f"\n{word}: pictures that look the same: {describe_duplicates(groups)}")
        _print_some(console, [str(group) for group in groups])
        if cache is not None:
            _print_matches(console, groups, cache)
    else:
        console.print("\nPictures that look the same and have other bytes: none")
    if found.unreadable or found.flat:
        console.print(
            f"Not compared: {found.unreadable} pictures that cannot be decoded, {found.flat} almost without contrast"
        )
    return is_problem


def _print_matches(console: Console, groups: Sequence[DuplicateGroup], path: Path) -> None:
    """Print how many groups of pictures the features of a cache confirm, and which they do not."""
    from emofuse.cache.reader import open_cache
    from emofuse.upkeep.look_alikes import backbone_of, match_features

    cache = open_cache(path)
    pairs = list(zip(groups, match_features(cache, groups), strict=True))
    doubtful = [f"{group}; {match}" for group, match in pairs if not match.is_confirmed]
    confirmed = f"{len(pairs) - len(doubtful)} of {len(pairs)}"
    console.print(f"Confirmed by the features of {backbone_of(cache).name!r} in {path}: {confirmed}")
    if len(pairs) == 1 and not doubtful:
        doubtful = [str(pairs[0][1])]
    _print_some(console, doubtful)


def write_found_groups(console: Console, path: Path, groups: Sequence[DuplicateGroup], root: Path) -> None:
    """Write the table of groups of duplicates, and say how a dataset uses it."""
    from emofuse.datasets.duplicates import groups_of_duplicates
    from emofuse.datasets.groups import write_group_file

    group_of = groups_of_duplicates(groups)
    write_group_file(path, group_of)
    if not group_of:
        console.print(f"\nNo duplicates: {path} has no row")
        return
    number = len(set(group_of.values()))
    where = path.absolute()
    named = where.relative_to(root) if where.is_relative_to(root) else where
    console.print(
        f"\n{number} group{'s' * (number != 1)} of {len(group_of)} rows written to {path}. Splits keep them together "
        f"with `group_file: {named}` of the dataset"
    )


def _print_some(console: Console, lines: Sequence[str]) -> None:
    """Print the first lines of a list, indented, and how many more there are."""
    for line in lines[:_LISTED]:
        console.print(f"    {line}")
    if len(lines) > _LISTED:
        console.print(f"    ... and {len(lines) - _LISTED} more")
