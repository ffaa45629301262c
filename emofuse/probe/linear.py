"""Answers of ridge regressions on subsets of streams, by linear kernels, exact for any number of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emofuse.heads.arithmetic import fast_arithmetic
from emofuse.heads.links import Link, apply_link
from emofuse.probe.results import AVERAGED, KERNEL_FUSION, Answers, Floats, ProbeOptions
from emofuse.probe.rows import stream_rows
from emofuse.progress import step
from emofuse.solvers.calibration import calibrate
from emofuse.solvers.subset_ridge import SubsetRidge, SubsetRows
from emofuse.training.members import FeatureTable, Fold

LINEAR_PENALTIES = (1e-5, 1.0)
"""The smallest and largest penalty of linear kernels, as a share of the variance of all columns of a stream."""
_CHOICE_ROWS = 4000
"""The rows, evenly spaced, on which the penalties of all folds are compared and their answers calibrated."""


def linear_answers(
    table: FeatureTable,
    folds: Sequence[Fold],
    subsets: Sequence[tuple[str, ...]],
    options: ProbeOptions,
    sources: Mapping[str, str],
) -> Answers:
    """Return (subset, model) -> outputs (n, C) of the rows of all folds, one fold after another, by linear kernels.

    Columns are brought to about unit size by the scaling of the first fold, which also limits outliers. Each fold then
    standardises them by its own training rows.
    """
    targets = _RidgeTargets.of(table, folds)
    weights = None if table.weights is None else table.weights.double()

    def read(rows: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        parts = {}
        for name, source in sources.items():
            of_stream = stream_rows(table, folds[0].scaling[name], source, rows.numpy(), np.float32)
            parts[name] = (of_stream.features, of_stream.valid)
        return parts

    dims = {name: part.shape[1] for name, (part, _) in read(torch.from_numpy(folds[0].val[:1])).items()}
    rows = SubsetRows(read, dims, [torch.from_numpy(fold.val) for fold in folds], targets.values, weights)
    low, high = (math.log10(penalty) for penalty in LINEAR_PENALTIES)
    penalties = torch.logspace(low, high, options.penalties, dtype=torch.float64).tolist()
    ridge = SubsetRidge(rows, subsets, penalties)
    every = max(1, sum(map(len, rows.folds)) // _CHOICE_ROWS)
    total = 2 * len(folds)
    outputs: list[Floats] = []
    with step("solving", total, "folds") as advance, fast_arithmetic(torch.device("cpu")):
        fits, tried = [], []
        for number, fit in enumerate(ridge.fits()):
            fits.append(fit)
            tried.append(ridge.outputs(fit, rows.folds[number][::every]))
            advance(number + 1, total)
        for number, fit in enumerate(fits):
            others = [other for other in range(len(folds)) if other != number]
            places = torch.cat([rows.folds[other][::every] for other in others])
            choices = _choices(table.target.kind, rows, places, torch.cat([tried[other] for other in others]))
            places = torch.tensor([choice.place for choice in choices])
            answers = ridge.outputs(fit, rows.folds[number], places)[:, :, 0].double()
            outputs.append(np.stack([targets.outputs(answers[:, at], choice) for at, choice in enumerate(choices)]))
            advance(len(folds) + number + 1, total)
    return _by_model(outputs, subsets)


@dataclass(frozen=True)
class _Choice:
    """The penalty of one subset in one fold, and the calibration of its answers.

    Attributes:
        place: the place of the penalty.
        factor, slopes, offsets: see `Calibration`.
    """

    place: int
    factor: float
    slopes: Tensor
    offsets: Tensor


def _choices(kind: str, rows: SubsetRows, places: Tensor, tried: Tensor) -> list[_Choice]:
    """Return the choice of each subset by the answers (n, subsets, L, C) for rows that are not of the fold."""
    targets, weights = rows.targets[places], None if rows.weights is None else rows.weights[places]
    choices = []
    for of_subset in tried.double().permute(1, 2, 0, 3):
        fitted = calibrate(kind, of_subset.contiguous(), targets, weights)
        best = int(np.argmin(fitted.losses))
        choices.append(_Choice(best, fitted.factors[best], fitted.slopes[best], fitted.offsets[best]))
    return choices


@dataclass(frozen=True)
class _RidgeTargets:
    """The targets of the ridge regressions, and the map from their answers to outputs.

    Attributes:
        link: what turns answers into outputs.
        values: one-hot labels, targets, or standardised numbers, float64 (N, C); 0 in rows without any.
        center, scale: the standardisation of numbers, (C,). A ridge regression with an intercept is the same for any.
    """

    link: Link
    values: Tensor
    center: Tensor
    scale: Tensor

    @classmethod
    def of(cls, table: FeatureTable, folds: Sequence[Fold]) -> _RidgeTargets:
        """Return the targets of the rows of a table, standardised over the folds if they are numbers."""
        if table.targets is None:
            values = torch.nn.functional.one_hot(table.labels.clamp(min=0), table.classes).double()
        else:
            values = table.targets.double().nan_to_num(0.0, 0.0, 0.0)
        center, scale = torch.zeros(table.classes, dtype=torch.float64), torch.ones(table.classes, dtype=torch.float64)
        if table.target.kind == "regression":
            known = values[torch.from_numpy(np.concatenate([fold.val for fold in folds]))]
            center, scale = known.mean(dim=0), known.std(dim=0, correction=0).clamp(min=1e-30)
        return cls(table.link, (values - center) / scale, center, scale)

    def outputs(self, answers: Tensor, choice: _Choice) -> Floats:
        """Return the outputs (n, C) of answers (n, C)."""
        calibrated = choice.factor * (choice.slopes * answers + choice.offsets)
        outputs: Floats = (apply_link(self.link, calibrated) * self.scale + self.center).numpy()
        return outputs


def _by_model(outputs: Sequence[Floats], subsets: Sequence[tuple[str, ...]]) -> Answers:
    """Return the answers of both models, from the outputs (subsets, n, C) of each fold."""
    alone = {subset[0]: place for place, subset in enumerate(subsets) if len(subset) == 1}
    answers: dict[tuple[tuple[str, ...], str], Floats] = {}
    for place, subset in enumerate(subsets):
        answers[subset, KERNEL_FUSION] = np.concatenate([of_fold[place] for of_fold in outputs])
        if len(subset) > 1:
            means = [np.mean([of_fold[alone[name]] for name in subset], axis=0) for of_fold in outputs]
            answers[subset, AVERAGED] = np.concatenate(means)
    return answers
