"""`emofuse cache export|import|merge|copy`: what goes from one cache to another tool, machine or store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def export(
    path: Annotated[Path, typer.Argument(help="Path of the cache.")],
    to: Annotated[str, typer.Option(help="hdf5, npz or parquet.")],
    streams: Annotated[str | None, typer.Option(help="With commas: lbp,resnet50.", show_default="all")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file.", show_default="beside the cache, features.h5, .npz or .parquet")
    ] = None,
) -> None:
    """Write features, status, ids, labels and splits into one file that other tools read."""
    from emofuse.cache.export import SUFFIXES, check_format, export_cache
    from emofuse.cache.reader import open_cache

    chosen = check_format(to)
    names = None if streams is None else [name.strip() for name in streams.split(",") if name.strip()]
    target = out or path.with_name(path.name.removesuffix(".zarr") + SUFFIXES[chosen])
    with _progress("exporting") as on_rows:
        export_cache(open_cache(path), target, chosen, streams=names, on_rows=on_rows)
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere. Gives a function of what is done and what there is in all."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    with Progress(console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
