"""`emofuse dataset`: checks a dataset before anything is computed from it, and makes the demo dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emofuse.cli.commands import Commands
from emofuse.cli.dataset_text import (
    print_counts,
    print_look_alikes,
    print_problems,
    print_sizes,
    print_target_columns,
    write_found_groups,
)
from emofuse.cli.options import Data, FollowLinks, Split, Target
from emofuse.cli.progress import show_progress
from emofuse.progress import step

if TYPE_CHECKING:
    from emofuse.datasets.rows import Listing
    from emofuse.specs import DatasetSpec

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Check a dataset, or make the demo dataset.")


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
        Path | None, typer.Option(help="csv, fer2013, ferplus: path of the table relative to the root.")
    ] = None,
    path_column: Annotated[str | None, typer.Option(help="Column of paths, for a csv dataset.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="csv, parquet: column of labels; '' for a dataset without labels.")
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="csv, parquet: column of splits.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="csv, parquet: the column of groups (speaker, subject), which splits never part.")
    ] = None,
    group_pattern: Annotated[
        str | None, typer.Option(help="csv: a regular expression with one group, which is searched for in paths.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="folder: `parent` (root/label/GROUP/*.jpg), or a regular expression with one group."),
    ] = None,
    group_file: Annotated[
        Path | None,
        typer.Option(help="A table (sample_id, group) of further groups, relative to the root."),
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="parquet: column of images.")] = None,
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
        "group_pattern": group_pattern,
        "group": group,
        "group_file": group_file,
        "image_column": image_column,
        "image_dir": image_dir,
    }
    spec = dataset_spec(target, {name: value for name, value in options.items() if value is not None})
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with show_progress(), step("reading the dataset"):
        listing = spec.look()
    print_counts(console, listing, spec.kind, target)
    notes = print_target_columns(console, listing)
    with show_progress():
        sizes = measure_images(listing, limit=None if all_images else 2000)
        groups = find_duplicates(listing.manifest) if duplicates or near else []
        look_alikes = find_near_duplicates(listing.manifest) if near else None
    print_sizes(console, sizes)
    is_problem = look_alikes is not None and print_look_alikes(console, look_alikes, groups, cache)
    notes += bool(look_alikes and look_alikes.groups)
    lack = _split_problem(target, listing)
    has_problems = print_problems(console, listing, sizes, groups, lack, notes=notes, is_problem=is_problem)
    if write_groups is not None:
        found = [*groups, *(look_alikes.groups if look_alikes else ())]
        write_found_groups(console, write_groups, found, listing.manifest.root)
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


def _split_problem(target: str, listing: Listing) -> str | None:
    """Return what the runs of a pipeline lack in the splits of the dataset."""
    from emofuse.datasets.split_needs import describe_lack, needs_of_pipeline
    from emofuse.specs import read_pipeline_spec
    from emofuse.specs.datasets import DATASETS

    if target in DATASETS.names():  # as `dataset_spec` takes it
        return None
    return describe_lack(listing.manifest, needs_of_pipeline(read_pipeline_spec(target)))
