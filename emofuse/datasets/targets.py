"""The targets of runs: what heads learn of the rows of a manifest.

Training reads this module, which loads no package for tables; `target_reader` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emofuse.datasets.splits import ONE_STRATUM
from emofuse.specs.targets import TargetSpec

if TYPE_CHECKING:
    from emofuse.datasets.manifest import Manifest


@dataclass(frozen=True)
class Targets:
    """What heads learn of the N rows of a manifest.

    Attributes:
        kind: `class`, `distribution`, `regression` or `multilabel`.
        names: the names of the C outputs: the classes, or the columns.
        labels: (N,) int64: the index of the class, or 0 for rows with all columns of a regression or of several labels;
            -1 for rows without target.
        values: (N, C) float32, NaN in rows without target: shares of classes that sum to 1, numbers in the unit of
            their column, or 0 and 1; None for classes.
        weights: (N,) float32, the weights of rows in the loss of training, 0 in rows without target; None for equal
            weights.
        notes: what the user should know of the rows without target, one line each.
    """

    kind: str
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32] | None = None
    weights: npt.NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    @property
    def strata(self) -> list[str | None]:
        """The stratum of every row (N,) in drawn splits and folds, None for rows without target.

        It is the class of the row, and the same for all rows of a regression or of several labels.
        """
        strata = (*(self.names if self.kind in {"class", "distribution"} else (ONE_STRATUM,)), None)
        return [strata[label] for label in self.labels.tolist()]


def read_targets(manifest: Manifest, target: TargetSpec, weight_column: str | None = None) -> Targets:
    """Read the target and the weight of every row.

    A row has no target if a value that it needs is empty, or if all its votes are 0.

    Args:
        manifest: the manifest of N rows.
        target: what is learned.
        weight_column: the column of the weights.

    Raises:
        SpecError: a column that the manifest does not have, or that is no attribute of the dataset.
        DatasetError: a column whose values are not what the target needs; the message names the first such row.
    """
    from emofuse.datasets.target_reader import read

    return read(manifest, target, weight_column)
