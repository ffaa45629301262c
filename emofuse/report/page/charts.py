"""The numbers behind the interactive figures. The script of the page draws them with plotly.js.

Every number is in a CSV file too: scores in `summary.csv`, of classes in `per_class.csv`, curves in `curves.csv`.
"""

from __future__ import annotations

import math
from typing import Any

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.page.numbers import CURVE_KEYS
from emofuse.report.search import SELECTS
from emofuse.report.targets import ShownScore

_DECIMALS = 5


def chart_data(results: Results, uncertainty: Uncertainty) -> dict[str, Any]:
    """Return the data of the interactive figures as plain JSON: name of the figure -> data."""
    return {
        "scores": _scores(results, uncertainty),
        "training": _training(results),
        "parts": _parts(results, uncertainty),
    }


def _scores(results: Results, uncertainty: Uncertainty) -> dict[str, Any]:
    items = results.ranked
    return {
        "labels": [item.label for item in items],
        "streams": [", ".join(item.streams) for item in items],
        "baseline": items.index(results.baseline),
        "select": f"validation {SELECTS[results.select]}",
        "validation": [_rounded(item.validation(results.select).mean) for item in items],
        "scores": [{"name": score.name, **_measured(items, uncertainty, score)} for score in results.target.compared],
    }


def _measured(items: tuple[ReportedConfiguration, ...], uncertainty: Uncertainty, score: ShownScore) -> dict[str, Any]:
    intervals = [uncertainty.interval(item.label, score.path) for item in items]
    return {
        "mean": [_rounded(item.metric(score.path).mean) for item in items],
        "low": [_rounded(interval.low) if interval else None for interval in intervals],
        "high": [_rounded(interval.high) if interval else None for interval in intervals],
    }


def _training(results: Results) -> dict[str, Any]:
    names = {"train_loss": "training loss", "val_loss": "validation loss"}
    curve = f"val_{results.target.curve}"
    names = {curve: f"validation {SELECTS[results.target.curve]}", **names}
    return {
        "keys": [{"key": key, "name": names[key]} for key in (curve, *CURVE_KEYS)],
        "configurations": [
            {
                "label": item.label,
                "runs": [
                    {
                        "name": run.digest[:8],
                        "best": run.best_epoch,
                        **{key: [_rounded(entry.get(key)) for entry in run.history] for key in names},
                    }
                    for run in item.runs
                ],
            }
            for item in results.featured
        ],
    }


def _parts(results: Results, uncertainty: Uncertainty) -> dict[str, Any]:
    target = results.target
    return {
        "part": target.part,
        "main": target.main_part.path,
        "baseline": results.baseline.label,
        "labels": list(results.classes),
        "scores": [{"key": score.path, "name": score.name} for score in target.part_scores],
        "configurations": [
            {
                "label": item.label,
                **{
                    score.path: [_rounded(spread.mean) for spread in item.part_metric(score.path)]
                    for score in target.part_scores
                },
                "low": _part_ends(results, item, uncertainty, "low"),
                "high": _part_ends(results, item, uncertainty, "high"),
            }
            for item in results.featured
        ],
    }


def _part_ends(
    results: Results, item: ReportedConfiguration, uncertainty: Uncertainty, end: str
) -> dict[str, list[float | None]]:
    """Return one end of the intervals of all parts, for each score of parts that has intervals."""
    ends = {}
    for score in results.target.part_scores:
        intervals = [
            uncertainty.interval(item.label, results.target.part_path(place, score.path))
            for place in range(len(results.classes))
        ]
        if any(intervals):
            ends[score.path] = [_rounded(getattr(each, end)) if each else None for each in intervals]
    return ends


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), _DECIMALS)
