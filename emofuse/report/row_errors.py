"""How wrong single rows are for targets without classes, and which of their true values or labels may be wrong.

The error of a row of numbers is the mean over columns of the distance of answer and true value, in standard deviations
of the true values of the column. That of a row of labels is the mean log loss over labels.

Candidates for wrong labels are those of confident learning for each label alone (Northcutt, Jiang and Chuang, JAIR
2021): a row confidently has a label if its probability is at least the mean probability of the rows labelled so, and
confidently lacks it in the same way. Candidates for wrong numbers have an error beyond three robust standard deviations
of all errors of the column (1.4826 times the median distance from the median), and every other model errs in the same
direction by at least half as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_SMALLEST = 1e-12
_ROUNDING = 1e-6
_DEVIATIONS = 3.0
_SHARED = 0.5

ERRORS = {
    "regression": "the mean over columns of the distance to the true value, in standard deviations of the true values",
    "multilabel": "the mean log loss over labels",
}
"""Kind of target -> what the error of a row is, as a phrase."""


@dataclass(frozen=True)
class Suspect:
    """A true value or label that may be wrong.

    Attributes:
        row: the row.
        part: the column or label.
        margin: how clear it is, larger is clearer: the distance in robust standard deviations, or the probability of
            the other answer less that of the label.
    """

    row: int
    part: int
    margin: float


def row_errors(kind: str, target: Floats, outputs: Floats) -> Floats:
    """Return the error of each row, (n,), of true values and outputs (n, C)."""
    if kind == "regression":
        errors: Floats = (np.abs(outputs - target) / _deviations(target)).mean(axis=1)
        return errors
    true = np.where(target > 0.5, outputs, 1 - outputs)
    losses: Floats = -np.log(np.maximum(true, _SMALLEST)).mean(axis=1)
    return losses


def find_suspects(kind: str, target: Floats, outputs: Floats, others: Sequence[Floats] = ()) -> list[Suspect]:
    """Return true values and labels that may be wrong, the clearest first.

    Args:
        kind: `regression` or `multilabel`.
        target: the true values, (n, C).
        outputs: the answers of a model that has not learned these rows, (n, C).
        others: the answers of other models, which must agree in their errors of numbers.
    """
    found = _of_numbers(target, outputs, others) if kind == "regression" else _of_labels(target, outputs)
    return sorted(found, key=lambda suspect: (-round(suspect.margin, 6), suspect.row, suspect.part))


def _deviations(target: Floats) -> Floats:
    deviations = target.std(axis=0)
    return np.where(deviations > 0, deviations, 1.0)


def _of_numbers(target: Floats, outputs: Floats, others: Sequence[Floats]) -> list[Suspect]:
    scale = _deviations(target)
    errors = (outputs - target) / scale
    centred = errors - np.median(errors, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(centred), axis=0), _SMALLEST)
    far = np.abs(centred) > _DEVIATIONS * spread
    for other in others:
        far &= ((other - target) / scale) * np.sign(errors) >= _SHARED * np.abs(errors)
    return [
        Suspect(row, part, float(abs(centred[row, part]) / spread[part])) for row, part in np.argwhere(far).tolist()
    ]


def _of_labels(target: Floats, outputs: Floats) -> list[Suspect]:
    found = []
    for part, (has, probs) in enumerate(zip(target.T > 0.5, outputs.T, strict=True)):
        if has.all() or not has.any():
            continue
        yes = probs >= probs[has].mean() - _ROUNDING
        no = 1 - probs >= (1 - probs)[~has].mean() - _ROUNDING
        named = np.where(yes & no, probs >= 0.5, yes)  # of two confident answers the more probable counts
        margins = np.where(has, 1 - 2 * probs, 2 * probs - 1)
        found += [
            Suspect(row, part, float(margins[row])) for row in np.flatnonzero((yes | no) & (named != has)).tolist()
        ]
    return found
