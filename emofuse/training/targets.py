"""The targets of rows as the engine reads them, and what a kind of target means for outputs.

class         labels (N,)                softmax    probabilities of C classes
distribution  values (N, C) that sum to 1  softmax    probabilities of C classes; the label is the majority
regression    values (N, C), any unit    identity   values of C columns; heads learn them standardised
multilabel    values (N, C), 0 or 1      sigmoid    probabilities of C labels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from emofuse.heads.links import Link
from emofuse.heads.members import Members
from emofuse.specs.targets import ClassTarget

LINKS: dict[str, Link] = {
    "class": "softmax",
    "distribution": "softmax",
    "regression": "identity",
    "multilabel": "sigmoid",
}
"""Kind of a target -> the link of its heads."""

THE_LABEL = ClassTarget()
"""The target of a run that names none: the label of the manifest."""

WITH_CLASSES = ("class", "distribution")
"""The kinds of targets whose rows have a label: their class, or the majority of their distribution."""


@dataclass(frozen=True)
class RowTargets:
    """The targets of the rows of a step, for each of F folds or K heads.

    Attributes:
        labels: the classes, int64 (F, B); 0 in every row of a regression and of several labels.
        values: the targets as heads learn them (of a regression standardised by the fold), (F, B, C); None for classes.
        weights: the weights of the rows, (F, B), whose mean over the training rows of a fold is 1; None for equal ones.
    """

    labels: Tensor
    values: Tensor | None = None
    weights: Tensor | None = None

    def true_values(self) -> Tensor:
        """Return the targets that are no class, (F, B, C)."""
        if self.values is None:
            raise RuntimeError("rows of classes have no values")
        return self.values

    def of_members(self, members: Members) -> RowTargets:
        """Return the targets of the fold of each member, (K, B), of (F, B)."""
        return RowTargets(
            members.of_folds(self.labels),
            None if self.values is None else members.of_folds(self.values),
            None if self.weights is None else members.of_folds(self.weights),
        )

    def of_partners(self, partners: Tensor) -> RowTargets:
        """Return the targets of the rows with these indices, int64 (K, B), for each head."""
        values = self.values
        if values is not None:
            values = values.gather(1, partners.unsqueeze(2).expand_as(values))
        weights = None if self.weights is None else self.weights.gather(1, partners)
        return RowTargets(self.labels.gather(1, partners), values, weights)


@dataclass(frozen=True)
class TargetScale:
    """The standardisation of the columns of a regression, fitted on training rows alone.

    Attributes:
        center: the mean of each column, float32 (C,).
        scale: the population deviation of each column, float32 (C,), above 0.
    """

    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, values: npt.NDArray[np.floating[Any]]) -> Self:
        """Compute means and deviations in float64, of rows (n, C). A constant column has scale 1."""
        wide = values.astype(np.float64)
        deviation = wide.std(axis=0)
        deviation[wide.max(axis=0) == wide.min(axis=0)] = 1.0
        return cls(wide.mean(axis=0).astype(np.float32), deviation.astype(np.float32))

    @classmethod
    def saved(cls, arrays: Mapping[str, npt.NDArray[Any]], place: str) -> Self | None:
        """Return the standardisation of saved arrays whose names begin with `place`; None if there is none."""
        if f"{place}target.center" not in arrays:
            return None
        return cls(arrays[f"{place}target.center"], arrays[f"{place}target.scale"])

    def arrays(self, place: str) -> dict[str, npt.NDArray[np.float32]]:
        """Return the arrays to save, under names that begin with `place`."""
        return {f"{place}target.center": self.center, f"{place}target.scale": self.scale}


def in_units(outputs: npt.NDArray[np.float32], scale: TargetScale | None) -> npt.NDArray[np.float32]:
    """Return the outputs (..., C) of a head in the units of the columns; probabilities as they are."""
    return outputs if scale is None else outputs * scale.scale + scale.center
