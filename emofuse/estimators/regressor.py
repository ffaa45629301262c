"""A fusion head as a regressor of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array

from emofuse.datasets.splits import ONE_STRATUM, cross_validation_folds
from emofuse.estimators.arrays import StreamArrays
from emofuse.estimators.base import FusionEstimator, checked_weights
from emofuse.specs import HeadSpec, TrainSpec
from emofuse.training.members import Fold


class FusionRegressor(RegressorMixin, FusionEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A fusion head that predicts one or several numbers, such as valence and arousal.

    X is as in `FusionClassifier`. The rows are dealt into folds; predictions are the mean of a head for each fold.
    Kernel ridge regression needs no folds: it chooses its penalty by exact leave-one-out and is solved once on all rows
    (`head={"kind": "kernel_ridge", "kernel": "linear"}` is ridge regression).

    Args:
        head: a kind of head (`concat`, `kernel_ridge`, ...), or a mapping with its kind and options as in a pipeline
            file, or a spec of `emofuse.specs`. Logistic heads give probabilities and are refused.
        train: the options of training as in a pipeline file, or a `TrainSpec`. Exact heads use `select` alone.
        loss: the mean squared error, or `ccc`: 1 - the concordance correlation coefficient (Lin 1989). Kernel ridge
            regression always has the squared error.
        folds: the number of folds, and so of heads whose predictions are averaged.
        pca: the principal components that heads see of each stream, fitted on the training rows of each fold: a share
            of the variance such as 0.95, or their number; for all streams, or stream -> one of these.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        random_state: the seed of the folds, the initial weights and the order of rows.

    Attributes:
        streams_: the names of the streams, in the order of their fusion.
        results_: the result of each head: its history and its best epoch.
    """

    def __init__(
        self,
        head: str | Mapping[str, Any] | HeadSpec = "kernel_ridge",
        train: Mapping[str, Any] | TrainSpec | None = None,
        *,
        loss: Literal["mse", "ccc"] = "mse",
        folds: int = 5,
        device: str = "auto",
        random_state: int = 0,
        pca: float | Mapping[str, float | int] | None = None,
    ) -> None:
        self.head = head
        self.train = train
        self.loss = loss
        self.folds = folds
        self.device = device
        self.random_state = random_state
        self.pca = pca

    def __sklearn_tags__(self) -> Any:
        """Return the tags by which scikit-learn knows that y may have several columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train the heads.

        Args:
            X: the features of n rows, see the class.
            y: the numbers (n,) or (n, C), finite, in any unit.
            groups: (n,) whom or what each row comes from; no group is divided between a head's training rows and the
                rows that choose its epoch.
            sample_weight: (n,) the weight of each row in the loss of training. Rows of weight 0 are left out; all
                others count alike where epochs and penalties are chosen.

        Raises:
            SpecError: a head or an option that does not exist, or that a regression cannot have.
            ValueError: arrays that do not fit each other.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        streams = self._read(X, y=y, first=True, multi_output=True, y_numeric=True)
        numbers = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self)
        if numbers.ndim not in {1, 2} or len(numbers) != len(streams):
            raise ValueError(f"X has {len(streams)} rows, so y must have shape (n,) or (n, C), got {numbers.shape}")
        weights = checked_weights(sample_weight, len(numbers))
        self._is_plain = numbers.ndim == 1
        streams, numbers, groups = streams.only(weights > 0), numbers[weights > 0], self._only(groups, weights > 0)
        values, weights = numbers.reshape(len(numbers), -1), weights[weights > 0]
        columns = [f"y{column}" for column in range(values.shape[1])]
        spec = self._spec({"kind": "regression", "columns": columns, "loss": self.loss})
        folds = self._make_folds(spec.head, groups, streams)
        labels = np.zeros(len(values), dtype=np.int64)
        table = streams.table(labels, len(columns), spec.target, values=values, weights=weights, groups=groups)
        self._train(spec, streams, table, folds)
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the numbers of rows in the unit of y: (n,) if y had one dimension, else (n, C)."""
        outputs = self._mean_outputs(X)
        return outputs[:, 0] if self._is_plain else outputs

    def _make_folds(self, head: HeadSpec, groups: Any, streams: StreamArrays) -> list[Fold]:
        rows = np.arange(len(streams), dtype=np.int64)
        pairs = [(rows, rows)]
        if head.kind != "kernel_ridge":
            if len(rows) < self.folds:
                raise ValueError(f"{self.folds} folds need as many rows, got n_samples = {len(rows)}")
            names = None if groups is None else [str(group) for group in np.asarray(groups).tolist()]
            if names is not None and len(set(names)) < self.folds:
                raise ValueError(f"{self.folds} folds need as many groups, got {len(set(names))}")
            strata = [ONE_STRATUM] * len(rows)
            dealt = np.array(cross_validation_folds(strata, self.folds, self.random_state, names))
            pairs = [(rows[dealt != fold], rows[dealt == fold]) for fold in range(self.folds)]
        pca = self._components(streams)
        return [Fold(train, val, streams.fit_scaling(train, pca)) for train, val in pairs]
