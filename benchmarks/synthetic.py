"""Make features of EmoSet-118K's shape with a planted signal, as plain arrays without files or a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.scaling import Scaling
from emofuse.training.members import FeatureTable, Fold

DIMS: Mapping[str, int] = {
    "lbp": 256,
    "landmarks": 1404,
    "action_units": 25,
    "places365": 2048,
    "objects": 30,
    "resnet50": 2048,
}
TRAIN_ROWS, VAL_ROWS, CLASSES = 94_481, 5_905, 8
LATENT = 16
SPREAD = 0.6
"""The deviation of the labels' means, in deviations within a label; it decides the accuracy that can be reached."""
PRIVATE = 0.9
"""The deviation of the noise of each stream on the latent values; it decides what several streams gain over one."""
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Synthetic:
    """A table and its plain split.

    Attributes:
        table: train rows first, then validation rows; float32, every row has every stream.
        train_rows: the number of training rows.
        scaling: stream -> its standardisation, fitted on the training rows.
    """

    table: FeatureTable
    train_rows: int
    scaling: Mapping[str, Scaling]

    @property
    def rows(self) -> int:
        """The number of rows of both parts."""
        return len(self.table.labels)

    @property
    def val(self) -> npt.NDArray[np.int64]:
        """The indices of all validation rows."""
        return np.arange(self.train_rows, self.rows)

    def fold(self, train: int, seed: int = 0) -> Fold:
        """Return a part of the training rows, drawn from the whole table, and the same share of validation rows.

        It serves measurements that cannot last a whole epoch: rows lie as far apart in memory as in a whole epoch, and
        validation takes the same share of the time.
        """
        rng = np.random.default_rng(seed)
        train = min(train, self.train_rows)
        val = max(CLASSES, round(len(self.val) * train / self.train_rows))
        return Fold(
            np.sort(rng.choice(self.train_rows, train, replace=False)),
            np.sort(rng.choice(self.val, val, replace=False)),
            self.scaling,
        )

    def folds(self, count: int, seed: int = 0) -> list[Fold]:
        """Return the folds of a cross-validation over all rows, with one scaling, since all rows are alike."""
        part = np.random.default_rng(seed).permutation(self.rows) % count
        return [Fold(np.flatnonzero(part != f), np.flatnonzero(part == f), self.scaling) for f in range(count)]


def make_synthetic(
    train_rows: int = TRAIN_ROWS, val_rows: int = VAL_ROWS, dims: Mapping[str, int] = DIMS, seed: int = 0
) -> Synthetic:
    """Draw a latent vector for each row, normal around its label's mean; each stream shows it through noise.

        latent = SPREAD mean[label] + N(0, 1)                      (N, 16)
        stream = (latent + PRIVATE N(0, 1)) A + N(0, 1) / 2        A (16, D), so that both parts weigh the same

    Labels overlap in the latent space, so that no head reaches an accuracy of 1 with any number of rows. Columns have
    mean 0 and a deviation of about 1: a plain loop may read them as they are.

    Args:
        train_rows: the rows of the training split.
        val_rows: the rows of the validation split.
        dims: stream -> D.
        seed: of all random numbers.
    """
    rng = np.random.default_rng(seed)
    rows = train_rows + val_rows
    labels = rng.integers(0, CLASSES, rows)
    means = SPREAD * rng.standard_normal((CLASSES, LATENT))
    latent = means[labels] + rng.standard_normal((rows, LATENT))
    features: dict[str, Tensor] = {}
    for stream, dim in dims.items():
        seen = (latent + PRIVATE * rng.standard_normal((rows, LATENT))).astype(np.float32)
        shown = rng.standard_normal((LATENT, dim), dtype=np.float32)
        shown /= np.float32(np.sqrt(2 * LATENT * (1 + PRIVATE**2)))
        values = rng.standard_normal((rows, dim), dtype=np.float32)
        values *= np.float32(np.sqrt(0.5))
        for start in range(0, rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            values[part] += seen[part] @ shown
        features[stream] = torch.from_numpy(values)
    table = FeatureTable(
        features,
        {stream: torch.ones(rows, dtype=torch.bool) for stream in dims},
        torch.from_numpy(labels),
        CLASSES,
    )
    fitted = np.arange(train_rows)
    scaling = {stream: Scaling.fit(tensor.numpy(), fitted) for stream, tensor in features.items()}
    return Synthetic(table, train_rows, scaling)
