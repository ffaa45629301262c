"""Runs that train at the same time: searched ones and final ones alike, always on data that hides the test labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emofuse.errors import TrainingError
from emofuse.features import Scaling
from emofuse.heads import count_parameters
from emofuse.specs import KernelRidgeHeadSpec, RunSpec, canonical_json
from emofuse.training.data import TrainingData
from emofuse.training.engine import OnEpoch, train_group
from emofuse.training.exact import is_exact, solve_group
from emofuse.training.halving import Halving
from emofuse.training.machine import Machine
from emofuse.training.members import Outcome, group_key


@dataclass(frozen=True)
class Trained:
    """One run of a wave, trained.

    Attributes:
        spec: of the run.
        digest: see `TrainingData.digest`.
        outcome: weights under the names of a head on its own, history, best epoch, why it ended.
        scaling: stream -> its standardisation, fitted on the run's training rows.
        parameters: trainable ones.
        seconds: its share of the wave's wall time, by epochs.
    """

    spec: RunSpec
    digest: str
    outcome: Outcome
    scaling: Mapping[str, Scaling]
    parameters: int
    seconds: float


def train_wave(
    data: TrainingData,
    specs: Sequence[RunSpec],
    machine: Machine,
    *,
    halving: Halving | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[Trained]:
    """Trains runs that share head, batches and folds (`wave_key`), all at once.

    That a run diverges is no error here: its outcome says so.

    Args:
        data: of the runs' split.
        specs: of a wave of `plan_runs`; with `halving`, whole brackets.
        machine: where and how precisely.
        halving: lets the worst configurations of each bracket leave before their end.
        on_epoch: is given the epoch and {index into `specs`: the entry that its history got}.

    Returns:
        In the order of specs.

    Raises:
        SpecError: a stream that is not in the cache.
        CacheError: a stream that is not whole, or damaged.
        TrainingError: runs that cannot be trained as asked, or not together.
    """
    if not specs:
        return []
    check_together(data, specs)
    table = data.table(specs)
    folds = data.scaled_folds(specs)
    members = [data.member(spec) for spec in specs]
    started = time.perf_counter()
    if is_exact(specs[0].head):
        outcomes = solve_group(table, folds, members, machine, on_epoch=on_epoch)
    else:
        judge = halving.judge(specs) if halving else None
        window = data.window(specs[0])
        outcomes = train_group(table, folds, members, machine, window=window, on_epoch=on_epoch, judge=judge)
    seconds = time.perf_counter() - started
    epochs = sum(outcome.last_epoch for outcome in outcomes)
    return [
        Trained(
            spec=spec,
            digest=data.digest(spec),
            outcome=outcome,
            scaling=data.scaling(spec),
            parameters=_parameters(data, spec, outcome),
            seconds=seconds * outcome.last_epoch / epochs,
        )
        for spec, outcome in zip(specs, outcomes, strict=True)
    ]


def wave_key(data: TrainingData, spec: RunSpec) -> str:
    """What runs must share to train in one wave: shapes and batches, folds, baseline, and whether they are streamed.

    Streams, LBP bins, action units and all that `group_key` leaves open may differ.
    """
    window = data.window(spec)
    return canonical_json(
        {
            "group": group_key(data.member(spec)),
            "folds": [spec.fold.count, spec.fold.seed] if spec.fold else None,
            "rows_left_out": data.partition(spec)[1],
            "neutral_label": spec.features.neutral_label,
            "window": [window.block_rows, window.blocks] if window else None,
        }
    )


def parameters_of(data: TrainingData, spec: RunSpec) -> int:
    """Trainable parameters of a run's head."""
    dims = tuple(column.shape for column in data.columns.of(spec.features))
    return count_parameters(spec.head, dims, len(data.classes))


def _parameters(data: TrainingData, spec: RunSpec, outcome: Outcome) -> int:
    """Of a kernel head, coefficients and biases: how many support rows it has is known when it is solved."""
    if isinstance(spec.head, KernelRidgeHeadSpec):
        return sum(int(np.size(outcome.weights[name])) for name in ("coefficients", "bias"))
    return parameters_of(data, spec)


def check_together(data: TrainingData, specs: Sequence[RunSpec]) -> None:
    """Raises unless these runs can be one wave.

    Raises:
        TrainingError: they share not what they must.
    """
    first = wave_key(data, specs[0])
    other = next((spec for spec in specs if wave_key(data, spec) != first), None)
    if other is not None:
        raise TrainingError(
            f"runs {specs[0].name!r} and {other.name!r} cannot train in one wave: they differ in head sizes, batches, "
            "folds, neutral label or in whether their features fit the memory. Plan them first: plan_runs"
        )
