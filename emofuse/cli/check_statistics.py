"""`emofuse check-statistics`: how often do the tests of a report call equals different?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emofuse.cli.options import RUNS, DeviceOfHeads
from emofuse.cli.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emofuse.report.configurations import Results
    from emofuse.specs import PipelineSpec, RunSpec
    from emofuse.statistics_check import FalseAlarms

RETRAINED = "check-statistics"
"""The folder of the runs that this command trains, within that of a pipeline or of runs."""


def check_statistics(
    target: Annotated[
        str, typer.Argument(metavar="RUNS|PIPELINE", help="Folder of saved runs, or a pipeline: its name or YAML file.")
    ],
    configuration: Annotated[
        str | None,
        typer.Option(help="Name of one configuration.", show_default="all, or the baseline to train"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Path of the feature cache to train on.", show_default="that of the pipeline"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=4, help="Number of training seeds, if it must train.")] = 8,
    device: DeviceOfHeads = "auto",
) -> None:
    """Test pairs of runs that differ in their training seeds alone, and count how often p is below 5 % (an A/A check).

    Saved repeats are used if there are at least four on one split; otherwise one configuration is trained with more
    seeds. A test that covers the randomness of training is wrong in about 5 % of the pairs.
    """
    from emofuse.results import ResultPaths, runs_of_folder
    from emofuse.statistics_check import check_statistics as check
    from emofuse.statistics_check import has_pairs

    runs = runs_of_folder(Path(target)) if Path(target).is_dir() else ResultPaths(RUNS / _pipeline(target).name).runs
    with show_progress():
        results = _results(runs, configuration) if runs.is_dir() else None
        if results is None or not any(map(has_pairs, results.configurations)):
            runs, results = _retrained(target, runs, results, configuration, cache, seeds, device)
        typer.echo(_text(results, check(results, runs)))


def _pipeline(target: str) -> PipelineSpec:
    from emofuse.specs import read_pipeline_spec

    return read_pipeline_spec(target)


def _results(runs: Path, configuration: str | None) -> Results:
    from emofuse.report.grouping import find_configuration, group_runs
    from emofuse.report.records import read_records

    results = group_runs(read_records(runs), str(runs))
    if configuration is None:
        return results
    item = find_configuration(results.configurations, configuration, str(runs), "configuration")
    return type(results)((item,), item)


def _retrained(
    target: str,
    runs: Path,
    results: Results | None,
    configuration: str | None,
    cache: Path | None,
    seeds: int,
    device: str,
) -> tuple[Path, Results]:
    """Train one configuration with several seeds; return the folder of its runs and the runs."""
    from emofuse.cache.reader import open_cache
    from emofuse.errors import CacheError, ResultsError
    from emofuse.report.grouping import group_runs
    from emofuse.report.records import read_records
    from emofuse.results import ResultPaths, folder_of_runs
    from emofuse.statistics_check import LEAST_REPEATS, retrain

    if Path(target).is_dir():
        if cache is None:
            raise ResultsError(
                f"{runs}: no configuration has {LEAST_REPEATS} runs on one split that differ in their training seeds "
                "alone. Name the cache to train more: --cache PATH"
            )
        specs = _specs_of_runs(results) if results else []
    else:
        pipeline = _pipeline(target)
        specs = _specs_of_pipeline(target, configuration)
        cache = cache or ResultPaths(RUNS / pipeline.name).cache
        if not cache.exists():
            raise CacheError(f"{cache}: there is no cache to train on; build it first: emofuse run {target}")
    folder = folder_of_runs(runs) / RETRAINED
    say = partial(typer.echo, err=True)
    records = retrain(open_cache(cache), specs, seeds, folder, device=device, say=say)
    only = {record.digest for record in records}
    return folder, group_runs(read_records(folder, only), str(folder))


def _specs_of_runs(results: Results) -> list[RunSpec]:
    """Return the spec of the baseline, once for each split that it has runs on."""
    from emofuse.report.configurations import repeat_of
    from emofuse.specs import RunSpec

    by_split = {repeat_of(run)[0]: run for run in results.baseline.runs}
    return [RunSpec.model_validate(run.spec) for run in by_split.values()]


def _specs_of_pipeline(target: str, configuration: str | None) -> list[RunSpec]:
    """Return one run of a pipeline, once for each of its splits."""
    from emofuse.errors import SpecError, did_you_mean
    from emofuse.pipeline import expand_runs

    pipeline = _pipeline(target)
    name = configuration or pipeline.baseline or pipeline.runs[0].name
    names = [run.name for run in pipeline.runs]
    if name not in names:
        raise SpecError(target, [f"configuration: {name!r} is not the name of a run{did_you_mean(name, names)}"])
    one_seed = pipeline.repeat.model_copy(update={"seeds": pipeline.repeat.seeds[:1]})
    return [run for run in expand_runs(pipeline.model_copy(update={"repeat": one_seed})) if run.name == name]


def _text(results: Results, found: Sequence[FalseAlarms]) -> str:
    names = ", ".join(item.label for item in results.configurations)
    rows = [("test", "each side of a pair", "pairs", "called different", "rate", "95 % interval")]
    rows += [
        (
            each.test,
            each.of,
            str(each.pairs),
            str(each.alarms),
            f"{each.rate:.3f}",
            f"[{each.interval.low:.3f}, {each.interval.high:.3f}]",
        )
        for each in found
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    off = [each for each in found if each.interval.low > 0.05]
    verdict = (
        f"More often wrong than 5 %: {'; '.join(f'{each.test} ({each.of})' for each in off)}. Differences of this size "
        "are those of retraining: give every configuration several seeds."
        if off
        else "No test is shown to be wrong more often than in 5 % of the pairs."
    )
    head = (
        f"Pairs of runs of one configuration that differ in their training seeds alone ({names}). A test that keeps "
        "its level calls 5 % of them different (p < 0.05). Intervals are binomial, as of the pairs in which no run "
        "occurs twice."
    )
    return "\n".join([head, "", *lines, "", verdict])
