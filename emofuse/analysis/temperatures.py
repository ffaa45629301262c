"""Temperatures that are fitted on rows other than those that they are applied to."""

from __future__ import annotations

import numpy as np

from emofuse.analysis.answers import TestedRows
from emofuse.analysis.cached_rows import open_run
from emofuse.analysis.calibration import Floats, cross_fitted, fit_temperature, with_temperature
from emofuse.analysis.context import Analysis
from emofuse.analysis.sections.calibration import CalibratedAnswers
from emofuse.cache.reader import Cache
from emofuse.report.configurations import shares_rows
from emofuse.results import RunRecord
from emofuse.specs import RunSpec, parse_spec
from emofuse.training.data import TrainingData


def calibrated_answers(analysis: Analysis) -> CalibratedAnswers:
    """Return the answers of the analysed model with a temperature.

    The temperature of a run is fitted on its validation rows. Where these were learned from too (ensembles of folds,
    second trainings), or without a cache or runs, it is fitted on four fifths of the tested rows for the last fifth.
    The answers of repeats are averaged after the temperature.
    """
    mean, cache = analysis.mean, analysis.source.cache
    seed = analysis.options.seed
    if analysis.source.chosen is None or cache is None or any(map(shares_rows, analysis.chosen.runs)):
        after, temperatures = cross_fitted(mean.outputs, mean.label, mean.unit, seed=seed)
        where = "four fifths of the tested rows for the other fifth, in turn"
        return CalibratedAnswers(mean.label, mean.unit, mean.outputs, after, temperatures, where, analysis.grouped)
    total, count = np.zeros_like(mean.outputs), np.zeros(len(mean.label))
    temperatures = []
    for rows in analysis.answered.repeats:
        scaled, fitted = _scaled(analysis, cache, rows)
        place = np.searchsorted(mean.sample_id, rows.sample_id)
        total[place] += scaled
        count[place] += 1
        temperatures += fitted
    return CalibratedAnswers(
        mean.label,
        mean.unit,
        mean.outputs,
        total / count[:, None],
        temperatures,
        "the validation rows of each run",
        analysis.grouped,
    )


def _scaled(analysis: Analysis, cache: Cache, rows: TestedRows) -> tuple[Floats, list[float]]:
    """Return the probabilities (n, C) of a repeat with the temperature of each run, and these temperatures."""
    scaled, temperatures = np.empty_like(rows.outputs), []
    for record, places in rows.parts:
        probs, label = _validation(analysis, cache, record)
        temperatures.append(fit_temperature(probs, label))
        scaled[places] = with_temperature(rows.outputs[places], temperatures[-1])
    return scaled, temperatures


def _validation(
    analysis: Analysis, cache: Cache, record: RunRecord
) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return the probabilities and the classes of the validation rows of a run."""
    spec = parse_spec(RunSpec, dict(record.spec), record.name)
    data = TrainingData.of_run(cache, spec)
    (fold,) = data.folds(spec)
    opened = open_run(cache, analysis.runs, record, fold.val, device=analysis.options.device)
    return opened.trained.answers(opened.inputs).astype(np.float64), data.labels[fold.val]
