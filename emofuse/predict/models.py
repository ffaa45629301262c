"""Find the saved runs that a folder stands for: a run, a pipeline, a sweep, or `emofuse sweep best`.

The choice reads validation scores alone. In the folder of a sweep it is the choice of the search, which `search.csv` of
its report has; elsewhere it is the configuration with the best mean validation score, and the run with the best one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emofuse.errors import ResultsError, StaleCacheError
from emofuse.results import ResultPaths, RunRecord, list_runs, read_record, run_dir, runs_of_folder
from emofuse.specs import CacheSpec, digest, parse_spec
from emofuse.streams import stream_identity, with_located_weights
from emofuse.training.trained import TrainedHead, average_runs, load_head

if TYPE_CHECKING:
    from emofuse.report.configurations import ReportedConfiguration, Results


@dataclass(frozen=True)
class ChosenModel:
    """The run that a folder means, or the runs whose outputs are averaged.

    Attributes:
        folders: the folders of the runs, one unless several are averaged.
        records: their records.
        reason: one sentence on what was chosen and why; empty if the folder is that of the run itself.
    """

    folders: tuple[Path, ...]
    records: tuple[RunRecord, ...]
    reason: str = ""

    @property
    def record(self) -> RunRecord:
        """The record of the first run."""
        return self.records[0]


def find_model(folder: Path, *, ensemble: bool = False) -> ChosenModel:
    """Return the run that a folder means; with `ensemble`, all runs of its configuration (its seeds or folds).

    Args:
        folder: the folder of a run, of a pipeline or sweep, or of runs.
        ensemble: whether all repeats of the configuration are used, whose outputs are averaged.

    Raises:
        ResultsError: there is no run, runs cannot be compared, or a run is damaged.
    """
    if (folder / "run.json").is_file():
        return _of_run(folder, ensemble=ensemble)
    runs = runs_of_folder(folder)
    if not any(runs.glob("*/run.json")):
        read_record(folder)  # raises, and names runs that are deeper
    results = _results(runs)
    item, why = _chosen_configuration(results, folder)
    if ensemble:
        return _ensemble(item, runs, why)
    return _best_run(item, runs, results.select, why)


def load_model(model: ChosenModel, *, device: str = "cpu") -> TrainedHead:
    """Load a chosen run, or the runs of an ensemble as one model whose outputs are averaged.

    Raises:
        ResultsError: weights do not fit their record, or the runs have different features.
        DeviceError: the device does not exist.
    """
    _check_same_features(model.records)
    return average_runs([load_head(folder, device=device) for folder in model.folders])


def cache_spec_of(model: ChosenModel) -> CacheSpec:
    """Return the cache spec of a chosen model, by which its features are extracted again on this machine.

    Raises:
        WeightsError: the weights of a stream are not on this machine.
        StaleCacheError: this machine would extract other features than those that the run was trained on.
    """
    run, record = model.folders[0], model.record
    spec = parse_spec(CacheSpec, dict(record.cache_spec), f"{run}/run.json: cache_spec")
    weights = {name: stream["weights"] for name, stream in record.streams.items()}
    beside = (run, run.absolute().parent, run.absolute().parent.parent)  # a whole pipeline may have moved
    spec = with_located_weights(spec, weights, beside=beside)
    for stream in spec.streams:
        if digest(stream_identity(stream, spec)) != record.streams[stream.name]["digest"]:
            raise StaleCacheError(
                f"{run}: the head was trained on other {stream.name!r} features than this machine would extract "
                "(other weights, face model or emofuse). Restore those, or build the cache and train again"
            )
    return spec


def _of_run(folder: Path, *, ensemble: bool) -> ChosenModel:
    record = read_record(folder)
    if record.evaluation:
        raise ResultsError(
            f"{folder}: this is the evaluation of a model on other data, without the model. Name the folder of its "
            f"run: {record.evaluation['models'][0]}"
        )
    if not ensemble:
        return ChosenModel((folder,), (record,))
    runs = folder.absolute().parent
    results = _results(runs)
    items = [*results.configurations, *results.references]
    item = next(item for item in items if any(run.digest == record.digest for run in item.runs))
    return _ensemble(item, runs, "")


def _results(runs: Path) -> Results:
    from emofuse.report.grouping import group_runs
    from emofuse.report.records import check_records, complete_record

    records = list_runs(runs)
    try:
        check_records(records, runs)
        return group_runs([complete_record(record) for record in records], str(runs))
    except ResultsError as error:
        raise ResultsError(f"{error}. Or name the folder of one run: {runs}/DIGEST") from None


def _chosen_configuration(results: Results, folder: Path) -> tuple[ReportedConfiguration, str]:
    """Return the configuration that a folder means, and the reason."""
    from emofuse.report.formats import format_score
    from emofuse.report.search import SELECTS

    searched = _choice_of_search(ResultPaths(folder).report / "search.csv")
    by_name = {item.name: item for item in results.configurations}
    for place, name in enumerate(searched):
        if name in by_name:
            better = f"; {place} better ranked ones diverged or are gone" if place else ""
            return by_name[name], f"the choice of the search on validation rows{better}"
    item, select = results.ranked[0], results.select
    if len(results.configurations) == 1:
        return item, "the only configuration"
    score = format_score(item.validation(select).mean)
    best = "lowest" if select == "loss" else "highest"
    return item, (
        f"its mean validation {SELECTS[select]} of {score} is the {best} of {len(results.configurations)} "
        "configurations"
    )


def _choice_of_search(path: Path) -> list[str]:
    """Return the names of the configurations that a search chose, the best first, without those that diverged."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(int(row["rank"]), row) for row in csv.DictReader(file)]
        return [
            row["configuration"]
            for _, row in sorted(rows, key=lambda pair: pair[0])
            if row["chosen"] != "no" and not int(row["final_diverged"] or 0)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: damaged ({error!r}); start the same sweep again, which writes it anew") from None


def _best_run(item: ReportedConfiguration, runs: Path, select: str, why: str) -> ChosenModel:
    from emofuse.report.configurations import ReportedConfiguration
    from emofuse.report.formats import format_score
    from emofuse.report.search import SELECTS

    sign = 1 if select == "loss" else -1
    scores = [ReportedConfiguration(item.label, (run,)).validation(select).mean for run in item.runs]
    place = min(range(len(scores)), key=lambda index: (math.isnan(scores[index]), sign * scores[index]))
    run = item.runs[place]
    of_runs = ""
    if len(item.runs) > 1:
        best = "lowest" if select == "loss" else "highest"
        of_runs = (
            f"; of its {len(item.runs)} runs the one with the {best} validation {SELECTS[select]}, "
            f"{format_score(scores[place])} ({_repeat_words(run)})"
        )
    folder = run_dir(runs, run.digest)
    return ChosenModel((folder,), (read_record(folder),), f"Model: {item.label}, {why}{of_runs}: {folder}")


def _ensemble(item: ReportedConfiguration, runs: Path, why: str) -> ChosenModel:
    folders = tuple(run_dir(runs, run.digest) for run in item.runs)
    records = tuple(map(read_record, folders))
    reason = f", {why}" if why else ""
    if len(item.runs) == 1:
        heads = len(records[0].heads)
        itself = f", which is the mean of {heads} heads itself" if heads else ""
        return ChosenModel(
            folders,
            records,
            f"Model: {item.label}{reason}; it has one run{itself}, so there is nothing to average: {folders[0]}",
        )
    repeats = _repeats_words(item.runs)
    return ChosenModel(
        folders, records, f"Model: the mean of the {len(folders)} runs of {item.label} ({repeats}){reason}: {runs}"
    )


def _repeat_words(run: RunRecord) -> str:
    from emofuse.report.configurations import repeat_of, split_words

    split, seed = repeat_of(run)
    return f"seed {seed}" if split is None else f"split {split_words(split)}, seed {seed}"


def _repeats_words(runs: Sequence[RunRecord]) -> str:
    """Return how runs differ: their seeds alone where they have one split."""
    from emofuse.report.configurations import repeat_of

    repeats = [repeat_of(run) for run in runs]
    if len({split for split, _ in repeats}) == 1:
        return f"seeds {', '.join(str(seed) for _, seed in repeats)}"
    return "; ".join(map(_repeat_words, runs))


def _check_same_features(records: Sequence[RunRecord]) -> None:
    """Check that the outputs of runs can be averaged on the same features.

    Raises:
        ResultsError: the runs have other streams, variants of streams, classes or targets.
    """
    first = records[0]
    for record in records[1:]:
        for what, of_first, of_record in (
            ("streams", list(first.spec["features"]["streams"]), list(record.spec["features"]["streams"])),
            ("features", _digests(first), _digests(record)),
            ("variants of streams", first.spec["features"], record.spec["features"]),
            ("classes", list(first.classes), list(record.classes)),
        ):
            if of_first != of_record:
                raise ResultsError(
                    f"--ensemble: runs {first.digest[:16]} and {record.digest[:16]} have different {what} ({of_first} "
                    f"and {of_record}), so that their outputs cannot be averaged. Name the folder of one run"
                )


def _digests(record: RunRecord) -> dict[str, str]:
    return {name: stream["digest"][:16] for name, stream in record.streams.items()}
