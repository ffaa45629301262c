"""`emofuse cache`: builds a feature cache, prints it, drops a stream. Its upkeep is in `cache_upkeep`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emofuse.cli import cache_exchange, cache_upkeep
from emofuse.cli.commands import Commands
from emofuse.cli.options import (
    RUNS,
    CachePath,
    Data,
    Device,
    FollowLinks,
    OnBadRows,
    Runtime,
    Scheduler,
    Split,
    Target,
    Workers,
)
from emofuse.cli.progress import show_progress
from emofuse.stores import as_path
from emofuse.wording import count_of

if TYPE_CHECKING:
    from emofuse.cache.cached_stream import CachedStream
    from emofuse.cache.reader import Cache
    from emofuse.datasets.manifest import Manifest
    from emofuse.extraction import BuildSummary
    from emofuse.specs import CacheSpec, DatasetSpec, StreamSpec

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Build, inspect, check, repair, merge, copy, export and import feature caches.",
)

_PROBLEMS_SHOWN = 10
_PLAIN_WIDTH = 200  # keeps rows on one line where the output is no terminal


@app.command()
def build(
    target: Target,
    data: Data = None,
    spec: Annotated[
        str | None,
        typer.Option(
            help="The streams to cache: the name or YAML file of a cache spec.", show_default="the pipeline's"
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Path of the cache.", show_default="features.zarr, or the cache of `emofuse run` for a pipeline"
        ),
    ] = None,
    split: Split = None,
    follow_links: FollowLinks = False,
    on_bad_rows: OnBadRows = "raise",
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    block_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Time limit of a block in seconds; after it, samples are tried one by one and those that hang fail.",
            show_default="60, plus 4 for each picture and 16 for each sound that a network hears",
        ),
    ] = None,
    worker_memory_gb: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Memory limit of an extraction process; beyond it, samples are tried one by one.",
            show_default="no limit",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print blocks, time and size, estimated from a few samples; write nothing."),
    ] = False,
) -> None:
    """Extract every stream of a dataset into a cache. An interrupted build continues with the same command.

    A stream that the cache lacks is added, and the others stay as they are. Labels and splits may change later at no
    cost.
    """
    dataset, cache_spec, path = _resolve(target, data, split, spec, cache, follow_links=follow_links)
    path = as_path(path)

    from emofuse.cache.reader import open_cache
    from emofuse.datasets import read_dataset
    from emofuse.extraction import BuildOptions, build_cache, estimate_build
    from emofuse.extraction.ahead import template_ahead
    from emofuse.extraction.face_shares import describe_face_shares

    memory_bytes = None if worker_memory_gb is None else round(worker_memory_gb * 1e9)
    options = BuildOptions(
        scheduler,
        workers,
        device,
        block_timeout,
        memory_bytes,
        keep_gone=on_bad_rows == "keep",
        runtime=runtime,
    )
    _warn_of_random_weights(cache_spec.streams)
    if dry_run and dataset.is_to_be_generated:
        from emofuse.specs.nouns import noun_of

        typer.echo(
            f"{dataset.root}: its {noun_of(cache_spec).many} are not generated yet; they must be there for an estimate"
        )
        return
    with nullcontext() if dry_run else template_ahead(path, cache_spec, options):
        with show_progress():
            manifest = read_dataset(dataset, on_bad_rows=on_bad_rows)
        for note in [*manifest.info["notes"], *_split_notes(manifest)]:
            typer.echo(f"dataset: {note}")
        if dry_run:
            with show_progress():
                estimate = estimate_build(path, manifest, cache_spec, options)
            for line in estimate.describe():
                typer.echo(f"{path}: {line}")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with show_progress() as progress:
            summary = build_cache(path, manifest, cache_spec, options, progress)
    for change in summary.changes:
        typer.echo(f"since the last build: {change}")
    typer.echo(f"{path}: {summary.describe()}")
    for note in summary.notes:
        typer.secho(f"{path}: {note}", fg="yellow", err=True)
    for line in describe_face_shares(open_cache(path), cache_spec):
        typer.echo(f"{path}: {line}")
    if summary.problems:
        _print_problems(summary, open_cache(path).manifest)  # its rows are those of the cache, not of the listing


def _split_notes(manifest: Manifest) -> list[str]:
    """Return why runs cannot train on the splits, so that users know it before hours of extraction."""
    from emofuse.datasets.split_needs import SplitNeed, describe_lack
    from emofuse.specs import OfficialSplit

    if not manifest.classes:
        return ["the dataset has no labels, so a run needs the columns of its `target`"]
    lack = describe_lack(manifest, [SplitNeed(OfficialSplit())])
    return [f"runs cannot be trained on these splits as they are: {lack}"] if lack else []


@app.command()
def info(
    path: CachePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print rows, labels and splits, and the size, identity, weights and row statuses of every stream."""
    from emofuse.cache.reader import open_cache

    cache = open_cache(path)
    if as_json:
        typer.echo(json.dumps(describe_cache(cache), indent=1, ensure_ascii=False))
    else:
        _print_cache(describe_cache(cache))


