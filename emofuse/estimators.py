"""Fusion heads as estimators of scikit-learn, for arrays of any origin: no cache, no YAML, no files.

    model = FusionClassifier(head="concat", train={"learning_rate": 3e-4})
    model.fit({"face": faces, "voice": voices}, labels, groups=speakers)
    model.predict_proba({"face": new_faces, "voice": new_voices})

Needs scikit-learn, which the extra `sklearn` brings. Heads are trained by the same engine as those of pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import nn

from emofuse.datasets.splits import cross_validation_folds
from emofuse.devices import resolve_device
from emofuse.heads import load_head_weights
from emofuse.scaling import Scaling
from emofuse.specs import HeadSpec, RunSpec, TrainSpec, parse_spec
from emofuse.training.engine import train_group
from emofuse.training.exact import is_exact, solve_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member, MemberResult
from emofuse.training.trained import head_outputs

_PLAIN = "features"


@dataclass(frozen=True)
class _Streams:
    """The streams of n rows.

    Attributes:
        arrays: stream -> (n, *shape) float32, zeros where a row or a step is missing.
        valid: stream -> (n,) bool, whether the row has the stream.
        steps: stream -> (n, T) bool of every sequence, whether the step is there.
    """

    arrays: dict[str, npt.NDArray[np.float32]]
    valid: dict[str, npt.NDArray[np.bool_]]
    steps: dict[str, npt.NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def table(self, labels: npt.NDArray[np.int64], classes: int) -> FeatureTable:
        """Return the rows as the engine takes them."""
        arrays, valid, steps = (
            {name: torch.from_numpy(array) for name, array in part.items()}
            for part in (self.arrays, self.valid, self.steps)
        )
        return FeatureTable(arrays, valid, torch.from_numpy(labels), classes, steps=steps)

    def fit_scaling(self, rows: npt.NDArray[np.int64]) -> dict[str, Scaling]:
        """Fit the standardisation of every stream on those of these rows that have it."""
        return {
            name: Scaling.fit(array, rows[self.valid[name][rows]], steps=self.steps.get(name))
            for name, array in self.arrays.items()
        }


class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
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
    ) -> None:
        self.head = head
        self.train = train
        self.folds = folds
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803
        """Train the heads.

        Args:
            X: the features of n rows, see the class.
            y: the labels (n,), of any type.
            groups: (n,) whom or what each row comes from; no group is divided between a head's training rows and the
                rows that choose its epoch.

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
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only ({self.classes_[0]!r}), and a classifier needs at least two")
        spec = self._spec()
        folds = self._make_folds(spec.head, codes, groups, streams)
        table = streams.table(codes.astype(np.int64), len(self.classes_))
        if groups is not None:
            _, numbers = np.unique(np.asarray(groups), return_inverse=True)
            table = replace(table, groups=torch.from_numpy(numbers.astype(np.int64)))
        members = [Member(tuple(streams.arrays), spec.head, spec.train, index) for index in range(len(folds))]
        machine = Machine.of(torch.device(resolve_device(self.device)))
        train = solve_group if is_exact(spec.head) else train_group
        self.results_: list[MemberResult] = train(table, folds, members, machine)
        diverged = [index for index, result in enumerate(self.results_) if not result.best_epoch]
        if diverged:
            raise ValueError(f"training diverged in fold {diverged[0]}: take a lower learning rate")
        self.streams_ = tuple(streams.arrays)
        self._scaling = [fold.scaling for fold in folds]
        self._heads: list[nn.Module] = [
            load_head_weights(spec.head, table.dims, len(self.classes_), result.weights).double()
            for result in self.results_
        ]
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the probabilities (n, C) of rows, in the order of `classes_`."""
        check_is_fitted(self, "results_")
        streams, parts = self._read(X, first=False), []
        for head, scaling in zip(self._heads, self._scaling, strict=True):
            valid = {name: scaling[name].present(rows) for name, rows in streams.valid.items()}
            scaled = {
                name: scaling[name].apply(array, valid[name], streams.steps.get(name)).astype(np.float64)
                for name, array in streams.arrays.items()
            }
            parts.append(head_outputs(head, scaled, valid, streams.steps).astype(np.float64))
        mean = np.mean(parts, axis=0)
        probs: npt.NDArray[np.float64] = mean / mean.sum(axis=1, keepdims=True)
        return probs

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable label (n,) of each row."""
        probs = self.predict_proba(X)
        answers: npt.NDArray[Any] = self.classes_[probs.argmax(axis=1)]
        return answers

    def _spec(self) -> RunSpec:
        head = {"kind": self.head} if isinstance(self.head, str) else self.head
        given = self.train if isinstance(self.train, TrainSpec) else dict(self.train or {})
        train = given if isinstance(given, TrainSpec) else {"seed": self.random_state} | given
        plain = {
            "name": "estimator",
            "features": {"streams": [_PLAIN]},
            "head": dict(head) if isinstance(head, Mapping) else head.model_dump(mode="json"),
            "train": train.model_dump(mode="json") if isinstance(train, TrainSpec) else train,
        }
        return parse_spec(RunSpec, plain, type(self).__name__)

    def _read(self, given: Any, *, y: Any = None, first: bool) -> _Streams:
        """Check X and find the rows and steps that are missing."""
        if issparse(given) or not isinstance(given, Mapping):  # a sparse DOK array is a mapping too
            checked = (
                validate_data(self, given, y, dtype=np.float32, ensure_min_samples=2)[0]
                if first and y is not None
                else validate_data(self, given, dtype=np.float32, reset=first)
            )
            given = {_PLAIN: checked}
        elif not given:
            raise ValueError("X has no stream")
        if not first and set(given) != set(self.streams_):
            raise ValueError(f"X must have the streams {', '.join(self.streams_)}, got {', '.join(map(str, given))}")
        names = tuple(given) if first else self.streams_
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
        return _Streams(arrays, valid, steps)

    def _make_folds(self, head: HeadSpec, codes: npt.NDArray[np.int64], groups: Any, streams: _Streams) -> list[Fold]:
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
        return [Fold(train, val, streams.fit_scaling(train)) for train, val in pairs]
