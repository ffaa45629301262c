"""The plain numbers that the page shows and no other file of the report has: one row for each number of a script.

`confusion.csv` has the cells of all confusion matrices, `samples.csv` the listed samples with their answers,
`curves.csv` the training curves of the interactive figure, `weights.csv` the weights of extractors with their licences,
and `label_map.csv` the labels of a test on other data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from emofuse.report.configurations import Results
from emofuse.report.foreign import map_table
from emofuse.report.inputs import stream_uses
from emofuse.report.page.reproduce import weights_table
from emofuse.report.page.samples import SampleAnswers
from emofuse.report.page.value_samples import ValueSamples, value_rows

CONFUSION, SAMPLES, CURVES, WEIGHTS, MAP = "confusion.csv", "samples.csv", "curves.csv", "weights.csv", "label_map.csv"
PAGE_FILES = (CONFUSION, SAMPLES, CURVES, WEIGHTS, MAP)
"""All files that this module makes rows for."""
CURVE_KEYS = ("train_loss", "val_loss")


def page_numbers(
    results: Results, samples: SampleAnswers | None, values: ValueSamples | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each file: file name -> rows."""
    files = {CURVES: curve_rows(results)}
    if results.target.has_classes:
        files[CONFUSION] = confusion_rows(results)
    if samples is not None:
        files[SAMPLES] = sample_rows(results, samples)
    if values is not None:
        files[SAMPLES] = value_rows(results, values)
    for name, table in ((WEIGHTS, weights_table(stream_uses(results))), (MAP, map_table(results))):
        if table is not None:
            titles = [column.title for column in table.columns]
            files[name] = [dict(zip(titles, (cell.text for cell in row), strict=True)) for row in table.rows]
    return files


def confusion_rows(results: Results) -> list[dict[str, Any]]:
    """Return one dict for each cell of the confusion matrix of each featured configuration."""
    rows = []
    for item in results.featured:
        counts = item.confusion
        totals = counts.sum(axis=1)
        for (true, predicted), count in np.ndenumerate(counts):
            rows.append(
                {
                    "configuration": item.label,
                    "true": results.classes[true],
                    "predicted": results.classes[predicted],
                    "count": int(count),
                    "rows_of_true": int(totals[true]),
                    "share": int(count) / int(totals[true]) if totals[true] else math.nan,
                }
            )
    return rows


def sample_rows(results: Results, samples: SampleAnswers) -> list[dict[str, Any]]:
    """Return one dict for each listed answer to a sample, with the answers of single streams."""
    rows = []

    def row(label: str, sample: int, predicted: int, **more: Any) -> dict[str, Any]:
        votes = {
            f"answer_of_{vote.stream}": results.classes[answer[0]] if answer else None
            for vote in samples.votes
            for answer in [vote.answers.get(samples.sample_id[sample])]
        }
        return {
            "configuration": label,
            "sample_id": samples.sample_id[sample],
            "true": results.classes[samples.true[sample]],
            "predicted": results.classes[predicted],
            **more,
            **votes,
        }

    for label, cells in samples.cells.items():
        for (_, predicted), listed in cells.items():
            rows += [
                row(label, one.sample, predicted, runs=one.times, tested_by=one.tested, confidence=one.confidence)
                for one in listed
            ]
    for gallery in (samples.mistakes, samples.rescued):
        rows += [
            row(f"{samples.best} (mean over its runs)", sample, answer, runs=None, tested_by=None, confidence=sure)
            for sample, answer, sure in gallery
        ]
    return rows


def curve_rows(results: Results) -> list[dict[str, Any]]:
    """Return one dict for each epoch of each run of the featured configurations."""
    keys = (*CURVE_KEYS, f"val_{results.target.curve}")
    return [
        {
            "configuration": item.label,
            "digest": run.digest,
            "epoch": place,
            **{key: _defined(entry, key) for key in keys},
            "kept": "yes" if place == run.best_epoch else "no",
        }
        for item in results.featured
        for run in item.runs
        for place, entry in enumerate(run.history, start=1)
    ]


def _defined(entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    return math.nan if value is None else float(value)
