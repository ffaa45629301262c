"""Solve exact heads: logistic regression and kernel ridge regression, for every penalty of a grid.

    rows of a fold, standardised -> features or kernel matrices, shared by all members of the fold -> every penalty
    -> the best one

`solve_group` has the inputs and outputs of `train_group`, so that runs, sweeps, folds, scores and predictions treat
exact heads like the others. A step of their history is a penalty, the strongest first, and not an epoch.

The penalty of a logistic regression is chosen on the validation rows, as the epoch of a trained head is. Averaged
logistic regressions have a penalty for each stream, and their history has one step. Kernel ridge regression needs no
validation rows: its penalty has the least loss of the exact leave-one-out predictions of the training rows, and so has
its temperature. The loss is the cross-entropy, of numbers the squared error.

Weights of rows are those of the objective, and of the leave-one-out loss; training rows with weight 0 are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.errors import TrainingError
from emofuse.heads.links import apply_link, invert_link
from emofuse.heads.members import key_of, stream_of
from emofuse.solvers.calibration import calibrate
from emofuse.solvers.kernels import StreamRows, weighted_sum
from emofuse.solvers.logistic import LogisticPath, solve_binary, solve_logistic
from emofuse.solvers.ridge import Spectrum, nystroem_map, penalty_grid
from emofuse.specs import EXACT_HEADS, AveragedLogisticHeadSpec, HeadSpec, KernelRidgeHeadSpec, LogisticHeadSpec
from emofuse.training.exact_rows import ExactRows
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member, MemberResult, check_group
from emofuse.training.side_by_side import stop_if_asked
from emofuse.training.streaming import Blocks

_LEAST_SHARE = 1e-6

OnStep = Callable[[int, Mapping[int, Mapping[str, Any]]], None]


def is_exact(head: HeadSpec) -> bool:
    """Return whether a head is solved and not trained."""
    return head.kind in EXACT_HEADS


def check_vectors(head: HeadSpec, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless all streams of an exact head are vectors.

    Raises:
        TrainingError: a sequence or a map.
    """
    other = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) > 1]
    if other:
        raise TrainingError(
            f"a {head.kind} head takes vectors alone, got {', '.join(other)}. Take a head that is trained, which has "
            "stems for sequences and maps, or other streams"
        )


def solve_group(
    table: FeatureTable,
    folds: Sequence[Fold],
    members: Sequence[Member],
    machine: Machine,
    *,
    on_epoch: OnStep | None = None,
) -> list[MemberResult]:
    """Solve members with exact heads, fold by fold, so that members of one fold share its matrices.

    Args:
        table: rows and targets, in memory.
        folds: see `train_group`.
        members: K heads, of whose optimisation only `select` matters, `class_weights` of logistic heads, and
            `logit_adjustment` of kernel ridge regression.
        machine: the device of the products, which are in float64.
        on_epoch: called with the step and {index of a member: its entry} when the member is solved.

    Returns:
        The results, in the order of members.

    Raises:
        TrainingError: see `check_group`; or features that are not in memory.
    """
    check_group(table, folds, members)
    check_vectors(members[0].head, table.dims)
    features = table.features
    if isinstance(features, Blocks):
        raise TrainingError(
            "exact heads need their features in memory, and these are streamed. Give more memory (--memory-gb), take "
            "fewer streams, or train a head that is not exact"
        )
    results: dict[int, MemberResult] = {}
    ordered = sorted(range(len(members)), key=lambda index: members[index].fold)
    for fold, indices in groupby(ordered, key=lambda index: members[index].fold):
        rows = ExactRows(features, table, folds[fold], machine.device)
        for index in indices:
            stop_if_asked()
            member = members[index]
            if isinstance(member.head, KernelRidgeHeadSpec):
                results[index] = _kernel_ridge(rows, member, member.head)
            elif isinstance(member.head, LogisticHeadSpec):
                results[index] = _logistic(rows, member, member.head)
            elif isinstance(member.head, AveragedLogisticHeadSpec):
                results[index] = _averaged_logistic(rows, member, member.head)
            else:
                raise TrainingError(f"a head of kind {member.head.kind!r} is trained, not solved")
            if on_epoch is not None:
                for entry in results[index].history:
                    on_epoch(entry["epoch"], {index: entry})
    scales = [table.target_scale(folds[member.fold]) for member in members]
    return [replace(results[index], target_scale=scale) for index, scale in enumerate(scales)]


