"""The standardised rows of one stream of a table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from emofuse.scaling import Scaling
from emofuse.solvers.kernels import StreamRows
from emofuse.training.members import FeatureTable


def stream_rows(
    table: FeatureTable,
    scaling: Scaling,
    name: str,
    rows: npt.NDArray[np.int64],
    dtype: npt.DTypeLike = np.float64,
) -> StreamRows:
    """Return a stream's rows standardised, (n, D); sequences and maps as their mean over time and place."""
    if not isinstance(table.features, Mapping):
        raise TypeError("features must be in memory")
    present = table.valid[name].numpy()[rows] & scaling.fitted
    steps = table.steps[name].numpy()[rows] if name in table.steps else None
    scaled = scaling.apply(table.features[name][torch.from_numpy(rows)].numpy(), present, steps)
    scaled = scaled.astype(dtype, copy=False)
    if scaled.ndim > 3:
        scaled = scaled.mean(axis=(-2, -1))
    if steps is not None:
        scaled = scaled.sum(axis=1) / np.maximum(steps.sum(axis=1), 1)[:, None]
    return StreamRows(torch.from_numpy(np.ascontiguousarray(scaled)), torch.from_numpy(present))
