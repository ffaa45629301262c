"""Computes the metrics that were asked for by name from the saved predictions of the test rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import PluginError, ResultsError, SpecError, did_you_mean
from emofuse.metrics import METRICS, Metric
from emofuse.report.answers import seed_of_repeats, units_of_groups
from emofuse.report.configurations import ReportedConfiguration, Results, Spread
from emofuse.report.formats import format_interval, format_score, format_sd
from emofuse.report.predictions import read_test_predictions
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.results import Predictions
from emofuse.specs.plugins import load_recorded
from emofuse.statistics import Interval, Resampled, bootstrap_interval, corrected_resampled_t

_NO_INTERVAL = Interval(float("nan"), float("nan"))


@dataclass(frozen=True)
class ScoredMetric:
    """One metric of one configuration.

    Attributes:
        spread: the spread over the repeats.
        interval: the 95 % interval of the mean over repeats, as of all scores of the report.
    """

    spread: Spread
    interval: Interval


Further = Mapping[str, Mapping[str, ScoredMetric]]
"""Kind of a metric -> label of a configuration -> its scores."""


def find_metrics(
    kinds: Sequence[str], where: str, plugins: Iterable[Mapping[str, str]] = (), target: str | None = None
) -> list[Metric]:
    """Return the metrics of these names.

    Args:
        kinds: the names of the metrics.
        where: the place of the names, for messages.
        plugins: plugin files that runs record (see `RunRecord`). They are loaded only while a name is unknown, and only
            if the user has named their content before.
        target: the kind of target that the metrics must score; any kind unless given.

    Raises:
        SpecError: unknown names, all of them, and recorded plugin files that could not be loaded; or metrics of another
            kind of target.
    """
    refused = []
    for plugin in plugins:
        if set(kinds) <= set(METRICS.names()):
            break
        try:
            load_recorded(plugin)
        except PluginError as error:
            refused.append(str(error))
    names = METRICS.names()
    problems = [
        f"metrics: {kind!r} is unknown{did_you_mean(kind, names)} (there are: {', '.join(names)})"
        for kind in kinds
        if kind not in names
    ]
    if problems:
        raise SpecError(where, [*problems, *dict.fromkeys(refused)])
    metrics = [metric for kind in dict.fromkeys(kinds) if (metric := METRICS.find(kind)) is not None]
    of_others = [metric for metric in metrics if target is not None and not metric.scores_target(target)]
    if of_others:
        fitting = [kind for kind, metric in METRICS.all().items() if metric.scores_target(target or "")]
        there = f"(there are: {', '.join(sorted(fitting))})"
        raise SpecError(
            where,
            [
                f"metrics: {metric.kind!r} scores a {metric.target}, the target of the runs is a {target} {there}"
                for metric in of_others
            ],
        )
    return metrics


def score_further(results: Results, runs: Path, metrics: Sequence[Metric]) -> Further:
    """Return every metric of every configuration and reference model.

    It is undefined where the predictions of a run cannot be used.

    Args:
        results: the configurations.
        runs: the folder of the saved runs.
        metrics: the metrics.

    Raises:
        PluginError: a formula raises an error.
    """
    scores: dict[str, dict[str, ScoredMetric]] = {metric.kind: {} for metric in metrics}
    for item in (*results.configurations, *results.references) if metrics else ():
        try:
            predictions = [_sorted(read_test_predictions(run, runs)) for run in item.runs]
        except ResultsError:  # `measure_uncertainty` says why
            predictions = []
        for metric in metrics:
            scores[metric.kind][item.label] = _score(metric, item, predictions)
    return scores


def further_table(results: Results, metrics: Sequence[Metric], further: Further) -> ReportTable | None:
    """Return a table with one row for each configuration and one column for each metric; None without metrics."""
    if not metrics:
        return None
    columns = [TableColumn("Configuration", [Cell(item.label) for item in results.configurations], "left")]
    for metric in metrics:
        decimals = None if metric.target == "regression" else 3  # errors are in the unit of a column
        scores = [further[metric.kind][item.label] for item in results.configurations]
        texts = [format_score(each.spread.mean, decimals) for each in scores]
        shown = {text: each.spread.mean for text, each in zip(texts, scores, strict=True) if each.spread.n}
        best = (max if metric.larger_is_better else min)(shown, key=shown.__getitem__) if len(shown) > 1 else None
        cells = [
            Cell(
                text,
                format_sd(each.spread, decimals),
                format_interval(each.interval, decimals=decimals) if metric.resamples else "",
                text == best,
            )
            for text, each in zip(texts, scores, strict=True)
        ]
        columns.append(TableColumn(f"{metric.title} {'↑' if metric.larger_is_better else '↓'}", cells))
    return ReportTable(tuple(columns))


def further_rows(results: Results, metrics: Sequence[Metric], further: Further) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each configuration and metric."""
    return [
        {
            "configuration": item.label,
            "metric": metric.kind,
            "mean": scored.spread.mean,
            "sd": scored.spread.sd,
            "low": scored.interval.low,
            "high": scored.interval.high,
            "repeats": scored.spread.n,
        }
        for item in results.configurations
        for metric in metrics
        for scored in (further[metric.kind][item.label],)
    ]


def _score(metric: Metric, item: ReportedConfiguration, predictions: Sequence[Predictions]) -> ScoredMetric:
    try:
        scores = [metric.score(_truth(metric, each), each.outputs) for each in predictions]
        interval = _interval(metric, item, predictions, scores) if metric.resamples and predictions else _NO_INTERVAL
    except Exception as error:
        raise PluginError(f"metric {metric.kind!r}: its formula raised {type(error).__name__}: {error}") from error
    return ScoredMetric(Spread.of(scores), interval)


def _interval(
    metric: Metric, item: ReportedConfiguration, predictions: Sequence[Predictions], scores: Sequence[float]
) -> Interval:
    """Return the interval of a metric, which covers what the other intervals of the configuration cover."""
    by_rows: dict[bytes, list[float]] = {}
    for each, score in zip(predictions, scores, strict=True):
        by_rows.setdefault("\0".join(each.sample_id.tolist()).encode(), []).append(score)
    if len(by_rows) > 1:
        means = [float(np.mean(of_split)) for of_split in by_rows.values()]
        defined = [mean for mean in means if np.isfinite(mean)]
        return corrected_resampled_t(defined, item.test_to_train).interval if len(defined) > 1 else _NO_INTERVAL
    group = predictions[0].group
    unit = None if group is None else units_of_groups(group)
    drawn = np.stack([metric.resampled(_truth(metric, each), each.outputs, unit=unit) for each in predictions], axis=1)
    resampled = Resampled(np.array(scores)[:, None], np.where(np.isfinite(drawn), drawn, np.nan)[..., None])
    mean = resampled.mean_of_drawn(range(len(scores)), seed_of_repeats(item.repeats, seed=0))
    return bootstrap_interval(mean.drawn[:, 0, 0])


def _truth(metric: Metric, predictions: Predictions) -> npt.NDArray[Any]:
    """Return what the metric compares outputs with: classes, or the true values of its target."""
    if metric.target == "class" or predictions.target is None:
        return predictions.label
    return predictions.target


def _sorted(predictions: Predictions) -> Predictions:
    """Return the predictions in the order of the samples, which is that of all runs with the same test rows."""
    order = np.argsort(predictions.sample_id, kind="stable")
    arrays = {name: array[order] for name, array in vars(predictions).items() if array is not None}
    return Predictions(**arrays)
