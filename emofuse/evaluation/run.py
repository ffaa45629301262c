"""One test of a model on another dataset, from the features to the report.

All results are in one folder::

    OUT/
        features.zarr       the model's streams on the other data, unless a cache is given
        runs/DIGEST/        record and predictions of the scored rows, as of a run, without weights
        predictions.csv     every row of the data: its label, what it counts as, the answer and all probabilities
        report/             tables, figures and the page
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import Cache, open_cache
from emofuse.datasets import OnBadRows
from emofuse.errors import SpecError
from emofuse.evaluation.features import check_streams, outputs_of_rows
from emofuse.evaluation.rows import RowsTested, find_rows, read_other, share
from emofuse.evaluation.score import score
from emofuse.evaluation.table import write_predictions
from emofuse.extraction import BuildOptions
from emofuse.extraction.opened import build_and_open
from emofuse.predict.models import ChosenModel, cache_spec_of, find_model, load_model
from emofuse.progress import Progress, followed, step
from emofuse.report import ReportFiles, write_report
from emofuse.results import ResultPaths, RunRecord, write_run
from emofuse.specs import DatasetSpec, LabelMapSpec


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of a test: the model, the other dataset, and the folder of the results.

    Attributes:
        run: the folder of a run, of a pipeline or of a sweep.
        out: the folder of all results (see `ResultPaths`).
        dataset: the other dataset; None where `cache` is one that exists.
        cache: the cache of the model's streams on the other data; by default one below `out`.
        label_map: the map between the labels of the data and the classes of the model.
        ensemble: whether all runs of the configuration are averaged.
        rows: `test` for the test rows of the data, `all` for every row, `auto` for test rows if there are any.
        on_bad_rows: `raise` lists bad rows in one error, `keep` keeps them as marked rows.
        build: the options of building the cache.
        device: the device of the head.
        images: whether the page of the report has thumbnails of samples.
        command: the command of the test, for readers who want to repeat it.
    """

    run: Path
    out: Path
    dataset: DatasetSpec | None = None
    cache: Path | None = None
    label_map: LabelMapSpec | None = None
    ensemble: bool = False
    rows: RowsTested = "auto"
    on_bad_rows: OnBadRows = "raise"
    build: BuildOptions = field(default_factory=BuildOptions)
    device: str = "cpu"
    images: bool = True
    command: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The results of a test.

    Attributes:
        record: the record of the test.
        folder: the folder of the record and the predictions.
        predictions: the table of all rows.
        report: the files of the report.
    """

    record: RunRecord
    folder: Path
    predictions: Path
    report: ReportFiles


def evaluate(
    options: EvaluationOptions, *, say: Callable[[str], None] = lambda _: None, progress: Progress | None = None
) -> Evaluation:
    """Score a trained model on another dataset; a second call extracts only what is missing.

    Args:
        options: the options of the test.
        say: receives a line for each step.
        progress: receives the progress.

    Raises:
        EmofuseError: the model, the data or the map is missing or faulty, or they do not fit each other.
    """
    model = find_model(options.run, ensemble=options.ensemble)
    if model.reason:
        say(model.reason)
    paths = ResultPaths(options.out)
    with followed(progress):
        cache = _features(model, options, paths, say)
        tested = find_rows(model, cache, options.label_map, options.rows)
        for line in tested.described():
            say(line)
        with step("predicting", 1, "models") as advance:
            outputs = outputs_of_rows(load_model(model, device=options.device), cache)
            advance(1, 1)
        record, predictions = score(model, cache, tested, outputs)
        folder = write_run(paths.runs, record, predictions, None)
        write_predictions(paths.predictions, cache, tested, outputs)
        with step("writing the report"):
            report = write_report(
                paths.runs,
                paths.report,
                title=f"{record.name} on {record.evaluation['tested_on']}",
                only={record.digest},
                command=options.command,
                images=options.images,
                manifest=manifest_path(cache.path),
                say=say,
            )
    return Evaluation(record, folder, paths.predictions, report)


def _features(model: ChosenModel, options: EvaluationOptions, paths: ResultPaths, say: Callable[[str], None]) -> Cache:
    """Return the cache with the model's streams on the other data; what is missing is extracted."""
    if options.dataset is None:
        if options.cache is None:
            raise SpecError("evaluate", ["give the other data with --data, or a cache of it with --cache"])
        cache = open_cache(options.cache)
        check_streams(cache, model)
        return cache
    manifest = read_other(options.dataset, on_bad_rows=options.on_bad_rows)
    say(f"dataset: {manifest.describe()}")
    share(model, manifest.classes, options.label_map)  # labels that do not fit are an error before hours of work
    build = replace(options.build, keep_gone=options.on_bad_rows == "keep")
    cache, _ = build_and_open(options.cache or paths.cache, manifest, cache_spec_of(model), build, say=say)
    check_streams(cache, model)
    return cache
