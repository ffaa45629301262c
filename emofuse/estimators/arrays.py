"""The X of an estimator as streams: which rows and steps are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from emofuse.scaling import Scaling, blocks_of, with_projections
from emofuse.specs import TargetSpec
from emofuse.training.members import FeatureTable


@dataclass(frozen=True)
class StreamArrays:
    """The streams of n rows.

    Attributes:
        arrays: stream -> (n, *shape) float32, zeros where a row or a step is missing.
        valid: stream -> (n,) bool, whether the row has the stream.
        steps: stream -> (n, T) bool of every sequence, whether the step is there.
    """

    arrays: dict[str, npt.NDArray[np.float32]]
    valid: dict[str, npt.NDArray[np.bool_]]
    steps: dict[str, npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, given: Mapping[str, Any], names: tuple[str, ...]) -> Self:
        """Find the rows and steps that are missing: those whose values are all NaN.

        Raises:
            ValueError: arrays that do not fit each other, or a row of which some values are not finite.
        """
        arrays = {name: np.array(given[name], dtype=np.float32) for name in names}
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"all streams of X need the same number of rows, got {counts}")
        valid, steps = {}, {}
        for name, array in arrays.items():
            if array.ndim not in {2, 3, 4, 5}:
                raise ValueError(f"X[{name!r}] must have 2 to 5 dimensions, rows first, got shape {array.shape}")
            missing = np.isnan(array)
            valid[name] = ~missing.reshape(len(array), -1).all(axis=1)
            if array.ndim in {3, 5}:
                steps[name] = ~missing.reshape(*array.shape[:2], -1).all(axis=2)
            gone = ~valid[name].reshape(-1, *[1] * (array.ndim - 1))
            if name in steps:
                gone = gone | ~steps[name].reshape(*array.shape[:2], *[1] * (array.ndim - 2))
            array[np.broadcast_to(gone, array.shape)] = 0
            bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
            if len(bad):
                raise ValueError(
                    f"X[{name!r}] has NaN or infinity in {len(bad)} rows, the first is row {bad[0]}. A row that lacks "
                    "the stream must be NaN as a whole"
                )
        return cls(arrays, valid, steps)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def only(self, rows: npt.NDArray[np.bool_]) -> Self:
        """Return the streams of some rows."""
        return type(self)(
            {name: array[rows] for name, array in self.arrays.items()},
            {name: array[rows] for name, array in self.valid.items()},
            {name: array[rows] for name, array in self.steps.items()},
        )

    def table(
        self,
        labels: npt.NDArray[np.int64],
        outputs: int,
        target: TargetSpec,
        *,
        weights: npt.NDArray[np.floating[Any]],
        values: npt.NDArray[np.floating[Any]] | None = None,
        groups: Any = None,
    ) -> FeatureTable:
        """Return the rows as the engine takes them.

        Args:
            labels: the classes (n,), or zeros.
            outputs: the number C of classes or columns.
            target: the kind of target and its loss.
            weights: the weights of rows (n,).
            values: the targets (n, C) of a regression.
            groups: (n,) whom or what each row comes from; None for rows of their own.
        """
        arrays, valid, steps = (
            {name: torch.from_numpy(array) for name, array in part.items()}
            for part in (self.arrays, self.valid, self.steps)
        )
        numbers = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
        return FeatureTable(
            arrays,
            valid,
            torch.from_numpy(labels),
            outputs,
            steps=steps,
            groups=None if numbers is None else torch.from_numpy(numbers),
            targets=None if values is None else torch.from_numpy(values.astype(np.float32)),
            weights=None if (weights == weights[0]).all() else torch.from_numpy(weights.astype(np.float32)),
            target=target,
        )

    def fit_scaling(
        self, rows: npt.NDArray[np.int64], pca: Mapping[str, float | int] | None = None
    ) -> dict[str, Scaling]:
        """Fit the standardisation, and the components where asked, of every stream on those of these rows that have it.

        Args:
            rows: the training rows.
            pca: stream -> the share of the variance, or the number of principal components.

        Raises:
            TrainingError: fewer rows than components.
        """
        fitted = {}
        for name, array in self.arrays.items():
            there, steps = rows[self.valid[name][rows]], self.steps.get(name)
            scaling = Scaling.fit(array, there, steps=steps)
            if name in (pca or {}):
                wanted = (pca or {})[name]
                (scaling,) = with_projections(
                    name,
                    [scaling],
                    partial(blocks_of, array),
                    [there],
                    wanted=wanted,
                    shape=array.shape[1:],
                    steps=steps,
                )
            fitted[name] = scaling
        return fitted
