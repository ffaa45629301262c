"""Features of EmoSet-118K's shape with a planted signal, as plain arrays: nothing is read, nothing is cached."""

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
"""Deviation of the labels' means, in deviations within a label: sets the accuracy that can be reached."""
PRIVATE = 0.9
"""Deviation of what each stream adds of its own to the latent values: sets what several streams know above one."""
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Synthetic:
    """A table and its plain split.

    Attributes:
        table: train rows first, then validation rows; float32, every row has every stream.
        train_rows: how many train.
        scaling: stream -> standardisation, fitted on the training rows.
    """

    table: FeatureTable
    train_rows: int
    scaling: Mapping[str, Scaling]

    @property
    def rows(self) -> int:
        """Of both parts."""
        return len(self.table.labels)

    @property
    def val(self) -> npt.NDArray[np.int64]:
        """All validation rows."""
        return np.arange(self.train_rows, self.rows)

    def fold(self, train: int, seed: int = 0) -> Fold:
        """A part of the training rows, drawn at random from the whole table, with the same share of validation rows.

        A measurement that cannot last a whole epoch trains on these rows and scores on those: each row lies as far from
        the next as in a whole epoch, and validation takes the share of the time that it takes there.
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
        """Cross-validation over all rows. Rows are alike, so one scaling serves every fold."""
        part = np.random.default_rng(seed).permutation(self.rows) % count
        return [Fold(np.flatnonzero(part != f), np.flatnonzero(part == f), self.scaling) for f in range(count)]


def make_synthetic(
    train_rows: int = TRAIN_ROWS, val_rows: int = VAL_ROWS, dims: Mapping[str, int] = DIMS, seed: int = 0
) -> Synthetic:
    """A latent vector a row, normal around its label's mean; each stream shows it through noise of its own.

        latent = SPREAD mean[label] + N(0, 1)                      (N, 16)
        stream = (latent + PRIVATE N(0, 1)) A + N(0, 1) / 2        A (16, D), so that both parts weigh the same

    However many rows train, labels overlap in the latent space, so that no head reaches 1. Columns have mean 0 and
    deviation about 1: a plain loop may read them as they are.

    Args:
        train_rows: rows of the official training split.
        val_rows: of the validation split.
        dims: stream -> D.
        seed: of everything.
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
