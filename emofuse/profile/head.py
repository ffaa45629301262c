"""Measures one head alone, in a fresh process: how long it takes to predict and to train, and with how much memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emofuse.errors import TrainingError
from emofuse.heads import make_head
from emofuse.heads.members import HeadBatch, HeadMember
from emofuse.heads.stems import Shape, shape_of
from emofuse.profile.counting import count_flops, module_cost
from emofuse.profile.figures import Epoch, HeadFigures, MeasuredCost, Timing
from emofuse.profile.fresh_process import begin_phase, peak_memory
from emofuse.profile.timing import Clock, Repeats, repeat_timed
from emofuse.scaling import Projection, Scaling, feature_axis
from emofuse.specs import RunSpec
from emofuse.training.engine import train_group
from emofuse.training.exact import is_exact, solve_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.streaming import Blocks, Window
from emofuse.training.targets import LINKS
from emofuse.training.validation import mean_outputs, predict_outputs

_CPU = torch.device("cpu")
_LEAST_EPOCHS = 3
_VAL_SHARE = 2 / 7
"""Validation rows for each training row, as in the paper's 70/20/10."""


@dataclass(frozen=True)
class HeadJob:
    """The options of the measurement of a head.

    Attributes:
        run: the configuration.
        dims: stream -> the shape of a row, D for a vector.
        classes: the number of labels C.
        cache: the cache whose rows train; None for synthetic rows.
        rows: the number of synthetic training rows.
        batches: the batch sizes of the latency, ascending.
        repeats: the number of timed calls, and of timed epochs, which have one epoch of warm-up.
        device: where the head is.
    """

    run: RunSpec
    dims: Mapping[str, Shape]
    classes: int
    cache: Path | None
    rows: int
    batches: Sequence[int]
    repeats: Repeats
    device: str


@dataclass(frozen=True)
class _TrainingInputs:
    """The arguments of the engine, and where the rows come from."""

    source: str
    table: FeatureTable
    folds: Sequence[Fold]
    members: Sequence[Member]
    window: Window | None

    @property
    def fold(self) -> Fold:
        return self.folds[self.members[0].fold]

    @property
    def table_bytes(self) -> int:
        features = self.table.features
        if isinstance(features, Blocks):  # as they would be in memory
            return 4 * len(self.table.labels) * sum(math.prod(shape) for shape in self.table.dims.values())
        return sum(tensor.nbytes for tensor in features.values())


class _EnoughEpochsError(Exception):
    """Ends a training once enough epochs were timed."""


def measure_head(job: HeadJob) -> HeadFigures:
    """Time the head on batches of features, then epochs of its training.

    Raises:
        EmofuseError: the cache cannot be read, or the run cannot be trained.
    """
    device = torch.device(job.device)
    start = peak_memory(device)
    begin_phase(device)
    latency = [_latency(job, batch, device) for batch in job.batches]
    inference = peak_memory(device)
    begin_phase(device)
    inputs = _inputs_from_cache(job, job.cache) if job.cache else _synthetic_inputs(job)
    exact = is_exact(job.run.head)
    epoch = (_time_solutions if exact else _time_epochs)(inputs, job.repeats, device)
    return HeadFigures(
        cost=count_head(job.run, job.dims, job.classes),
        train_flops_per_row=None if exact else count_training(job.run, job.dims, job.classes),
        latency=latency,
        epoch=epoch,
        start=start,
        inference=inference,
        training=peak_memory(device),
        table_bytes=inputs.table_bytes,
    )


def count_head(run: RunSpec, dims: Mapping[str, Shape], classes: int) -> MeasuredCost:
    """Count the parameters, bytes and operations of all heads of a run on one row with every stream and every step."""
    heads, batch = [head.eval() for head in new_heads(run, dims, classes, _CPU)], _noise(dims, 1, _CPU)
    return module_cost(heads, count_flops(lambda: [head(batch) for head in heads]))


