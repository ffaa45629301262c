"""`emofuse cache export|import|merge|copy`: exchanges caches with other tools, machines and stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emofuse.cli.options import CachePath, parse_names
from emofuse.cli.progress import show_progress
from emofuse.progress import step
from emofuse.stores import as_path, is_remote


def export(
    path: CachePath,
    to: Annotated[str, typer.Option(help="Format of the file: hdf5, npz or parquet.")],
    streams: Annotated[
        str | None, typer.Option(help="Names of streams, with commas: lbp,resnet50.", show_default="all")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Path of the file.", show_default="features.h5, .npz or .parquet beside the cache"),
    ] = None,
) -> None:
    """Write features, status, ids, labels and splits into one file that other tools read."""
    from emofuse.cache.reader import open_cache
    from emofuse.exchange.export import SUFFIXES, check_format, export_cache

    chosen = check_format(to)
    path = as_path(path)
    name = path.name.removesuffix(".zarr") + SUFFIXES[chosen]
    target = out or (Path(name) if is_remote(path) else path.with_name(name))
    with show_progress(), step("exporting", unit="rows") as on_rows:
        export_cache(open_cache(path), target, chosen, streams=_names(streams), on_rows=on_rows)
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def import_(
    path: Annotated[Path, typer.Argument(help="Path of the cache; `emofuse cache build` makes one.")],
    file: Annotated[Path, typer.Option(help="An HDF5 or npz file.")],
    name: Annotated[str, typer.Option(help="Name of the stream in the cache.")],
    dataset: Annotated[
        str, typer.Option(help="Array of the features in the file, (n, D), or (n, ...) with --dimensions.")
    ] = "features",
    ids: Annotated[str, typer.Option(help="Array of their sample ids in the file, (n,).")] = "sample_ids",
    dimensions: Annotated[
        str | None,
        typer.Option(
            help="Dimensions of a row: time,feature or channel,y,x or time,channel,y,x.",
            show_default="feature, or those of an export",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="Array of the steps of sequences in the file, (n, T): true where there is one.",
            show_default="every step is there, or that of an export",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Type in the cache: float16 or float32.", show_default="float16 stays, others become float32"
        ),
    ] = None,
    ignore_unknown: Annotated[bool, typer.Option(help="Skip ids that the cache does not have.")] = False,
    mark_non_finite: Annotated[
        bool, typer.Option(help="Mark rows with NaN or infinity as failed instead of ending with an error.")
    ] = False,
) -> None:
    """Add features that another tool made as a stream, joined on sample ids: vectors, sequences or maps.

    Rows of the cache that the file lacks have status no_detection: heads mask them.
    """
    from emofuse.exchange.dimensions import parse_dimensions
    from emofuse.exchange.imports import ImportRequest, import_stream

    request = ImportRequest(
        file,
        name,
        dataset,
        ids,
        dtype,
        ignore_unknown,
        mark_non_finite,
        None if dimensions is None else parse_dimensions(dimensions),
        mask,
    )
    with show_progress(), step("importing", unit="rows") as on_rows:
        done = import_stream(as_path(path), request, on_rows=on_rows)
    parts = [f"{done.ok} rows imported"]
    parts += [f"{done.absent} not in the file"] if done.absent else []
    parts += [f"{done.empty} without features there"] if done.empty else []
    parts += [f"{done.non_finite} not finite"] if done.non_finite else []
    parts += [f"{done.ignored} ids ignored"] if done.ignored else []
    typer.echo(f"{path}: {name}: {', '.join(parts)}; content {done.sha256[:12]}")


def merge(
    out: Annotated[Path, typer.Argument(help="Path of the new cache.")],
    caches: Annotated[list[Path], typer.Argument(help="Paths of two or more caches; they stay as they are.")],
    streams: Annotated[
        str | None, typer.Option(help="Names of streams, with commas: lbp,resnet50.", show_default="all")
    ] = None,
) -> None:
    """Merge caches of the same rows with different streams or blocks, or caches of different rows."""
    from emofuse.exchange.merge import merge_caches

    with show_progress(), step("merging", unit="blocks") as on_blocks:
        done = merge_caches(
            as_path(out), [as_path(path) for path in caches], streams=_names(streams), on_blocks=on_blocks
        )
    how = "one after another" if done.by_rows else "the same in all"
    typer.echo(f"{out}: {done.rows} rows, {how}; {', '.join(done.streams)}")
    for stream, lacking in done.lacking.items():
        typer.echo(f"  {stream}: {lacking} blocks are in none of the caches; a build computes them")


def copy(
    source: Annotated[Path, typer.Argument(help="Path of the cache; a folder, or s3://bucket/name.zarr.")],
    target: Annotated[Path, typer.Argument(help="Path of the copy; a folder, or s3://bucket/name.zarr.")],
) -> None:
    """Copy a cache between folders and stores and check every file. An interrupted copy continues when run again."""
    from emofuse.exchange.copy import copy_cache

    with show_progress(), step("copying", unit="files") as on_files:
        done = copy_cache(as_path(source), as_path(target), on_files=on_files)
    there = f", {done.files - done.copied} were there" if done.copied < done.files else ""
    typer.echo(f"{as_path(target)}: {done.copied} files copied{there}; {done.bytes / 1e6:.1f} MB, all read back")


def _names(streams: str | None) -> list[str] | None:
    return None if streams is None else parse_names(streams)
