"""In a fresh process: what one head takes, alone, to predict and to train."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emofuse.errors import TrainingError
from emofuse.features import Scaling
from emofuse.heads import make_head
from emofuse.heads.members import HeadBatch, HeadMember
from emofuse.profile.counting import count_flops, module_cost
from emofuse.profile.figures import Epoch, HeadFigures, MeasuredCost, Timing
from emofuse.profile.fresh_process import begin_phase, peak_memory
from emofuse.profile.timing import Clock, Repeats, repeat_timed
from emofuse.specs import RunSpec
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.streaming import Blocks, Window
from emofuse.training.validation import predict_probs

_CPU = torch.device("cpu")
_EPOCHS_AT_LEAST = 3
_VAL_SHARE = 2 / 7
"""Validation rows a training row: the paper's 70/20/10."""


@dataclass(frozen=True)
class HeadJob:
    """What to measure.

    Attributes:
        run: the configuration.
        dims: stream -> D.
        classes: C.
        cache: whose rows train; None for synthetic ones.
        rows: synthetic training rows.
        batches: sizes for the latency, ascending.
        repeats: of each call; of epochs too, of which there is a fixed warm-up of one.
        device: where the head is.
    """

    run: RunSpec
    dims: Mapping[str, int]
    classes: int
    cache: Path | None
    rows: int
    batches: Sequence[int]
    repeats: Repeats
    device: str


@dataclass(frozen=True)
class _TrainingInputs:
    """What the engine is given."""

    source: str
    table: FeatureTable
    folds: Sequence[Fold]
    member: Member
    window: Window | None

    @property
    def fold(self) -> Fold:
        return self.folds[self.member.fold]

    @property
    def table_bytes(self) -> int:
        features = self.table.features
        if isinstance(features, Blocks):  # as they would be in memory
            return 4 * len(self.table.labels) * sum(math.prod(shape) for shape in self.table.dims.values())
        return sum(tensor.nbytes for tensor in features.values())


class _EnoughError(Exception):
    """Ends a training of which enough epochs were timed."""


def measure_head(job: HeadJob) -> HeadFigures:
    """Times the head on batches of features, then epochs of its training.

    Raises:
        EmofuseError: the cache cannot be read, or the run not be trained.
    """
    device = torch.device(job.device)
    start = peak_memory(device)
    begin_phase(device)
    latency = [_latency(job, batch, device) for batch in job.batches]
    inference = peak_memory(device)
    begin_phase(device)
    training = _training_on_cache(job, job.cache) if job.cache else _training_on_noise(job)
    epoch = _time_epochs(training, job.repeats, device)
    return HeadFigures(
        cost=count_head(job.run, job.dims, job.classes),
        train_flops_per_row=count_training(job.run, job.dims, job.classes),
        latency=latency,
        epoch=epoch,
        start=start,
        inference=inference,
        training=peak_memory(device),
        table_bytes=training.table_bytes,
    )


def count_head(run: RunSpec, dims: Mapping[str, int], classes: int) -> MeasuredCost:
    """Parameters, bytes and operations of the head of a run, counted on one row that has every stream."""
    head, batch = _new_head(run, dims, classes, _CPU).eval(), _noise(dims, 1, _CPU)
    return module_cost([head], count_flops(lambda: head(batch)))


def count_training(run: RunSpec, dims: Mapping[str, int], classes: int) -> int:
    """Operations of a training step for one of its rows: forward and backward, without the update."""
    rows = run.train.batch_size
    head, batch = _new_head(run, dims, classes, _CPU), _noise(dims, rows, _CPU)
    parameters = tuple(head.parameters())
    # What no row uses has no gradient: the late head's vector for rows without any stream.
    step = count_flops(lambda: torch.autograd.grad(head(batch).sum(), parameters, allow_unused=True))
    return step // rows


def _new_head(run: RunSpec, dims: Mapping[str, int], classes: int, device: torch.device) -> nn.Module:
    return make_head(run.head, [HeadMember(tuple(dims))], dims, classes).to(device)


def _latency(job: HeadJob, batch: int, device: torch.device) -> Timing:
    head = _new_head(job.run, job.dims, job.classes, device)
    rows, clock = _noise(job.dims, batch, device), Clock(device)

    def call(_: int) -> float:
        start = clock()
        predict_probs(head, rows)
        return clock() - start

    return Timing.of(batch, repeat_timed(call, job.repeats, clock))


def _noise(dims: Mapping[str, int], rows: int, device: torch.device) -> HeadBatch:
    """Rows of normal noise that have every stream, for one fold."""
    features = {name: torch.randn(1, rows, dim, device=device) for name, dim in dims.items()}
    return HeadBatch(features, {name: torch.ones(1, rows, dtype=torch.bool, device=device) for name in dims})


def _training_on_cache(job: HeadJob, path: Path) -> _TrainingInputs:
    """The rows that a run of this configuration trains on."""
    from emofuse.cache.reader import open_cache
    from emofuse.training.data import TrainingData

    data = TrainingData.of(open_cache(path), job.run.split)
    folds, member = data.scaled_folds([job.run]), data.member(job.run)
    return _TrainingInputs(f"cache {path}", data.table([job.run]), folds, member, data.window(job.run))


def _training_on_noise(job: HeadJob) -> _TrainingInputs:
    """As many rows as asked for, and validation rows with them; every row has every stream, labels go round."""
    count = job.rows + max(1, round(_VAL_SHARE * job.rows))
    table = FeatureTable(
        features={name: torch.randn(count, dim) for name, dim in job.dims.items()},
        valid={name: torch.ones(count, dtype=torch.bool) for name in job.dims},
        labels=torch.arange(count) % job.classes,
        classes=job.classes,
    )
    scaling = {name: Scaling(np.zeros(dim, np.float32), np.ones(dim, np.float32)) for name, dim in job.dims.items()}
    fold = Fold(np.arange(job.rows), np.arange(job.rows, count), scaling)
    return _TrainingInputs("synthetic", table, [fold], Member(tuple(job.dims), job.run.head, job.run.train), None)


def _time_epochs(training: _TrainingInputs, repeats: Repeats, device: torch.device) -> Epoch:
    """Trains until enough epochs were timed: steps, validation and the copy of the best weights."""
    least = min(_EPOCHS_AT_LEAST, repeats.most)
    limits = Repeats(most=repeats.most, least=least, seconds=repeats.seconds, warm_up=1)
    train = training.member.train.model_copy(update={"epochs": limits.warm_up + limits.most, "patience": None})
    member = Member(training.member.streams, training.member.head, train, training.member.fold)
    ends: list[float] = []

    def on_epoch(_: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        ends.append(time.perf_counter())  # an epoch's scores were copied from the device: it has finished
        if limits.enough(len(ends) - limits.warm_up, ends[-1] - ends[0]) or not entries:
            raise _EnoughError

    machine, window = Machine.of(device), training.window
    with suppress(_EnoughError):
        train_group(training.table, training.folds, [member], machine, window=window, on_epoch=on_epoch)
    seconds = np.diff(ends)
    if not len(seconds):
        raise TrainingError(
            f"the training diverged in epoch {len(ends)} with learning_rate {train.learning_rate:g}, so that no epoch "
            "could be timed. Lower the learning rate"
        )
    median, p95 = np.percentile(seconds, [50, 95])
    return Epoch(
        source=training.source,
        train_rows=len(training.fold.train),
        val_rows=len(training.fold.val),
        batch_size=train.batch_size,
        repeats=len(seconds),
        median_s=float(median),
        p95_s=float(p95),
    )
