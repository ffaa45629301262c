"""Train runs at the same time, those of a search and final ones alike, on data that hides the test labels."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emofuse.errors import TrainingError
from emofuse.heads import count_parameters
from emofuse.scaling import Scaling
from emofuse.specs import KernelRidgeHeadSpec, RunSpec, canonical_json
from emofuse.training.data import TrainingData
from emofuse.training.engine import OnEpoch, train_group
from emofuse.training.exact import is_exact, solve_group
from emofuse.training.halving import Halving
from emofuse.training.machine import Machine
from emofuse.training.members import MemberResult, structure_key

USING_DATA = threading.RLock()
"""Held by a thread that uses a `TrainingData`, where groups train side by side: it is made for one thread at a time."""


@dataclass(frozen=True)
class Trained:
    """A run of a group after its training.

    Attributes:
        spec: the run.
        digest: see `TrainingData.digest`.
        result: weights under the names of a head on its own, history, best epoch, why the training ended.
        scaling: stream -> its standardisation, fitted on the run's training rows.
        parameters: the number of trainable parameters.
        seconds: its share of the group's wall time, by epochs.
        group: the heads that trained at the same time, itself among them, and the group's wall time; None for a head
            that an interrupted call has kept.
    """

    spec: RunSpec
    digest: str
    result: MemberResult
    scaling: Mapping[str, Scaling]
    parameters: int
    seconds: float
    group: tuple[int, float] | None = None


def train_together(
    data: TrainingData,
    specs: Sequence[RunSpec],
    machine: Machine,
    *,
    halving: Halving | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[Trained]:
    """Train runs that share head, batches and folds (`group_key`) as one group.

    A run that diverges is no error here; its result says that it did.

    Args:
        data: of the runs' split.
        specs: the runs of a group of `plan_runs`; with `halving`, whole brackets.
        machine: where and how precisely they train.
        halving: lets the worst configurations of each bracket leave before their end.
        on_epoch: called with the epoch and {index into `specs`: the entry added to its history}.

    Returns:
        The trained runs, in the order of specs.

    Raises:
        SpecError: a stream that is not in the cache.
        CacheError: a stream that is incomplete or damaged.
        TrainingError: runs that cannot be trained as asked, or not together.
    """
    if not specs:
        return []
    with USING_DATA:
        check_together(data, specs)
        table = data.table(specs)
        folds = data.scaled_folds(specs)
        members = [data.member(spec) for spec in specs]
    started = time.perf_counter()
    if is_exact(specs[0].head):
        results = solve_group(table, folds, members, machine, on_epoch=on_epoch)
    else:
        stop_rule = halving.stop_rule(specs) if halving else None
        window = data.window(specs[0])
        results = train_group(table, folds, members, machine, window=window, on_epoch=on_epoch, stop_rule=stop_rule)
    seconds = time.perf_counter() - started
    epochs, group = sum(result.last_epoch for result in results), (len(specs), seconds)
    with USING_DATA:
        return [
            trained_of(data, spec, result, seconds * result.last_epoch / epochs, group)
            for spec, result in zip(specs, results, strict=True)
        ]


def trained_of(
    data: TrainingData, spec: RunSpec, result: MemberResult, seconds: float, group: tuple[int, float] | None = None
) -> Trained:
    """Return a run after its training, whose result took these seconds; see `Trained` for its group."""
    return Trained(
        spec=spec,
        digest=data.digest(spec),
        result=result,
        scaling=data.scaling(spec),
        parameters=_parameters(data, spec, result),
        seconds=seconds,
        group=group,
    )


def group_key(data: TrainingData, spec: RunSpec) -> str:
    """Return what runs must share to train in one group: shapes, batches, folds, neutral label, window of streaming.

    Streams, LBP bins, action units and all that `structure_key` leaves out may differ. Runs that are streamed also
    share how classes are balanced, since they read the same blocks at the same time.
    """
    window = data.window(spec)
    return canonical_json(
        {
            "group": structure_key(data.member(spec)),
            "folds": spec.fold.partition.model_dump(mode="json") if spec.fold else None,
            "rows_left_out": data.partition(spec)[1],
            "refit": data.partition(spec)[2],
            "neutral_label": spec.features.neutral_label,
            "window": [window.block_rows, window.blocks, spec.train.balance] if window else None,
        }
    )


def parameters_of(data: TrainingData, spec: RunSpec) -> int:
    """Return the number of trainable parameters of a run's head."""
    dims = tuple(data.head_shapes(spec).values())
    return count_parameters(spec.head, dims, len(data.classes))


def _parameters(data: TrainingData, spec: RunSpec, result: MemberResult) -> int:
    """Return the number of parameters of a trained run; the support rows of a kernel head are known only afterwards."""
    if isinstance(spec.head, KernelRidgeHeadSpec):
        return sum(int(np.size(result.weights[name])) for name in ("coefficients", "bias"))
    return parameters_of(data, spec)


def check_together(data: TrainingData, specs: Sequence[RunSpec]) -> None:
    """Raise unless these runs can be one group.

    Raises:
        TrainingError: runs with different group keys.
    """
    first = group_key(data, specs[0])
    other = next((spec for spec in specs if group_key(data, spec) != first), None)
    if other is not None:
        raise TrainingError(
            f"runs {specs[0].name!r} and {other.name!r} cannot train in one group: they differ in head sizes, batches, "
            "folds, neutral label or in whether their features fit the memory. Plan them first: plan_runs"
        )
