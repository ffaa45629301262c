"""Makes the plain numbers behind the tables as CSV, with one column for each number."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from emofuse.report.comparisons import ReportComparison, Uncertainty
from emofuse.report.configurations import (
    ReportedConfiguration,
    Results,
    Spread,
    find_metric,
    repeat_of,
    validation_score,
)
from emofuse.report.search import SearchSummary
from emofuse.report.tables import comparisons_of
from emofuse.statistics import McNemarTest, PairedTest, SplitTest


def summary_rows(results: Results, uncertainty: Uncertainty) -> list[dict[str, Any]]:
    """Return one dict for each configuration."""
    rows = []
    for item in results.configurations:
        row: dict[str, Any] = {
            "configuration": item.label,
            "streams": " ".join(item.streams),
            "random_weights": " ".join(item.random_streams),
            "repeats": len(item.runs),
        }
        for score in results.target.scores:
            row |= _flat(score.column, item.metric(score.path))
        for score in results.target.scores:
            interval, name = uncertainty.interval(item.label, score.path), f"{score.column}_95"
            row |= {f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}
        for score in results.target.compared:
            spread, name = results.difference(item, score.path), f"{score.column}_difference"
            row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd}
        row |= _coverage(item, uncertainty)
        row |= _pooled(item, uncertainty)
        if results.target.has_classes:
            row["reachable_accuracy"] = results.reachable(item)
        row["parameters"] = item.runs[0].parameters
        row |= _flat("best_epoch", Spread.of(run.best_epoch for run in item.runs))
        row |= _flat("train_seconds", Spread.of(run.seconds for run in item.runs))
        rows.append(row)
    return rows


def comparison_rows(results: Results, uncertainty: Uncertainty) -> list[dict[str, Any]]:
    """Return one dict for each comparison, those with the baseline first; without a test its fields are empty.

    `baseline` is the configuration that the first one is compared with.
    """
    rows = []
    for item, other, comparison in comparisons_of(results, uncertainty):
        row: dict[str, Any] = {"configuration": item.label, "baseline": other.label}
        for score in results.target.compared:
            path, name = score.path, score.column
            test = comparison and comparison.tests[path]
            row |= {
                f"{name}_difference": results.difference(item, path, other).mean,
                f"{name}_difference_95_low": test and test.interval.low,
                f"{name}_difference_95_high": test and test.interval.high,
                f"{name}_p": test and test.p,
                f"{name}_p_holm": comparison and comparison.corrected[path],
            }
        if results.target.has_classes:
            row |= _mcnemar(comparison)
        main = comparison and comparison.tests[results.target.main.path]
        row |= {
            "test": main and _test_kind(main),
            "splits": main and _splits(main),
            "family": len(uncertainty.comparisons),
            "resamples": uncertainty.resampling.count,
            "seed": uncertainty.resampling.seed,
        }
        rows.append(row)
    return rows


def _mcnemar(comparison: ReportComparison | None) -> dict[str, Any]:
    test = comparison and comparison.mcnemar
    return {
        "lost": test and test.lost,
        "gained": test and test.gained,
        "mcnemar_p": test and test.p,
        "mcnemar_p_holm": comparison and test and comparison.mcnemar_corrected,
        "mcnemar_test": test and _mcnemar_kind(test),
    }


def _mcnemar_kind(test: McNemarTest) -> str:
    return "exchange of groups" if test.grouped else "binomial" if test.exact else "chi-square"


def _test_kind(test: PairedTest | SplitTest) -> str:
    return "corrected resampled t" if isinstance(test, SplitTest) else "paired bootstrap"


def _splits(test: PairedTest | SplitTest) -> int:
    return test.splits if isinstance(test, SplitTest) else 1


def _coverage(item: ReportedConfiguration, uncertainty: Uncertainty) -> dict[str, Any]:
    """Return how the intervals of a configuration were computed; empty fields without intervals."""
    coverage = uncertainty.coverage.get(item.label)
    interval = coverage and ("corrected resampled t" if coverage.splits > 1 else "bootstrap")
    return {
        "interval": interval,
        "test_splits": coverage and coverage.splits,
        "test_images": coverage and coverage.images,
        "test_groups": coverage and coverage.groups,
    }


def _pooled(item: ReportedConfiguration, uncertainty: Uncertainty) -> dict[str, Any]:
    """Return the pooled scores of outer folds with their intervals; nothing in a report without any."""
    if not uncertainty.pooled:
        return {}
    pooled = uncertainty.pooled.get(item.label)
    row: dict[str, Any] = {"outer_folds": pooled and pooled.folds}
    for path in next(iter(uncertainty.pooled.values())).scores:
        name = f"pooled_{path.replace('.', '_')}"
        row |= {
            name: pooled and pooled.scores[path],
            f"{name}_95_low": pooled and pooled.intervals[path].low,
            f"{name}_95_high": pooled and pooled.intervals[path].high,
        }
    return row


def search_rows(search: SearchSummary) -> list[dict[str, Any]]:
    """Return one dict for each configuration that was tried, the best first, with the values of all factors."""
    factors = list(dict.fromkeys(key for item in search.configurations for key in item.settings))
    return [
        {
            "rank": rank,
            "configuration": item.name,
            "chosen": "yes" if item.chosen else "fallback" if item.fallback else "no",
            f"val_{search.select}_mean": item.score,
            f"val_{search.select}_se": item.error,
            "runs": item.runs,
            "diverged": item.diverged,
            "halved": item.halved,
            "final_runs": item.final_runs,
            "final_diverged": len(item.final_diverged),
        }
        | {f"setting_{key}": _factor_value(item.settings.get(key)) for key in factors}
        for rank, item in enumerate(search.ranked, start=1)
    ]


def part_rows(results: Results, uncertainty: Uncertainty) -> list[dict[str, Any]]:
    """Return one dict for each configuration and class, column or label."""
    rows, target = [], results.target
    keys, support = [score.path for score in target.part_scores], target.support.lower()
    for item in results.configurations:
        measured = {key: item.part_metric(key) for key in (*keys, *([support] if support else []))}
        for index, label in enumerate(results.classes):
            row: dict[str, Any] = {
                "configuration": item.label,
                "random_weights": " ".join(item.random_streams),
                "repeats": len(item.runs),
                target.part: label,
            }
            for key in keys:
                row |= _flat(key, measured[key][index])
                interval = uncertainty.interval(item.label, target.part_path(index, key))
                row |= {f"{key}_95_low": interval and interval.low, f"{key}_95_high": interval and interval.high}
            if support:
                row[f"{support}_mean"] = measured[support][index].mean
            rows.append(row)
    return rows


def run_rows(results: Results) -> list[dict[str, Any]]:
    """Return one dict for each run, for further statistics."""
    rows = []
    for item in results.configurations:
        for run in item.runs:
            split, seed = repeat_of(run)
            dealt, fold = split if isinstance(split, tuple) else (split, None)
            row: dict[str, Any] = {
                "configuration": item.label,
                "random_weights": " ".join(item.random_streams),
                "digest": run.digest,
                "split_seed": dealt,
                **({} if fold is None else {"outer_fold": fold}),
                "seed": seed,
                "streams": " ".join(item.streams),
                "head": item.spec["head"]["kind"],
                "heads": item.heads,
                f"val_{results.select}": validation_score(run, results.select),
            }
            row |= {score.column: find_metric(run, score.path) for score in results.target.run_scores}
            row |= {"best_epoch": run.best_epoch, "parameters": run.parameters, "train_seconds": run.seconds}
            rows.append(row)
    return rows


def json_text(
    results: Results, uncertainty: Uncertainty, notes: Sequence[str], references: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return scores, intervals and comparisons as JSON, with the sentences on how to read them.

    Args:
        results: the configurations.
        uncertainty: their intervals and comparisons.
        notes: the sentences.
        references: the scores of the reference models, as `summary_rows` returns them.
    """
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "configurations": summary_rows(results, uncertainty),
        results.target.parts: part_rows(results, uncertainty),
        "comparisons": comparison_rows(results, uncertainty),
        "references": [{**row, "reference": True} for row in references],
    }
    plain: dict[str, Any] = {}
    for name, rows in tables.items():
        plain[name] = [{key: _json_value(value) for key, value in row.items()} for row in rows]
    return json.dumps({"baseline": results.baseline.label, "notes": list(notes), **plain}, indent=1) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV. The keys of the first row are the header, an undefined number is an empty field."""
    if not rows:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _flat(name: str, spread: Spread) -> dict[str, float]:
    return {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd, f"{name}_min": spread.low, f"{name}_max": spread.high}


def _factor_value(value: Any) -> str:
    """Return the value of a factor without rounding: a name, names with spaces between them, or JSON."""
    if isinstance(value, str) or value is None:
        return value or ""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return json.dumps(value)


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv_value(value: Any) -> Any:
    """Return a number with up to six decimals, which are finer than any test split; small ones with six digits."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{round(value, 6):.12g}" if abs(value) >= 0.1 else f"{value:.6g}"
    return "" if value is None else value
