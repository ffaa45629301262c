"""Answers of kernel ridge regressions on subsets of streams, by RBF kernels to a few hundred training rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emofuse.heads.links import apply_link
from emofuse.probe.results import AVERAGED, KERNEL_FUSION, Answers, Floats, ProbeOptions
from emofuse.probe.rows import stream_rows
from emofuse.progress import step
from emofuse.solvers.calibration import calibrate
from emofuse.solvers.kernels import Kernel, stream_kernel, weighted_sum
from emofuse.solvers.ridge import Spectrum, nystroem_map, penalty_grid
from emofuse.training.members import FeatureTable, Fold


def rbf_answers(
    table: FeatureTable,
    folds: Sequence[Fold],
    subsets: Sequence[tuple[str, ...]],
    options: ProbeOptions,
    sources: Mapping[str, str],
) -> Answers:
    """Return (subset, model) -> outputs (n, C) of the rows of all folds, one fold after another."""
    parts: dict[tuple[tuple[str, ...], str], list[Floats]] = {}
    total = len(folds) * len(subsets)
    with step("solving", total, "models") as advance:
        for number, fold in enumerate(folds):
            kernels = FoldKernels(table, fold, options, sources)
            alone: dict[str, Floats] = {}
            for place, subset in enumerate(subsets):
                outputs = kernels.solve(subset)
                parts.setdefault((subset, KERNEL_FUSION), []).append(outputs)
                if len(subset) == 1:
                    alone[subset[0]] = outputs
                else:
                    mean = np.mean([alone[name] for name in subset], axis=0)
                    parts.setdefault((subset, AVERAGED), []).append(mean)
                advance(number * len(subsets) + place + 1, total)
    return {key: np.concatenate(of_folds) for key, of_folds in parts.items()}


class FoldKernels:
    """The kernels of one fold, each stream's computed once for all subsets.

    Args:
        table: the rows.
        fold: the rows that are learned from and those that are answered.
        options: how many landmarks and penalties.
        sources: stream as it is looked at -> the name of its features.
    """

    def __init__(self, table: FeatureTable, fold: Fold, options: ProbeOptions, sources: Mapping[str, str]) -> None:
        self._penalties = options.penalties
        learned, weights = fold.train, table.row_weights(fold)
        if weights is not None:
            learned = learned[weights[learned] > 0]
        self._weights = None if weights is None else torch.from_numpy(weights[learned])
        labels = table.labels[torch.from_numpy(learned)]
        self._groups = None if table.groups is None else table.groups[torch.from_numpy(learned)]
        self._kind, self._link, self._scale = table.target.kind, table.link, table.target_scale(fold)
        self._targets = torch.nn.functional.one_hot(labels, table.classes).to(torch.float64)
        if table.targets is not None:
            self._targets = table.targets[torch.from_numpy(learned)].to(torch.float64)
        if self._scale is not None:
            center, scale = (torch.from_numpy(part).double() for part in (self._scale.center, self._scale.scale))
            self._targets = (self._targets - center) / scale
        landmarks = min(len(learned), options.landmarks)
        self._landmarks = torch.linspace(0, len(learned) - 1, landmarks, dtype=torch.float64).round().long()
        self._train: dict[str, Tensor] = {}
        self._val: dict[str, Tensor] = {}
        for name, source in sources.items():
            scaling = fold.scaling[name]
            train, val = (stream_rows(table, scaling, source, rows) for rows in (learned, fold.val))
            supports = train.pick(self._landmarks)
            best = math.inf
            for kind, factor in options.kernels:
                kernel = Kernel.fit(kind, train.features[train.valid], factor=factor)
                among, across = (stream_kernel(kernel, rows, supports) for rows in (train, val))
                loss = self._fit({name: among}, {name: across}, [name]).loss if len(options.kernels) > 1 else 0.0
                if loss < best:
                    best, self._train[name], self._val[name] = loss, among, across

    def solve(self, streams: Sequence[str]) -> Floats:
        """Return the outputs (v, C) of the rows to be answered, from the mean kernel of these streams."""
        return self.outputs(self.fit(streams).scores)

    def fit(self, streams: Sequence[str]) -> KernelFit:
        """Fit the mean kernel of these streams, with the penalty of the best leave-one-out predictions."""
        return self._fit(self._train, self._val, streams)

    def outputs(self, scores: Tensor) -> Floats:
        """Return the outputs (n, C) of calibrated scores: probabilities, or numbers in the units of the target."""
        outputs: Floats = apply_link(self._link, scores).numpy()
        return outputs if self._scale is None else outputs * self._scale.scale + self._scale.center

    @property
    def targets(self) -> Tensor:
        """The targets of the training rows, float64 (n, C): one-hot for classes, standardised numbers."""
        return self._targets

    def _fit(self, of_train: Mapping[str, Tensor], of_val: Mapping[str, Tensor], streams: Sequence[str]) -> KernelFit:
        train, val = weighted_sum(of_train, streams), weighted_sum(of_val, streams)
        to_features = nystroem_map(train[self._landmarks])
        spectrum = Spectrum.from_features(train @ to_features, self._weights)
        penalties = penalty_grid(spectrum, self._penalties)
        left_out = spectrum.leave_one_out(self._targets, penalties, self._groups)
        calibration = calibrate(self._kind, left_out, self._targets, self._weights)
        best = int(np.argmin(calibration.losses))
        coefficients, bias = spectrum.coefficients(self._targets, penalties[best])
        factor, slopes, offsets = calibration.factors[best], calibration.slopes[best], calibration.offsets[best]
        scores = val @ (to_features @ coefficients) + bias
        return KernelFit(
            factor * (slopes * left_out[best] + offsets),
            factor * (slopes * scores + offsets),
            calibration.losses[best],
        )


@dataclass(frozen=True)
class KernelFit:
    """The calibrated scores of one fit; their link gives outputs.

    Attributes:
        left_out: of the training rows, each by a fit to all others, float64 (n, C).
        scores: of the rows to be answered, float64 (v, C).
        loss: the loss of the left-out rows.
    """

    left_out: Tensor
    scores: Tensor
    loss: float
