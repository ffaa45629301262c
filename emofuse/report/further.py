"""Computes the metrics that were asked for by name from the saved predictions of the test rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emofuse.errors import PluginError, ResultsError, SpecError, did_you_mean
from emofuse.metrics import METRICS, Metric
from emofuse.report.configurations import Results, Spread
from emofuse.report.formats import format_interval, format_score, format_sd
from emofuse.report.predictions import read_test_predictions
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.results import Predictions
from emofuse.specs.plugins import load_recorded
from emofuse.statistics import Interval

_ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class ScoredMetric:
    """One metric of one configuration.

    Attributes:
        spread: the spread over the repeats.
        interval: the 95 % interval of the mean over repeats, from rows drawn with replacement.
    """

    spread: Spread
    interval: Interval


Further = Mapping[str, Mapping[str, ScoredMetric]]
"""Kind of a metric -> label of a configuration -> its scores."""


def find_metrics(kinds: Sequence[str], where: str, plugins: Iterable[Mapping[str, str]] = ()) -> list[Metric]:
    """Return the metrics of these names.

    Args:
        kinds: the names of the metrics.
        where: the place of the names, for messages.
        plugins: plugin files that runs record (see `RunRecord`). They are loaded only while a name is unknown, and only
            if the user has named their content before.

    Raises:
        SpecError: unknown names, all of them, and recorded plugin files that could not be loaded.
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
    return [metric for kind in dict.fromkeys(kinds) if (metric := METRICS.find(kind)) is not None]


def score_further(results: Results, runs: Path, metrics: Sequence[Metric]) -> Further:
    """Return every metric of every configuration; undefined where the predictions of a run cannot be used.

    Args:
        results: the configurations.
        runs: the folder of the saved runs.
        metrics: the metrics.

    Raises:
        PluginError: a formula raises an error.
    """
    scores: dict[str, dict[str, ScoredMetric]] = {metric.kind: {} for metric in metrics}
    for item in results.configurations if metrics else ():
        try:
            predictions = [read_test_predictions(run, runs) for run in item.runs]
        except ResultsError:  # `measure_uncertainty` says why
            predictions = []
        for metric in metrics:
            scores[metric.kind][item.label] = _score(metric, predictions)
    return scores


def further_table(results: Results, metrics: Sequence[Metric], further: Further) -> ReportTable | None:
    """Return a table with one row for each configuration and one column for each metric; None without metrics."""
    if not metrics:
        return None
    columns = [TableColumn("Configuration", [Cell(item.label) for item in results.configurations], "left")]
    for metric in metrics:
        scores = [further[metric.kind][item.label] for item in results.configurations]
        shown = [round(each.spread.mean, 3) for each in scores if each.spread.n]
        best = (max if metric.larger_is_better else min)(shown) if len(set(shown)) > 1 else None
        cells = [
            Cell(
                format_score(each.spread.mean),
                format_sd(each.spread),
                format_interval(each.interval) if metric.resamples else "",
                round(each.spread.mean, 3) == best,
            )
            for each in scores
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


def _score(metric: Metric, predictions: Sequence[Predictions]) -> ScoredMetric:
    try:
        scores = [metric.score(each.label, each.probs) for each in predictions]
        drawn = [metric.resampled(each.label, each.probs) for each in predictions]
    except Exception as error:
        raise PluginError(f"metric {metric.kind!r}: its formula raised {type(error).__name__}: {error}") from error
    interval = Interval(float("nan"), float("nan"))
    if metric.resamples and predictions:
        means = np.mean(drawn, axis=0)
        defined = means[np.isfinite(means)]
        if len(defined):
            low, high = np.percentile(defined, _ENDS)
            interval = Interval(float(low), float(high))
    return ScoredMetric(Spread.of(scores), interval)
