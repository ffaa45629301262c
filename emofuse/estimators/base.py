"""The part that the estimators share: options, folds, training, and the mean outputs of the heads of all folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from emofuse.estimators.arrays import StreamArrays
from emofuse.heads import load_head_weights
from emofuse.heads.links import Link
from emofuse.heads.members import variant_of
from emofuse.machine.devices import resolve_device
from emofuse.scaling import Scaling, feature_axis
from emofuse.specs import HeadSpec, RunSpec, TrainSpec, parse_spec
from emofuse.specs.pca import pca_problem
from emofuse.training.engine import train_group
from emofuse.training.exact import is_exact, solve_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member, MemberResult, ProjectedStream
from emofuse.training.targets import LINKS, TargetScale
from emofuse.training.trained import head_outputs

PLAIN = "features"
"""The name of the stream of a plain array."""


class _FoldHead(NamedTuple):
    """The head of a fold, with the standardisation of its features and of its targets."""

    head: nn.Module
    scaling: Mapping[str, Scaling]
    target_scale: TargetScale | None
    link: Link

    def outputs(self, streams: StreamArrays) -> npt.NDArray[np.float64]:
        """Return the outputs (n, C) of rows: probabilities, or numbers in their unit."""
        valid = {name: self.scaling[name].present(rows) for name, rows in streams.valid.items()}
        scaled = {
            name: self.scaling[name].apply(array, valid[name], streams.steps.get(name)).astype(np.float64)
            for name, array in streams.arrays.items()
        }
        outputs = head_outputs(self.head, scaled, valid, streams.steps, link=self.link).astype(np.float64)
        if self.target_scale is None:
            return outputs
        in_units: npt.NDArray[np.float64] = outputs * self.target_scale.scale + self.target_scale.center
        return in_units


class FusionEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The base of `FusionClassifier` and `FusionRegressor`; see there for its arguments and attributes."""

    head: str | Mapping[str, Any] | HeadSpec
    train: Mapping[str, Any] | TrainSpec | None
    folds: int
    device: str
    random_state: int
    pca: float | int | Mapping[str, float | int] | None

    def _components(self, streams: StreamArrays) -> dict[str, float | int]:
        """Return stream -> the share of the variance or the number of components, for streams that are projected.

        Raises:
            ValueError: a stream that X does not have, or a value that is neither.
        """
        if self.pca is None:
            return {}
        of_streams = self.pca if isinstance(self.pca, Mapping) else dict.fromkeys(streams.arrays, self.pca)
        unknown = [name for name in of_streams if name not in streams.arrays]
        if unknown:
            raise ValueError(f"pca: X has no stream {unknown[0]!r} (there are: {', '.join(streams.arrays)})")
        for name, value in of_streams.items():
            shape = streams.arrays[name].shape[1:]
            width = shape[feature_axis(shape)]
            fault = pca_problem(value)
            if fault is None and value > width:
                fault = f"{value} components of {width} features; ask for fewer"
            if fault:
                raise ValueError(f"pca of stream {name!r}: {fault}")
        return dict(of_streams)

    def _spec(self, target: Mapping[str, Any] | None = None) -> RunSpec:
        """Return the options as a run of one stream."""
        head = {"kind": self.head} if isinstance(self.head, str) else self.head
        given = self.train if isinstance(self.train, TrainSpec) else dict(self.train or {})
        train = given if isinstance(given, TrainSpec) else {"seed": self.random_state} | given
        plain = {
            "name": "estimator",
            "features": {"streams": [PLAIN]},
            "head": dict(head) if isinstance(head, Mapping) else head.model_dump(mode="json"),
            "train": train.model_dump(mode="json") if isinstance(train, TrainSpec) else train,
            **({"target": target} if target else {}),
        }
        return parse_spec(RunSpec, plain, type(self).__name__)

    def _read(self, given: Any, *, y: Any = None, first: bool, **checks: Any) -> StreamArrays:
        """Check X, and find the rows and steps that are missing.

        Args:
            given: the X.
            y: the y of a fit, which is checked with a plain array.
            first: whether X is that of a fit.
            checks: options of scikit-learn's check of y.
        """
        if issparse(given) or not isinstance(given, Mapping):  # a sparse DOK array is a mapping too
            checked = (
                validate_data(self, given, y, dtype=np.float32, ensure_min_samples=2, **checks)[0]
                if first and y is not None
                else validate_data(self, given, dtype=np.float32, reset=first)
            )
            given = {PLAIN: checked}
        elif not given:
            raise ValueError("X has no stream")
        if not first and set(given) != set(self.streams_):
            raise ValueError(f"X must have the streams {', '.join(self.streams_)}, got {', '.join(map(str, given))}")
        return StreamArrays.of(given, tuple(given) if first else self.streams_)

    def _only(self, groups: Any, rows: npt.NDArray[np.bool_]) -> Any:
        """Return the groups of some rows; None for none."""
        return None if groups is None else np.asarray(groups)[rows]

    def _train(self, spec: RunSpec, streams: StreamArrays, table: FeatureTable, folds: Sequence[Fold]) -> None:
        """Train a head for each fold, and keep what predictions need."""
        names = [{name: _name_in_group(name, fold.scaling[name]) for name in streams.arrays} for fold in folds]
        projected = {
            named[name]: ProjectedStream(name, projection.width)
            for fold, named in zip(folds, names, strict=True)
            for name in streams.arrays
            if (projection := fold.scaling[name].projection) is not None
        }
        table, shapes = replace(table, projected=projected), table.dims
        folds = [
            replace(fold, scaling=_scaling_of_group(fold.scaling, named, table))
            for fold, named in zip(folds, names, strict=True)
        ]
        members = [Member(tuple(named.values()), spec.head, spec.train, index) for index, named in enumerate(names)]
        machine = Machine.of(torch.device(resolve_device(self.device)))
        train = solve_group if is_exact(spec.head) else train_group
        self.results_: list[MemberResult] = train(table, folds, members, machine)
        diverged = [index for index, result in enumerate(self.results_) if not result.best_epoch]
        if diverged:
            raise ValueError(f"training diverged in fold {diverged[0]}: take a lower learning rate")
        self.streams_ = tuple(streams.arrays)
        link = LINKS[table.target.kind]
        self._heads = [
            _FoldHead(
                load_head_weights(
                    spec.head,
                    {name: fold.scaling[name].shape_of_rows(shape) for name, shape in shapes.items()},
                    table.classes,
                    result.weights,
                    link,
                ).double(),
                fold.scaling,
                result.target_scale,
                link,
            )
            for fold, result in zip(folds, self.results_, strict=True)
        ]

    def _mean_outputs(self, given: Any) -> npt.NDArray[np.float64]:
        """Return the mean of the outputs (n, C) of all heads."""
        check_is_fitted(self, "results_")
        streams = self._read(given, first=False)
        mean: npt.NDArray[np.float64] = np.mean([head.outputs(streams) for head in self._heads], axis=0)
        return mean