def _logistic(rows: ExactRows, member: Member, head: LogisticHeadSpec) -> MemberResult:
    """Solve one logistic regression on the features of all streams, at the penalty that is best on validation rows."""
    train, widths = _side_by_side(rows, member.streams, train=True)
    val, _ = _side_by_side(rows, member.streams, train=False)
    penalties = sorted(head.penalties, reverse=True)
    path = _solve_regression(rows, train, penalties, member)
    probs = [apply_link(rows.link, path.logits(part)) for part in (train, val)]
    history = [
        rows.history_entry(step, penalty, probs[0][step - 1], probs[1][step - 1])
        for step, penalty in enumerate(penalties, start=1)
    ]
    best = max(history, key=lambda entry: _score(entry, member.train.select))["epoch"]
    solved = path.weights[best - 1].T.float().cpu().numpy()
    weights: dict[str, npt.NDArray[Any]] = {"bias.weight": path.bias[best - 1].float().cpu().numpy()}
    start = 0
    for name in member.streams:
        dim, missing = widths[name]
        place = f"embeddings.{key_of(stream_of(name))}"
        weights[f"{place}.linear.weight"] = np.ascontiguousarray(solved[:, start : start + dim])
        weights[f"{place}.missing"] = solved[:, start + dim].copy() if missing else np.zeros(len(solved), np.float32)
        start += dim + missing
    return MemberResult(weights, history, best, len(history), "epochs")


def _solve_regression(
    rows: ExactRows, features: Tensor, penalties: Sequence[float], member: Member, chosen: Tensor | None = None
) -> LogisticPath:
    """Solve a logistic regression on the chosen training rows (all of them if None), or one for each of several labels.

    Args:
        rows: the rows of the fold.
        features: the features of the chosen rows, (n, D).
        penalties: the penalties to solve for.
        member: the member, whose class weights count.
        chosen: the chosen training rows, bool (n,).
    """
    targets, kind = rows.targets if chosen is None else rows.targets[chosen], member.train.class_weights
    if rows.target.kind == "multilabel":
        return solve_binary(features, targets, penalties, row_weights=rows.label_weights(kind, chosen))
    return solve_logistic(features, targets, penalties, row_weights=rows.weights(kind, chosen))


def _averaged_logistic(rows: ExactRows, member: Member, head: AveragedLogisticHeadSpec) -> MemberResult:
    """Solve one logistic regression for each stream, each at its own penalty, and average their probabilities."""
    shares = _shares(rows, member)
    nothing = invert_link(rows.link, shares.clamp(min=torch.finfo(torch.float32).tiny))
    weights: dict[str, npt.NDArray[Any]] = {"nothing.weight": nothing.float().cpu().numpy()}
    parts = {True: _Average.of(len(rows.train_labels), shares), False: _Average.of(len(rows.val_labels), shares)}
    chosen: dict[str, float] = {}
    for name in member.streams:
        train, val = rows.stream(name, train=True), rows.stream(name, train=False)
        penalties = sorted(head.penalties_of(stream_of(name)), reverse=True)
        best, place = len(penalties) // 2, f"embeddings.{key_of(stream_of(name))}"
        solved = train.features.new_zeros(train.features.shape[1], rows.classes)
        bias = train.features.new_zeros(rows.classes)
        if bool(train.valid.any()):
            path = _solve_regression(rows, train.features[train.valid], penalties, member, train.valid)
            best = _best_penalty(rows, val, apply_link(rows.link, path.logits(val.features[val.valid])), member)
            solved, bias = path.weights[best], path.bias[best]
            for part, stream in ((parts[True], train), (parts[False], val)):
                part.add(stream.valid, apply_link(rows.link, stream.features @ solved + bias))
        chosen[stream_of(name)] = penalties[best]
        weights[f"{place}.linear.weight"] = np.ascontiguousarray(solved.T.float().cpu().numpy())
        weights[f"{place}.bias.weight"] = bias.float().cpu().numpy()
    entry = {"epoch": 1, "penalties": chosen, **rows.scores(parts[True].probs(), parts[False].probs())}
    return MemberResult(weights, [entry], 1, 1, "epochs")


def _shares(rows: ExactRows, member: Member) -> Tensor:
    """Return the shares of the classes, or of each of several labels, (C,): the answer for a row without any stream."""
    kind = member.train.class_weights
    if rows.target.kind == "multilabel":
        weights = rows.label_weights(kind)
        shares = rows.targets.mean(dim=0) if weights is None else (weights * rows.targets).sum(0) / weights.sum(0)
        return shares.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
    weighted = rows.weights(kind)
    return rows.targets.mean(dim=0) if weighted is None else weighted @ rows.targets / weighted.sum()


def _best_penalty(rows: ExactRows, val: StreamRows, probs: Tensor, member: Member) -> int:
    """Return the place of the best of L penalties, from the probabilities (L, n, C) of the rows that have the stream.

    If no validation row has the stream, it is the middle one.
    """
    there = val.valid.cpu().numpy()
    if not there.any():
        return len(probs) // 2
    scores = [_score(rows.val_scores(each, there), member.train.select) for each in probs]
    return max(range(len(scores)), key=scores.__getitem__)


