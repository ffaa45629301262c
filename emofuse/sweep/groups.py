"""The runs of a search and the groups in which they train: their digests, their plan, their training, their rows.

All functions work on `TrainingData`, which holds no label of a test row.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

import emofuse
from emofuse.specs import RunSpec, SweepSpec, digest
from emofuse.sweep.configurations import Configuration, runs_of
from emofuse.sweep.rows import RunRow
from emofuse.training.data import TrainingData
from emofuse.training.halving import Halving
from emofuse.training.machine import Machine
from emofuse.training.planning import HeadGroup, Plan, plan_runs
from emofuse.training.rates import Rates
from emofuse.training.together import USING_DATA, Trained, group_key, train_together

OnRows = Callable[[int, float], None]
"""A callback after each epoch: how many rows heads have learned from, and the epoch's share of estimated seconds."""


@dataclass(frozen=True)
class SearchedRun:
    """One run of a search.

    Attributes:
        configuration: the configuration that the run belongs to.
        spec: the run with its fold and seed.
        digest: the identity of the run. With successive halving it includes the bracket, because the other runs of the
            bracket decide whether this one continues.
    """

    configuration: Configuration
    spec: RunSpec
    digest: str


@dataclass(frozen=True)
class SearchGroup:
    """Runs that train together and whose rows are written together.

    Attributes:
        runs: the runs, in the order of the search.
        sweep: the name of the sweep.
        halving: the successive halving that ends the worst runs early, or None; with it, the runs are whole brackets.
        seconds: the estimated duration.
        memory_bytes: the memory that they take, with their features.
    """

    runs: tuple[SearchedRun, ...]
    sweep: str
    halving: Halving | None
    seconds: float
    memory_bytes: int = 0

    @property
    def digests(self) -> frozenset[str]:
        """The digests of the runs."""
        return frozenset(run.digest for run in self.runs)

    def only(self, digests: frozenset[str]) -> SearchGroup:
        """Return the group with the runs of these digests only; brackets stay whole."""
        if self.halving is None:
            kept = [run for run in self.runs if run.digest in digests]
        else:
            brackets = self.halving.brackets([run.spec for run in self.runs])
            members = [[index for runs in bracket for index in runs] for bracket in brackets]
            wanted = [indices for indices in members if any(self.runs[index].digest in digests for index in indices)]
            kept = [self.runs[index] for index in sorted(index for indices in wanted for index in indices)]
        seconds = self.seconds * len(kept) / len(self.runs)
        return SearchGroup(tuple(kept), self.sweep, self.halving, seconds, self.memory_bytes)


def searched_runs(data: TrainingData, configurations: Sequence[Configuration], spec: SweepSpec) -> list[SearchedRun]:
    """Return every run of these configurations; the runs of a configuration are neighbours.

    Raises:
        SpecError: a stream is not in the cache.
    """
    runs = [
        SearchedRun(configuration, run, data.digest(run))
        for configuration in configurations
        for run in runs_of(configuration, spec)
    ]
    halving = halving_of(spec)
    if halving is None:
        return runs
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(group_key(data, run.spec), []).append(index)
    for group in groups.values():
        for bracket in halving.brackets([runs[index].spec for index in group]):
            members = [group[place] for places in bracket for place in places]
            compared = digest({"halving": asdict(halving), "runs": [runs[index].digest for index in members]})
            for index in members:
                identity = digest({"run": runs[index].digest, "bracket": compared})
                runs[index] = replace(runs[index], digest=identity)
    return runs


def halving_of(spec: SweepSpec) -> Halving | None:
    """Return the successive halving of a sweep, or None."""
    return Halving.of(spec.halving, spec.select) if spec.halving else None


