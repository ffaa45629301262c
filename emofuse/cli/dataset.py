"""`emofuse dataset`: checks a dataset before anything is computed from it, and makes the demo dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emofuse.cli.options import Data, FollowLinks, Split, Target
from emofuse.cli.progress import show_progress
from emofuse.progress import step

if TYPE_CHECKING:
    from rich.console import Console

    from emofuse.datasets.duplicates import DuplicateGroup
    from emofuse.datasets.near_duplicates import NearDuplicates
    from emofuse.datasets.rows import Listing
    from emofuse.datasets.summary import SizeSummary
    from emofuse.specs import DatasetSpec

app = typer.Typer(no_args_is_help=True, help="Check a dataset, or make the demo dataset.")

_LISTED = 20
_PLAIN_WIDTH = 1000  # keeps rows on one line where the output is no terminal


@app.command()
def check(
    target: Target,
    data: Data = None,
    split: Split = None,
    follow_links: FollowLinks = False,
    on_bad_rows: Annotated[
        Literal["raise", "keep"], typer.Option(help="Exit with status 1 if there are problems, or only list them.")
    ] = "raise",
    all_images: Annotated[
        bool, typer.Option("--all", help="Read the header of every image, instead of 2000 chosen at random.")
    ] = False,
    duplicates: Annotated[
        bool, typer.Option(help="Whether files of the same length are compared, byte for byte.")
    ] = True,
    near: Annotated[
        bool,
        typer.Option(
            "--near", help="Look for pictures that are encoded again, scaled, cropped a little, brighter or mirrored."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="With --near: a cache of the dataset, by whose backbone each pair is confirmed or not."),
    ] = None,
    write_groups: Annotated[
        Path | None,
        typer.Option(help="Write a table (sample_id, group) of all duplicates found, for `group_file` of the dataset."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Path of the table relative to the root, for a csv dataset.")
    ] = None,
    path_column: Annotated[str | None, typer.Option(help="Column of paths, for a csv dataset.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of labels, for a csv dataset; '' for a table without labels.")
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of splits, for a csv dataset.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="csv: the column of groups (speaker, subject), which splits never part.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="folder: `parent` (root/label/GROUP/*.jpg), or a regular expression with one group."),
    ] = None,
    group_file: Annotated[
        Path | None,
        typer.Option(help="csv, folder, emoset: a table (sample_id, group) of further groups, relative to the root."),
    ] = None,
    image_dir: Annotated[
        Path | None, typer.Option(help="Folder below the root that paths start from, for a csv dataset.")
    ] = None,
) -> None:
    """Print rows per label and split, columns that could be targets, sizes of images, and every problem.

    Exit with status 1 if there are problems.

    Problems are bad rows, images with an unreadable header, splits without rows that a pipeline needs, and one image
    under several names whose labels contradict each other or that is in several splits. With `--near`, pictures that
    look the same count as one image.
    """
    from rich.console import Console

    from emofuse.datasets.duplicates import find_duplicates
    from emofuse.datasets.near_duplicates import find_near_duplicates
    from emofuse.datasets.summary import measure_images

    if cache is not None and not near:
        raise typer.BadParameter("confirms what --near finds; give both", param_hint="--cache")
    options = {
        "root": data,
        "split": {"kind": split} if split else None,
        "follow_links": follow_links or None,
        "table": table,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "group_column": group_column,
        "group": group,
        "group_file": group_file,
        "image_dir": image_dir,
    }
    spec = dataset_spec(target, {name: value for name, value in options.items() if value is not None})
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with show_progress(), step("reading the dataset"):
        listing = spec.look()
    _print_counts(console, listing, spec.kind, target)
    notes = _print_target_columns(console, listing)
    with show_progress():
        sizes = measure_images(listing, limit=None if all_images else 2000)
        groups = find_duplicates(listing.manifest) if duplicates or near else []
        look_alikes = find_near_duplicates(listing.manifest) if near else None
    _print_sizes(console, sizes)
    is_problem = look_alikes is not None and _print_look_alikes(console, look_alikes, groups, cache)
    notes += bool(look_alikes and look_alikes.groups)
    lack = _split_problem(target, listing)
    has_problems = _print_problems(console, listing, sizes, groups, lack, notes=notes, is_problem=is_problem)
    if write_groups is not None:
        found = [*groups, *(look_alikes.groups if look_alikes else ())]
        _write_groups(console, write_groups, found, listing.manifest.root)
    if has_problems and on_bad_rows == "raise":
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the new dataset.")],
    images: Annotated[int, typer.Option(min=24, help="Number of images.")] = 640,
    seed: Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same images.")] = 0,
) -> None:
    """Generate the demo dataset, with faces and scenes drawn from known cues, in the layout of EmoSet."""
    from emofuse.datasets.demo import generate_demo

    with show_progress():
        generate_demo(out, images=images, seed=seed)
    typer.echo(f"{images} images (seed {seed}) in {out}. Look at them: emofuse dataset check demo --data {out}")


def dataset_spec(target: str, options: dict[str, Any]) -> DatasetSpec:
    """Return the dataset of a kind or of a pipeline, with the options of the command line."""
    from emofuse.errors import SpecError, did_you_mean
    from emofuse.specs import bundled_specs, parse_spec, read_pipeline_spec
    from emofuse.specs.datasets import DATASETS

    models = DATASETS.names()
    pipelines = bundled_specs("pipelines")
    if target in models:
        data: dict[str, Any] = {"kind": target}
    elif Path(target).is_file() or target in pipelines:
        data = read_pipeline_spec(target).dataset.model_dump()
    else:
        known = f"kinds: {', '.join(models)}; pipelines: {', '.join(pipelines)}"
        hint = did_you_mean(target, [*models, *pipelines])
        if Path(target).is_dir():
            hint = f" but a folder, so say what kind it is: emofuse dataset check folder --data {target}"
        raise SpecError(target, [f"neither a kind of dataset nor a pipeline{hint} ({known})"])
    model = DATASETS.find(data["kind"])
    assert model is not None  # noqa: S101 - the kind was known above
    return parse_spec(model, {**data, **options}, f"{target} with the options given")


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


def _print_counts(console: Console, listing: Listing, kind: str, target: str) -> None:
    from emofuse.datasets.groups import describe_groups
    from emofuse.datasets.split_needs import SplitNeed, describe_lack
    from emofuse.datasets.summary import count_rows
    from emofuse.specs import OfficialSplit

    manifest = listing.manifest
    table = count_rows(manifest)
    labels = f"{len(manifest.classes) or 'no'} labels"
    console.print(f"{kind} dataset at {manifest.root}: {len(manifest)} rows, {labels}\n")
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


def _print_target_columns(console: Console, listing: Listing) -> int:
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


def _print_sizes(console: Console, sizes: SizeSummary) -> None:
    if not sizes.candidates:  # a dataset of clips or sounds
        return
    part, advice = f"all {sizes.candidates}", ""
    if sizes.looked_at < sizes.candidates:
        part, advice = f"{sizes.looked_at} of {sizes.candidates}", ", chosen at random (--all reads every one)"
    console.print(f"\nSizes in pixels, from the headers of {part} images{advice}\n")
    if sizes.looked_at > len(sizes.unreadable):
        rows = (("width", *sizes.width), ("height", *sizes.height))
        _print_table(console, ("", "min", "median", "max"), rows)


def _split_problem(target: str, listing: Listing) -> str | None:
    """Return what the runs of a pipeline lack in the splits of the dataset."""
    from emofuse.datasets.split_needs import describe_lack, needs_of_pipeline
    from emofuse.specs import read_pipeline_spec
    from emofuse.specs.datasets import DATASETS

    if target in DATASETS.names():  # as `dataset_spec` takes it
        return None
    return describe_lack(listing.manifest, needs_of_pipeline(read_pipeline_spec(target)))


def _print_problems(
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


def _print_look_alikes(
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


def _write_groups(console: Console, path: Path, groups: Sequence[DuplicateGroup], root: Path) -> None:
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
