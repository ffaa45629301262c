"""Scores of numbers, such as valence and arousal: agreement, correlation and error of each column.

Sources: Lin, Biometrics 1989 (concordance correlation coefficient); variances and covariances are those of the rows
(divided by n), as in the challenges on valence and arousal (Ringeval et al., AVEC 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emofuse.metrics import Metric
from emofuse.metrics.confusion import Floats, ratio
from emofuse.metrics.weighted import Rows, RowScorer, check_rows, every_row_once, mean_of_defined, weighted_means

SCORES = ("ccc", "pearson", "rmse", "mae")
_CONSTANT = 1e-13  # of the largest square: the variance of equal values differs from 0 in its last bits


def regression_scorer(target: Rows, outputs: Rows) -> RowScorer:
    """Return the function that scores the rows under weights, (b, n) -> (b, 4 + 4 C).

    The scores are the four means over columns, in the order of `SCORES`, and then the four scores of each column.

    - CCC is 2 cov / (var + var + (mean - mean)^2), 1 for perfect answers. It is undefined where the target is constant,
      and 0 where only the answers are.
    - Pearson's correlation is undefined where either is constant.
    - RMSE and MAE are in the unit of the column.

    The mean CCC is over the columns whose target varies, so it is over the same columns for every model. The mean
    correlation is over these columns too, and undefined if the answers of one of them are constant.

    Args:
        target: the true values, (n, C).
        outputs: the answers, (n, C).
    """
    true, answer = np.asarray(target, np.float64), np.asarray(outputs, np.float64)
    columns = true.shape[1]
    origin = true.mean(axis=0)  # differences from it keep the moments exact where values are far from 0
    shifted, answered = true - origin, answer - origin
    shifted[:, np.ptp(true, axis=0) == 0] = 0.0
    error = answer - true
    moments = np.concatenate(
        [shifted, answered, shifted**2, answered**2, shifted * answered, error**2, np.abs(error)], axis=1
    )
    least = _CONSTANT * np.square(shifted).max(axis=0), _CONSTANT * np.square(answered).max(axis=0)

    def score(weights: Floats) -> Floats:
        means = weighted_means(weights, moments).reshape(len(weights), 7, columns).transpose(1, 0, 2)
        mean, other_mean, square, other_square, product, squared_error, absolute_error = means
        variance, other_variance = square - mean**2, other_square - other_mean**2
        varies, other_varies = variance > least[0], other_variance > least[1]
        covariance = np.where(varies & other_varies, product - mean * other_mean, 0.0)
        ccc = ratio(2 * covariance, variance + other_variance + (mean - other_mean) ** 2, np.nan)
        pearson = ratio(covariance, np.sqrt(np.maximum(variance * other_variance, 0.0)), np.nan)
        ccc = np.where(varies, ccc, np.nan)
        pearson = np.where(varies & other_varies, np.clip(pearson, -1.0, 1.0), np.nan)
        rmse = np.sqrt(squared_error)
        means_over_columns = [
            mean_of_defined(ccc),
            np.where((varies & ~other_varies).any(axis=1), np.nan, mean_of_defined(pearson)),
            rmse.mean(axis=1),
            absolute_error.mean(axis=1),
        ]
        of_columns = np.stack([ccc, pearson, rmse, absolute_error], axis=-1).reshape(len(weights), -1)
        return np.concatenate([np.stack(means_over_columns, axis=1), of_columns], axis=1)

    return score


def regression_scores(target: Rows, outputs: Rows) -> dict[str, Floats]:
    """Return score -> float64 (1 + C,), the mean over columns and then each column; NaN where it is undefined.

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.
    """
    check_rows(target, outputs)
    scores = regression_scorer(target, outputs)(every_row_once(target))[0].reshape(-1, len(SCORES))
    return dict(zip(SCORES, scores.T, strict=True))


def _mean(name: str) -> Callable[[Rows, Rows], float]:
    def formula(target: Rows, outputs: Rows) -> float:
        return float(regression_scores(target, outputs)[name][0])

    return formula


CCC = Metric("ccc", "CCC", _mean("ccc"), target="regression")
PEARSON = Metric("pearson", "Pearson r", _mean("pearson"), target="regression")
RMSE = Metric("rmse", "RMSE", _mean("rmse"), target="regression", larger_is_better=False)
MAE = Metric("mae", "MAE", _mean("mae"), target="regression", larger_is_better=False)