def _name_in_group(stream: str, scaling: Scaling) -> str:
    """Return the name of a stream in the group of all folds: folds with other numbers of components see other ones."""
    return stream if scaling.projection is None else variant_of(stream, "pca", scaling.projection.width)


def _scaling_of_group(
    scaling: Mapping[str, Scaling], names: Mapping[str, str], table: FeatureTable
) -> dict[str, Scaling]:
    """Return the scaling of a fold for all streams of the group, without a fit for those that the fold does not see."""
    unseen = {
        name: replace(scaling[stream.source], fitted=False, projection=None) for name, stream in table.projected.items()
    }
    return {**unseen, **scaling, **{names[name]: scaling[name] for name in names}}


def checked_weights(sample_weight: Any, rows: int) -> npt.NDArray[np.float64]:
    """Return the weights of rows (n,).

    Raises:
        ValueError: another number of weights than rows, a weight that is negative or not finite, or no weight above 0.
    """
    if sample_weight is None:
        return np.ones(rows)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.ndim == 0:
        weights = np.full(rows, float(weights))
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight must have shape ({rows},), as X has that many rows, got {weights.shape}")
    bad = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(bad):
        raise ValueError(f"sample_weight must be finite and not negative, got {weights[bad[0]]:g} in row {bad[0]}")
    if not weights.any():
        raise ValueError("sample_weight is zero in all rows; a weight must be above 0")
    return weights
