"""Scores of runs on resamples of their units, for scores that need more than a confusion matrix.

Numbers, several labels and distributions have no confusion matrix. Their scores count each row as often as its unit was
drawn (see `emofuse.metrics.weighted`), so that one pass over prepared rows scores many resamples at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.metrics.weighted import RowScorer
from emofuse.statistics.resampling import EXACT_FLOAT32, Resampled, Resampling, draw_units

_BATCH_BYTES = 2**27
_ARRAYS = 8  # of the size of the weights, which a scorer holds at once


@dataclass(frozen=True)
class ScoredRows:
    """The rows of one run, prepared for scoring.

    Attributes:
        unit: the unit of each row, int64 (n,), 0 <= unit < units. Rows of one unit are drawn together.
        scorer: the function that scores the rows under weights, (b, n) -> (b, M).
    """

    unit: npt.NDArray[np.int64]
    scorer: RowScorer


def resample_rows(runs: Sequence[ScoredRows], *, units: int, resampling: Resampling) -> Resampled:
    """Score many runs on the same resamples of their units, which are those of `resample_metrics`.

    A score is NaN where a resample does not define it, such as the average precision of a label that no drawn row has.

    Args:
        runs: the R >= 1 runs, with M scores each.
        units: the number of units to draw from.
        resampling: the number of resamples and the seed.

    Raises:
        ValueError: there is no run, a run has no rows, or a unit is out of range.
    """
    if not runs:
        raise ValueError("no run to resample")
    for place, run in enumerate(runs):
        if run.unit.ndim != 1 or len(run.unit) == 0 or run.unit.min() < 0 or run.unit.max() >= units:
            raise ValueError(f"run {place}: expected units (n,), n >= 1, between 0 and {units - 1}, got {run.unit}")
    observed = np.stack([run.scorer(np.ones((1, len(run.unit))))[0] for run in runs])
    drawn = np.empty((resampling.count, *observed.shape))
    batch = max(1, _BATCH_BYTES // (8 * _ARRAYS * max(units, *(len(run.unit) for run in runs))))
    largest = max(int(np.bincount(run.unit).max()) for run in runs)
    dtype = np.float32 if units * largest < EXACT_FLOAT32 else np.float64
    first = 0
    for counts in draw_units(units, resampling, batch, dtype):
        for place, run in enumerate(runs):
            drawn[first : first + len(counts), place] = run.scorer(counts[:, run.unit])
        first += len(counts)
    return Resampled(observed, drawn)
