"""`emofuse evaluate`: scores a trained model on another dataset."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emofuse.cli.options import (
    RUNS,
    Ensemble,
    FollowLinks,
    Images,
    Model,
    OnBadRows,
    Plugins,
    Runtime,
    Scheduler,
    Workers,
    load_given_plugins,
)
from emofuse.cli.progress import show_progress

if TYPE_CHECKING:
    from emofuse.specs import DatasetSpec


def evaluate(
    run: Model,
    data: Annotated[
        Path | None, typer.Option(help="Root of the other dataset.", show_default="the dataset of --cache")
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="What the data is: a kind of dataset (folder, csv, emoset), or a YAML file of `kind` and options."
        ),
    ] = "folder",
    map_name: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="MAP",
            help="Label map between the data and the model: a name (mikels8_to_ekman6) or a YAML file.",
            show_default="labels and classes have the same names",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Cache of the model's streams on the data; without --data it must exist.", show_default="OUT"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of all results.", show_default="emofuse-runs/evaluate/MODEL-on-DATA"),
    ] = None,
    rows: Annotated[
        Literal["auto", "test", "all"],
        typer.Option(help="Rows that are scored; auto: the test rows of the data, or all if there are none."),
    ] = "auto",
    ensemble: Ensemble = False,
    follow_links: FollowLinks = False,
    on_bad_rows: OnBadRows = "raise",
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device of backbones and head.")] = "auto",
    runtime: Runtime = "auto",
    images: Images = True,
    plugin: Plugins = None,
) -> None:
    """Score a trained model on another dataset: its streams, a label map, scores with intervals, and a report.

    Scores are over the classes that data and model share. Rows of other labels are left out and counted, and the report
    says so. An interrupted extraction continues with the same command.
    """
    load_given_plugins(plugin)
    if data is None and cache is None:
        raise typer.BadParameter("give the other dataset, or --cache with a cache of it", param_hint="--data")

    from emofuse.specs import read_label_map

    label_map = None if map_name is None else read_label_map(map_name)
    spec = None if data is None else dataset_of_test(dataset, data, follow_links=follow_links)

    from emofuse.evaluation import EvaluationOptions
    from emofuse.evaluation import evaluate as run_evaluation
    from emofuse.extraction import BuildOptions
    from emofuse.machine.devices import resolve_device
    from emofuse.predict import find_model
    from emofuse.results import check_results_folder

    if out is None:
        of_data = (data or cache or Path()).absolute()
        out = RUNS / "evaluate" / f"{_as_name(find_model(run).record.name)}-on-{_as_name(of_data.stem)}"
    check_results_folder(out)
    options = EvaluationOptions(
        run=run,
        out=out,
        dataset=spec,
        cache=cache,
        label_map=label_map,
        ensemble=ensemble,
        rows=rows,
        on_bad_rows=on_bad_rows,
        build=BuildOptions(scheduler=scheduler, workers=workers, device=device, runtime=runtime),
        device=resolve_device(device),
        images=images,
        command=shlex.join(["emofuse", *sys.argv[1:]]) if sys.argv[1:2] == ["evaluate"] else "",
    )
    with show_progress() as progress:
        done = run_evaluation(options, say=typer.echo, progress=progress)
    typer.echo(done.report.summary_markdown.read_text(encoding="utf-8"))
    for path in (done.report.page, done.predictions, done.folder):
        typer.echo(path)


def dataset_of_test(dataset: str, data: Path, *, follow_links: bool = False) -> DatasetSpec:
    """Return the dataset of a kind, or of a YAML file with its options, below a root.

    Raises:
        SpecError: the kind is unknown, or the file is missing or has faults.
    """
    from emofuse.errors import SpecError, did_you_mean
    from emofuse.specs import parse_spec
    from emofuse.specs.datasets import DATASETS
    from emofuse.specs.files import read_yaml

    kinds = DATASETS.names()
    options: dict[str, Any] = {"kind": dataset}
    if dataset not in kinds:
        if not Path(dataset).is_file():
            hint = did_you_mean(dataset, kinds)
            raise SpecError(
                "--dataset", [f"{dataset!r} is neither a kind of dataset nor a file{hint} (kinds: {', '.join(kinds)})"]
            )
        options = read_yaml(Path(dataset))
        options = options["dataset"] if isinstance(options.get("dataset"), dict) else options
    kind = options.get("kind")
    model = DATASETS.find(kind) if isinstance(kind, str) else None
    if model is None:
        hint = did_you_mean(str(kind), kinds)
        raise SpecError(dataset, [f"kind: {kind!r} is no kind of dataset{hint} (kinds: {', '.join(kinds)})"])
    given = {"root": data, **({"follow_links": True} if follow_links else {})}
    return parse_spec(model, {**options, **given}, f"--dataset {dataset}")


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-") or "model"