@dataclass
class _Average:
    """The mean of the probabilities of the streams that a row has; the shares of the classes for a row without any."""

    total: Tensor
    count: Tensor
    shares: Tensor

    @classmethod
    def of(cls, rows: int, shares: Tensor) -> _Average:
        return cls(shares.new_zeros(rows, len(shares)), shares.new_zeros(rows, 1), shares)

    def add(self, valid: Tensor, probs: Tensor) -> None:
        there = valid.to(probs.dtype).unsqueeze(1)
        self.total += there * probs
        self.count += there

    def probs(self) -> Tensor:
        return torch.where(self.count > 0, self.total / self.count.clamp(min=1), self.shares)


def _side_by_side(
    rows: ExactRows, streams: Sequence[str], *, train: bool
) -> tuple[Tensor, dict[str, tuple[int, bool]]]:
    """Return the features (n, D) of all streams, each with a column of its missing rows if training rows lack it."""
    parts: list[Tensor] = []
    widths: dict[str, tuple[int, bool]] = {}
    for name in streams:
        stream = rows.stream(name, train=train)
        lacked = not bool(rows.stream(name, train=True).valid.all())
        widths[name] = stream.features.shape[1], lacked
        parts.append(stream.features)
        if lacked:
            parts.append((~stream.valid).to(stream.features.dtype).unsqueeze(1))
    return torch.cat(parts, dim=1), widths


def _score(entry: Mapping[str, Any], select: str) -> tuple[float, float]:
    """Return what epochs are compared by: equal scores go to the lower loss, equal losses to the stronger penalty."""
    return (-entry["val_loss"] if select == "loss" else entry[f"val_{select}"], -entry["val_loss"])


@dataclass(frozen=True)
class _Ridge:
    """A solved kernel ridge regression: leave-one-out loss, temperature factor, coefficients (m, C), bias (C,)."""

    loss: float
    factor: float
    coefficients: Tensor
    bias: Tensor


def _kernel_ridge(rows: ExactRows, member: Member, head: KernelRidgeHeadSpec) -> MemberResult:
    """Solve kernel ridge regression on the targets, at the penalty with the least leave-one-out loss.

    Rows of one group are left out together. Logits are adjusted (`train.logit_adjustment`) after the choice.
    """
    kernels = {name: rows.kernel(name, head) for name in member.streams}
    train = weighted_sum({name: values for name, (_, values, _) in kernels.items()}, member.streams)
    val = weighted_sum({name: values for name, (_, _, values) in kernels.items()}, member.streams)
    supports, weights_of_rows = rows.supports(head), rows.sample_weights
    exact = train.shape[0] == train.shape[1]
    to_features = None if exact else nystroem_map(train[supports])
    features = train if to_features is None else train @ to_features
    spectrum = (
        Spectrum.from_kernel(train.clone(), weights_of_rows)
        if exact
        else Spectrum.from_features(features, weights_of_rows)
    )
    penalties = sorted(penalty_grid(spectrum, head.penalties), reverse=True)
    history, solved = [], []
    left_out = spectrum.leave_one_out(rows.targets, penalties, rows.groups)
    calibration = calibrate(rows.target.kind, left_out, rows.targets, rows.sample_weights)
    for step, (penalty, factor) in enumerate(zip(penalties, calibration.factors, strict=True)):
        coefficients, bias = spectrum.coefficients(rows.targets, penalty)
        if to_features is not None:
            coefficients = to_features @ coefficients
        coefficients = coefficients * calibration.slopes[step]
        bias = bias * calibration.slopes[step] + calibration.offsets[step]
        bias = bias - rows.logit_shift(member.train.logit_adjustment) / factor
        ridge = _Ridge(calibration.losses[step], factor, coefficients, bias)
        outputs = [
            apply_link(rows.link, ridge.factor * (part @ ridge.coefficients + ridge.bias)) for part in (train, val)
        ]
        history.append(rows.history_entry(step + 1, penalty, *outputs) | {"leave_one_out_loss": ridge.loss})
        solved.append(ridge)
    best = min(range(len(solved)), key=lambda index: solved[index].loss)
    chosen = solved[best]
    weights = {
        "coefficients": chosen.coefficients.float().cpu().numpy(),
        "bias": chosen.bias.float().cpu().numpy(),
        "factor": np.array(chosen.factor, dtype=np.float32),
    }
    for name, (kernel, _, _) in kernels.items():
        support = rows.stream(name, train=True).pick(supports)
        place = f"support.{key_of(stream_of(name))}"
        weights[f"{place}.features"] = support.features.float().cpu().numpy()
        weights[f"{place}.valid"] = support.valid.float().cpu().numpy()
        weights[f"{place}.gamma"] = np.array(kernel.gamma, dtype=np.float32)
        weights[f"{place}.scale"] = np.array(kernel.scale, dtype=np.float32)
    return MemberResult(weights, history, best + 1, len(history), "epochs")
