"""The plain numbers behind the tables, as CSV: nothing rounded for the eye, one column a number."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from emofuse.report.comparisons import MEASURED, Uncertainty
from emofuse.report.configurations import Results, Spread, find_metric, repeat_of
from emofuse.report.search import SearchSummary
from emofuse.report.tables import CLASS_METRICS, COMPARED, METRICS


def summary_rows(results: Results, uncertainty: Uncertainty) -> list[dict[str, Any]]:
    """One dict a configuration."""
    rows = []
    for item in results.configurations:
        row: dict[str, Any] = {
            "configuration": item.label,
            "streams": " ".join(item.streams),
            "random_weights": " ".join(item.random_streams),
            "repeats": len(item.runs),
        }
        for path in METRICS:
            row |= _flat(path.replace(".", "_"), item.metric(path))
        for path in MEASURED:
            interval = uncertainty.intervals.get(item.label, {}).get(path)
            name = f"{path.replace('.', '_')}_95"
            row |= {f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}
        for path in COMPARED:
            spread = results.difference(item, path)
            name = f"{path.replace('.', '_')}_difference"
            row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd}
        row["reachable_accuracy"] = results.reachable(item)
        row["parameters"] = item.runs[0].parameters
        row |= _flat("best_epoch", Spread.of(run.best_epoch for run in item.runs))
        row |= _flat("train_seconds", Spread.of(run.seconds for run in item.runs))
        rows.append(row)
    return rows


def comparison_rows(results: Results, uncertainty: Uncertainty) -> list[dict[str, Any]]:
    """One dict a configuration but the baseline; empty fields where it could not be compared."""
    rows = []
    for item in results.configurations:
        if item is results.baseline:
            continue
        found = uncertainty.comparisons.get(item.label)
        row: dict[str, Any] = {"configuration": item.label, "baseline": results.baseline.label}
        for path in MEASURED:
            name = path.replace(".", "_")
            test = found and found.tests[path]
            row |= {
                f"{name}_difference": results.difference(item, path).mean,
                f"{name}_difference_95_low": test and test.interval.low,
                f"{name}_difference_95_high": test and test.interval.high,
                f"{name}_p": test and test.p,
                f"{name}_p_holm": found and found.corrected[path],
            }
        row |= {
            "lost": found and found.mcnemar.lost,
            "gained": found and found.mcnemar.gained,
            "mcnemar_p": found and found.mcnemar.p,
            "mcnemar_p_holm": found and found.mcnemar_corrected,
            "mcnemar_test": found and ("binomial" if found.mcnemar.exact else "chi-square"),
            "resamples": uncertainty.resampling.count,
            "seed": uncertainty.resampling.seed,
        }
        rows.append(row)
    return rows


def search_rows(search: SearchSummary) -> list[dict[str, Any]]:
    """One dict a configuration that was tried, the best first, with a column for each setting that varies."""
    settings = list(dict.fromkeys(key for item in search.configurations for key in item.settings))
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
        | {f"setting_{key}": _setting(item.settings.get(key)) for key in settings}
        for rank, item in enumerate(search.ranked, start=1)
    ]


def class_rows(results: Results) -> list[dict[str, Any]]:
    """One dict a configuration and class."""
    rows = []
    for item in results.configurations:
        measured = {key: item.class_metric(key) for key in (*CLASS_METRICS, "support")}
        for index, label in enumerate(results.classes):
            row: dict[str, Any] = {
                "configuration": item.label,
                "random_weights": " ".join(item.random_streams),
                "repeats": len(item.runs),
                "class": label,
            }
            for key in CLASS_METRICS:
                row |= _flat(key, measured[key][index])
            row["support_mean"] = measured["support"][index].mean
            rows.append(row)
    return rows


def run_rows(results: Results) -> list[dict[str, Any]]:
    """One dict a run, for statistics of one's own."""
    rows = []
    for item in results.configurations:
        for run in item.runs:
            split_seed, seed = repeat_of(run)
            row: dict[str, Any] = {
                "configuration": item.label,
                "random_weights": " ".join(item.random_streams),
                "digest": run.digest,
                "split_seed": split_seed,
                "seed": seed,
                "accuracy": find_metric(run, "accuracy"),
            }
            row |= {
                f"{mean}_{key}": find_metric(run, f"{mean}.{key}")
                for mean in ("macro", "weighted")
                for key in CLASS_METRICS
            }
            row |= {"best_epoch": run.best_epoch, "parameters": run.parameters, "train_seconds": run.seconds}
            rows.append(row)
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with the first one's keys as header; an undefined number is an empty field; no row is no text."""
    if not rows:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _flat(name: str, spread: Spread) -> dict[str, float]:
    return {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd, f"{name}_min": spread.low, f"{name}_max": spread.high}


def _setting(value: Any) -> str:
    """A setting as it is, never rounded: a name stands bare, a list of names apart by spaces, the rest as JSON."""
    if isinstance(value, str) or value is None:
        return value or ""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return json.dumps(value)


def _csv_value(value: Any) -> Any:
    """Six decimals are finer than any test split; whole numbers have none."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{round(value, 6):.12g}"
    return "" if value is None else value