def count_training(run: RunSpec, dims: Mapping[str, Shape], classes: int) -> int:
    """Count the operations of a training step for one of its rows: forward and backward, without the update.

    Those of an ensemble are of all its heads, though a head of folds does not learn from every row.
    """
    rows = run.train.batch_size
    (head, *others), batch = new_heads(run, dims, classes, _CPU), _noise(dims, rows, _CPU)
    parameters = tuple(head.parameters())
    # The late head's vector for rows without any stream gets no gradient, because every row has all streams.
    step = count_flops(lambda: torch.autograd.grad(head(batch).sum(), parameters, allow_unused=True))
    return (1 + len(others)) * step // rows


def new_heads(run: RunSpec, dims: Mapping[str, Shape], classes: int, device: torch.device) -> list[nn.Module]:
    """Return the heads of a run with initial weights; the numbers of heads that are solved are all ones."""
    return [_new_head(run, dims, classes, device) for _ in run.heads()]


def _new_head(run: RunSpec, dims: Mapping[str, Shape], classes: int, device: torch.device) -> nn.Module:
    head = make_head(run.head, [HeadMember(tuple(dims))], dims, classes, LINKS[run.target.kind])
    if is_exact(run.head):
        with torch.no_grad():
            for tensor in (*head.parameters(), *head.buffers()):
                if tensor.is_floating_point():
                    tensor.fill_(1.0)
    return head.to(device)


def _latency(job: HeadJob, batch: int, device: torch.device) -> Timing:
    heads = new_heads(job.run, job.dims, job.classes, device)
    rows, clock = _noise(job.dims, batch, device), Clock(device)

    def call(_: int) -> float:
        start = clock()
        mean_outputs([predict_outputs(head, rows, LINKS[job.run.target.kind])[0] for head in heads])
        return clock() - start

    return Timing.of(batch, repeat_timed(call, job.repeats, clock))


def _noise(dims: Mapping[str, Shape], rows: int, device: torch.device) -> HeadBatch:
    """Return rows of normal noise for one fold; each row has every stream and every step."""
    shapes = {name: shape_of(dim) for name, dim in dims.items()}
    return HeadBatch(
        {name: torch.randn(1, rows, *shape, device=device) for name, shape in shapes.items()},
        {name: torch.ones(1, rows, dtype=torch.bool, device=device) for name in shapes},
        {name: torch.ones(1, rows, shape[0], dtype=torch.bool, device=device) for name, shape in _sequences(shapes)},
    )


