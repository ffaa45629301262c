"""Temperatures that are fitted on rows other than those that they are applied to."""

from __future__ import annotations

import numpy as np

from emofuse.analysis.answers import Ints, TestedRows
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
    The answers of repeats are averaged after the temperature. Of several labels, every label of every row is one
    decision between yes and no, with one temperature for all labels.
    """
    mean, cache = analysis.mean, analysis.source.cache
    seed, kind = analysis.options.seed, analysis.scoring.kind
    count_of_labels = len(analysis.classes) if kind == "multilabel" else 0
    before, label, unit = decisions(kind, mean.outputs, mean.label, mean.unit, target=mean.target)
    if analysis.source.chosen is None or cache is None or any(map(shares_rows, analysis.chosen.runs)):
        after, temperatures = cross_fitted(before, label, unit, seed=seed)
        where = "four fifths of the tested rows for the other fifth, in turn"
        return CalibratedAnswers(label, unit, before, after, temperatures, where, analysis.grouped, count_of_labels)
    total, count = np.zeros_like(mean.outputs), np.zeros(len(mean.label))
    temperatures = []
    for rows in analysis.answered.repeats:
        scaled, fitted = _scaled(analysis, cache, rows)
        place = np.searchsorted(mean.sample_id, rows.sample_id)
        total[place] += scaled
        count[place] += 1
        temperatures += fitted
    after = decisions(kind, total / count[:, None], mean.label, mean.unit, target=mean.target)[0]
    return CalibratedAnswers(
        label,
        unit,
        before,
        after,
        temperatures,
        "the validation rows of each run",
        analysis.grouped,
        count_of_labels,
    )


def _scaled(analysis: Analysis, cache: Cache, rows: TestedRows) -> tuple[Floats, list[float]]:
    """Return the probabilities (n, C) of a repeat with the temperature of each run, and these temperatures."""
    scaled, temperatures = np.empty_like(rows.outputs), []
    for record, places in rows.parts:
        probs, label = _validation(analysis, cache, record)
        temperatures.append(fit_temperature(probs, label))
        here, kind = rows.outputs[places], record.target_kind
        target = None if rows.target is None else rows.target[places]
        pairs = decisions(kind, here, rows.label[places], rows.unit[places], target=target)[0]
        after = with_temperature(pairs, temperatures[-1])
        scaled[places] = after[:, 1].reshape(here.shape) if kind == "multilabel" else after
    return scaled, temperatures


def _validation(analysis: Analysis, cache: Cache, record: RunRecord) -> tuple[Floats, Ints]:
    """Return the probabilities and the classes (or decisions) of the validation rows of a run."""
    spec = parse_spec(RunSpec, dict(record.spec), record.name)
    data = TrainingData.of_run(cache, spec)
    (fold,) = data.folds(spec)
    opened = open_run(cache, analysis.runs, record, fold.val, device=analysis.options.device)
    outputs = opened.trained.answers(opened.inputs).astype(np.float64)
    target = None if data.values is None else data.values[fold.val].astype(np.float64)
    rows = np.arange(len(outputs))
    probs, label, _ = decisions(record.target_kind, outputs, data.labels[fold.val], rows, target=target)
    return probs, label


def decisions(
    kind: str, outputs: Floats, label: Ints, unit: Ints, *, target: Floats | None
) -> tuple[Floats, Ints, Ints]:
    """Return probabilities, classes and units; of several labels those of each label of each row, no and yes.

    Args:
        kind: the kind of the target.
        outputs: the probabilities, (n, C).
        label: the true classes, (n,).
        unit: the unit of each row, (n,).
        target: whether each row has each label, (n, C); no matter for classes.
    """
    if kind != "multilabel" or target is None:
        return outputs, label, unit
    probs = outputs.reshape(-1)
    has = (target.reshape(-1) > 0.5).astype(np.int64)
    return np.stack([1 - probs, probs], axis=1), has, np.repeat(unit, outputs.shape[1])
