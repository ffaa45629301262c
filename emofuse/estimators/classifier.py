"""A fusion head as a classifier of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from emofuse.datasets.splits import cross_validation_folds
from emofuse.estimators.arrays import StreamArrays
from emofuse.estimators.base import FusionEstimator, checked_weights
from emofuse.specs import HeadSpec, TrainSpec
from emofuse.training.members import Fold


class FusionClassifier(ClassifierMixin, FusionEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A fusion head over one or several streams of features.

    X is a mapping of stream names to arrays: vectors (n, D), sequences (n, T, D), maps (n, C, H, W) or sequences of
    maps (n, T, C, H, W). A row whose values are all NaN lacks that stream, and a step of a sequence whose values are
    all NaN is not there. A plain array (n, D) is one stream, and must be finite as scikit-learn's rules ask.

    The rows are dealt into folds, stratified by label. For each fold a head is trained on the other rows and its epoch
    or penalty chosen on the fold; predictions are the mean of these heads. Kernel ridge regression needs no folds: it
    chooses its penalty by exact leave-one-out and is solved once on all rows.

    Args:
        head: a kind of head (`concat`, `kernel_ridge`, `logistic`, ...), or a mapping with its kind and options as in a
            pipeline file, or a spec of `emofuse.specs`.
        train: the options of training as in a pipeline file, or a `TrainSpec`. Exact heads use `select` alone,
            and logistic ones `class_weights` too.
        folds: the number of folds, and so of heads whose predictions are averaged.
        pca: the principal components that heads see of each stream, fitted on the training rows of each fold: a share
            of the variance such as 0.95, or their number; for all streams, or stream -> one of these.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        random_state: the seed of the folds, the initial weights and the order of rows.

    Attributes:
        classes_: the labels, sorted (C,).
        streams_: the names of the streams, in the order of their fusion.
        results_: the result of each head: its history and its best epoch.
    """

    def __init__(
        self,
        head: str | Mapping[str, Any] | HeadSpec = "kernel_ridge",
        train: Mapping[str, Any] | TrainSpec | None = None,
        *,
        folds: int = 5,
        device: str = "auto",
        random_state: int = 0,
        pca: float | Mapping[str, float | int] | None = None,
    ) -> None:
        self.head = head
        self.train = train
        self.folds = folds
        self.device = device
        self.random_state = random_state
        self.pca = pca

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train the heads.

        Args:
            X: the features of n rows, see the class.
            y: the labels (n,), of any type.
            groups: (n,) whom or what each row comes from; no group is divided between a head's training rows and the
                rows that choose its epoch.
            sample_weight: (n,) the weight of each row in the loss of training. Rows of weight 0 are left out; all
                others count alike where epochs and penalties are chosen.

        Raises:
            SpecError: a head or an option that does not exist.
            ValueError: arrays that do not fit each other, or fewer than two labels.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        streams = self._read(X, y=y, first=True)
        labels = column_or_1d(np.asarray(y), warn=True)
        if len(labels) != len(streams):
            raise ValueError(f"X has {len(streams)} rows and y has {len(labels)}")
        check_classification_targets(labels)
        weights = checked_weights(sample_weight, len(labels))
        streams, labels, groups = streams.only(weights > 0), labels[weights > 0], self._only(groups, weights > 0)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only ({self.classes_[0]!r}), and a classifier needs at least two")
        spec = self._spec()
        folds = self._make_folds(spec.head, codes, groups, streams)
        weights = weights[weights > 0]
        table = streams.table(codes.astype(np.int64), len(self.classes_), spec.target, weights=weights, groups=groups)
        self._train(spec, streams, table, folds)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the probabilities (n, C) of rows, in the order of `classes_`."""
        mean = self._mean_outputs(X)
        probs: npt.NDArray[np.float64] = mean / mean.sum(axis=1, keepdims=True)
        return probs

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable label (n,) of each row."""
        probs = self.predict_proba(X)
        answers: npt.NDArray[Any] = self.classes_[probs.argmax(axis=1)]
        return answers

    def _make_folds(
        self, head: HeadSpec, codes: npt.NDArray[np.int64], groups: Any, streams: StreamArrays
    ) -> list[Fold]:
        rows = np.arange(len(codes), dtype=np.int64)
        if head.kind == "kernel_ridge":
            pairs = [(rows, rows)]
        elif groups is None:
            dealt = np.array(cross_validation_folds([str(code) for code in codes], self.folds, self.random_state))
            pairs = [(rows[dealt != fold], rows[dealt == fold]) for fold in range(self.folds)]
        else:
            split = StratifiedGroupKFold(self.folds, shuffle=True, random_state=self.random_state)
            pairs = [
                (train.astype(np.int64), val.astype(np.int64))
                for train, val in split.split(rows, codes, np.asarray(groups))
            ]
        pca = self._components(streams)
        return [Fold(train, val, streams.fit_scaling(train, pca)) for train, val in pairs]