def _sequences(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the streams of shape (T, D) or (T, C, H, W)."""
    return [(name, shape) for name, shape in shapes.items() if len(shape) in {2, 4}]


def _inputs_from_cache(job: HeadJob, path: Path) -> _TrainingInputs:
    """Return the rows that a run of this configuration trains on."""
    from emofuse.cache.reader import open_cache
    from emofuse.training.data import TrainingData

    data = TrainingData.of_run(open_cache(path), job.run)
    heads = job.run.heads()
    members = [data.member(head) for head in heads]
    return _TrainingInputs(f"cache {path}", data.table(heads), data.scaled_folds(heads), members, data.window(job.run))


def _synthetic_inputs(job: HeadJob) -> _TrainingInputs:
    """Return the training rows that were asked for, and validation rows in proportion; labels take turns."""
    count = job.rows + max(1, round(_VAL_SHARE * job.rows))
    noise = _noise(job.dims, count, _CPU)
    features, valid, steps = (
        {name: tensor[0] for name, tensor in part.items()} for part in (noise.features, noise.valid, noise.steps)
    )
    labels, targets = _synthetic_targets(job, count)
    scaling = {name: unit_scaling(tuple(tensor.shape[1:])) for name, tensor in features.items()}
    heads, rows = job.run.heads(), np.arange(count)
    folds = [Fold(rows[: job.rows], rows[job.rows :], scaling)]
    if heads[0].fold is not None:
        dealt = rows % heads[0].fold.count
        folds = [Fold(rows[dealt != index], rows[dealt == index], scaling) for index in range(heads[0].fold.count)]
    members = [Member(tuple(job.dims), head.head, head.train, head.fold.index if head.fold else 0) for head in heads]
    table = FeatureTable(features, valid, labels, job.classes, steps=steps, targets=targets, target=job.run.target)
    return _TrainingInputs("synthetic", table, folds, members, None)


def _synthetic_targets(job: HeadJob, rows: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return labels that take turns, and for targets that are no class the values (n, C) that follow from them."""
    labels = torch.arange(rows) % job.classes
    match job.run.target.kind:
        case "class":
            return labels, None
        case "distribution":
            return labels, torch.eye(job.classes)[labels]
        case "regression":
            return torch.zeros_like(labels), torch.randn(rows, job.classes)
        case _:
            return torch.zeros_like(labels), (torch.randn(rows, job.classes) > 0).float()


def unit_scaling(shape: tuple[int, ...], pca: float | None = None) -> Scaling:
    """Return a scaling of rows of this shape that changes nothing but costs what others cost.

    Args:
        shape: the shape of a row.
        pca: the principal components that are kept. How many hold a share of the variance is known after a training
            alone, so that a share counts as all of them.
    """
    width = shape[feature_axis(shape)]
    projection = None
    if pca is not None:
        kept = pca if isinstance(pca, int) else width
        projection = replace(Projection.empty(width, kept), components=np.eye(kept, width, dtype=np.float32))
    limit = np.full(width, np.inf, np.float32)
    return Scaling(np.zeros(width, np.float32), np.ones(width, np.float32), limit, projection=projection)


def _time_epochs(inputs: _TrainingInputs, repeats: Repeats, device: torch.device) -> Epoch:
    """Train until enough epochs were timed: steps, validation and the copy of the best weights."""
    least = min(_LEAST_EPOCHS, repeats.most)
    limits = Repeats(most=repeats.most, least=least, seconds=repeats.seconds, warm_up=1)
    train = inputs.members[0].train.model_copy(update={"epochs": limits.warm_up + limits.most, "patience": None})
    changed = {"epochs": train.epochs, "patience": None}
    members = [replace(member, train=member.train.model_copy(update=changed)) for member in inputs.members]
    ends: list[float] = []

    def on_epoch(_: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        ends.append(time.perf_counter())  # the scores were copied from the device, so the epoch has finished
        if limits.enough(len(ends) - limits.warm_up, ends[-1] - ends[0]) or not entries:
            raise _EnoughEpochsError

    machine, window = Machine.of(device), inputs.window
    with suppress(_EnoughEpochsError):
        train_group(inputs.table, inputs.folds, members, machine, window=window, on_epoch=on_epoch)
    seconds = np.diff(ends)
    if not len(seconds):
        raise TrainingError(
            f"the training diverged in epoch {len(ends)} with learning_rate {train.learning_rate:g}, so that no epoch "
            "could be timed. Lower the learning rate"
        )
    return _epoch(inputs, train.batch_size, seconds.tolist())


def _time_solutions(inputs: _TrainingInputs, repeats: Repeats, device: torch.device) -> Epoch:
    """Solve an exact head several times; a solution takes all training rows at once and needs no epochs."""
    machine, clock = Machine.of(device), Clock(device)

    def solve(_: int) -> float:
        start = clock()
        solve_group(inputs.table, inputs.folds, inputs.members, machine)
        return clock() - start

    limits = Repeats(repeats.most, min(_LEAST_EPOCHS, repeats.most), repeats.seconds, warm_up=1)
    return _epoch(inputs, len(inputs.fold.train), repeat_timed(solve, limits, clock))


def _epoch(inputs: _TrainingInputs, batch_size: int, seconds: Sequence[float]) -> Epoch:
    median, p95 = np.percentile(seconds, [50, 95])
    return Epoch(
        source=inputs.source,
        train_rows=len(inputs.fold.train),
        val_rows=len(inputs.fold.val),
        batch_size=batch_size,
        repeats=len(seconds),
        median_s=float(median),
        p95_s=float(p95),
    )