@app.command()
def drop(
    path: CachePath,
    stream: Annotated[str, typer.Argument(help="Name of the stream.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete one stream of a cache. The other streams stay as they are."""
    from emofuse.cache.structure import check_stream_exists, drop_stream

    path = as_path(path)
    check_stream_exists(path, stream)
    if not yes:
        typer.confirm(f"Delete {stream} of {path}? Only another build brings it back.", abort=True)
    drop_stream(path, stream)
    typer.echo(f"{path}: {stream} dropped")


app.command()(cache_upkeep.problems)
app.command()(cache_upkeep.verify)
app.command()(cache_upkeep.repair)
app.command()(cache_upkeep.retry)
app.command("export")(cache_exchange.export)
app.command("import")(cache_exchange.import_)
app.command()(cache_exchange.merge)
app.command()(cache_exchange.copy)


def describe_cache(cache: Cache) -> dict[str, Any]:
    """Return the output of `emofuse cache info` as plain JSON."""
    import numpy as np

    from emofuse.datasets.splits import SPLITS

    splits, counts = np.unique(cache.splits, return_counts=True)
    rows = {str(split) or "none": int(count) for split, count in zip(splits, counts, strict=True)}
    order = [split for split in SPLITS if split in rows] + [split for split in rows if split not in SPLITS]
    return {
        "path": str(cache.path),
        "dataset": cache.manifest.info.get("name"),
        "rows": len(cache),
        "blocks": cache.layout.blocks,
        "block_rows": cache.layout.block_rows,
        "created": cache.layout.created,
        "classes": list(cache.classes),
        "splits": {split: rows[split] for split in order},
        "streams": {name: _describe_stream(stream, cache.layout.blocks) for name, stream in cache.streams.items()},
    }


def _describe_stream(stream: CachedStream, blocks: int) -> dict[str, Any]:
    return {
        "kind": stream.kind,
        "dim": stream.dim,
        "shape": list(stream.shape),
        "dimensions": list(stream.dimensions),
        "views": stream.views,
        "dtype": str(stream.dtype),
        "digest": stream.digest,
        "weights": stream.weights,
        "rows": stream.counts(),
        "blocks_done": blocks - len(stream.lacking_blocks()),
        "bytes": stream.nbytes(),
        "runtimes": list(stream.layout.runtimes),
    }


def _resolve(
    target: str,
    data: Path | None,
    split: str | None,
    spec: str | None,
    cache: Path | None,
    *,
    follow_links: bool = False,
) -> tuple[DatasetSpec, CacheSpec, Path]:
    """Return the dataset, the cache spec and the path of the cache of a command line."""
    from emofuse.cli.dataset import dataset_spec
    from emofuse.specs import bundled_specs, read_cache_spec, read_pipeline_spec
    from emofuse.specs.datasets import DATASETS

    options = {"root": data, "split": {"kind": split} if split else None, "follow_links": follow_links or None}
    dataset = dataset_spec(target, {name: value for name, value in options.items() if value is not None})
    if target in DATASETS.names():
        if spec is None:
            names = ", ".join(bundled_specs("cache_specs"))
            raise typer.BadParameter(f"say what to cache: one of {names}, or a YAML file", param_hint="--spec")
        return dataset, read_cache_spec(spec), cache or Path("features.zarr")

    from emofuse.results import ResultPaths

    pipeline = read_pipeline_spec(target)
    paths = ResultPaths(RUNS / pipeline.name)
    if dataset.generated_rows is not None and dataset.root is None:
        dataset = dataset.model_copy(update={"root": paths.generated_dataset})
    return dataset, pipeline.cache if spec is None else read_cache_spec(spec), cache or paths.cache


def _warn_of_random_weights(streams: Iterable[StreamSpec]) -> None:
    from emofuse.specs import is_random
    from emofuse.streams import stream_weights

    for stream in streams:
        if is_random(stream_weights(stream)):
            typer.secho(f"{stream.name}: RANDOM WEIGHTS, for demonstrations and tests only", fg="yellow", err=True)


def _print_problems(summary: BuildSummary, manifest: Manifest) -> None:
    shown = summary.problems[:_PROBLEMS_SHOWN]
    ids = manifest.table["sample_id"]
    for problem in shown:
        where = f" ({problem.stream})" if problem.stream else ""
        typer.echo(f"  row {problem.row}, {ids[problem.row]}{where}: {problem.reason}")
    if summary.problem_count > len(shown):
        typer.echo(f"  and {summary.problem_count - len(shown)} more")


def _print_cache(description: Mapping[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    blocks = count_of(description["blocks"], "block")
    splits = ", ".join(f"{count} {split}" for split, count in description["splits"].items())
    typer.echo(
        f"{description['path']}: {description['rows']} rows ({splits}) in {blocks} of {description['block_rows']}"
    )
    labels = description["classes"]
    typer.echo(f"{len(labels)} labels: {', '.join(labels)}\n" if labels else "no labels\n")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    counts = [stream["rows"] for stream in description["streams"].values()]
    statuses = [status for status in (counts[0] if counts else ()) if any(of_stream[status] for of_stream in counts)]
    runtime = ("runtime",) if any(stream["runtimes"] for stream in description["streams"].values()) else ()
    for name in ("stream", "values", "blocks", *statuses, "weights", *runtime, "MB", "digest"):
        table.add_column(name, justify="left" if name in {"stream", "weights", "runtime", "digest"} else "right")
    for name, stream in description["streams"].items():
        table.add_row(
            name,
            _shape_text(stream),
            Text(f"{stream['blocks_done']}/{description['blocks']}", "yellow" if stream["rows"]["pending"] else ""),
            *(str(stream["rows"][status]) for status in statuses),
            _weights_text(stream["weights"]),
            *((" and ".join(stream["runtimes"]),) if runtime else ()),
            f"{stream['bytes'] / 1e6:.2f}",
            stream["digest"][:8],
        )
    console.print(table)


def _shape_text(stream: Mapping[str, Any]) -> str:
    """Return `2048 float16`, or `2 x 16 x 512 float16 (view, time, feature)` for more axes."""
    axes = list(zip(stream["dimensions"], stream["shape"], strict=True))
    if len(axes) == 1:
        views = f"{stream['views']} x " if stream["views"] > 1 else ""
        return f"{views}{stream['dim']} {stream['dtype']}"
    if stream["views"] > 1:
        axes.insert(0, ("view", stream["views"]))
    sizes, names = " x ".join(str(size) for _, size in axes), ", ".join(name for name, _ in axes)
    return f"{sizes} {stream['dtype']} ({names})"


def _weights_text(weights: Mapping[str, Any] | None) -> Any:
    from rich.text import Text

    from emofuse.specs import is_random

    if weights is None:
        return ""
    if is_random(weights):
        return Text(f"RANDOM, seed {weights['seed']}", style="yellow")
    return str(weights["name"] or weights["sha256"][:12])