def plan_search(
    data: TrainingData, runs: Sequence[SearchedRun], spec: SweepSpec, machine: Machine, rates: Rates | None = None
) -> Plan:
    """Plan which runs train together.

    The plan is always made for all runs of a batch, so that a resumed sweep has the same groups as before.

    Args:
        data: the rows of the runs' split.
        runs: the runs of one batch of the search.
        spec: the sweep.
        machine: the device and the precision of training.
        rates: the measured speed of the machine, for the estimates.

    Raises:
        TrainingError: see `plan_runs`.
    """
    return plan_runs(data, [run.spec for run in runs], machine=machine, rates=rates, halving=halving_of(spec))


def planned_groups(plan: Plan, runs: Sequence[SearchedRun], spec: SweepSpec) -> list[SearchGroup]:
    """Return the groups of a plan of these runs."""
    return [
        SearchGroup(
            tuple(runs[index] for index in group.members),
            spec.name,
            halving_of(spec),
            group.seconds,
            group.memory_bytes,
        )
        for group in plan.groups
    ]


def only_missing(plan: Plan, runs: Sequence[SearchedRun], there: Collection[str]) -> Plan:
    """Return the part of a plan that is not trained yet, to be shown.

    Args:
        plan: the plan of these runs.
        runs: the runs of one batch of the search.
        there: the digests that have a row.
    """
    structures: dict[str, tuple[HeadGroup, ...]] = {}
    for title, groups in plan.structures.items():
        left = []
        for group in groups:
            members = tuple(index for index in group.members if runs[index].digest not in there)
            share = len(members) / len(group.members)
            if members:
                parameters = round(group.parameters * share)
                left.append(replace(group, members=members, parameters=parameters, seconds=group.seconds * share))
        if left:
            structures[title] = tuple(left)
    return replace(plan, structures=structures)


def train_rows(
    data: TrainingData, group: SearchGroup, machine: Machine, *, on_rows: OnRows | None = None
) -> list[RunRow]:
    """Train a group and return its rows.

    Args:
        data: the rows of the runs' split.
        group: the group.
        machine: the device and the precision of training.
        on_rows: a callback after each epoch.

    Raises:
        EmofuseError: see `train_together`.
    """
    specs = [run.spec for run in group.runs]
    with USING_DATA:
        learned = [len(data.folds(spec)[spec.fold.index if spec.fold else 0].train) for spec in specs]
    epochs = group.halving.expected_epochs(specs) if group.halving else [spec.train.epochs for spec in specs]
    in_all = sum(count * rows for count, rows in zip(epochs, learned, strict=True))

    def tell(_: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        if on_rows is not None:
            rows = sum(learned[index] for index in entries)
            on_rows(rows, group.seconds * rows / in_all)

    trained = train_together(data, specs, machine, halving=group.halving, on_epoch=tell)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    device = device_name(machine.device)
    return [
        _row(run, each, sweep=group.sweep, device=device, created=created)
        for run, each in zip(group.runs, trained, strict=True)
    ]


def device_name(device: torch.device) -> str:
    """Return `cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers of a run."""
    return {
        "emofuse": emofuse.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def _row(run: SearchedRun, trained: Trained, *, sweep: str, device: str, created: str) -> RunRow:
    result = trained.result
    best = result.history[result.best_epoch - 1] if result.best_epoch else {}
    return RunRow(
        digest=run.digest,
        configuration=run.configuration.key,
        name=run.configuration.name,
        settings=dict(run.configuration.settings),
        spec=run.spec.model_dump(mode="json"),
        fold=run.spec.fold.index if run.spec.fold else None,
        seed=run.spec.train.seed,
        val_macro_f1=best.get("val_macro_f1"),
        val_accuracy=best.get("val_accuracy"),
        val_ccc=best.get("val_ccc"),
        val_map=best.get("val_map"),
        val_loss=best.get("val_loss"),
        best_epoch=result.best_epoch,
        last_epoch=result.last_epoch,
        ended=result.ended,
        parameters=trained.parameters,
        seconds=trained.seconds,
        history=tuple(dict(entry) for entry in result.history),
        sweep=sweep,
        device=device,
        created=created,
        versions=versions(),
    )
