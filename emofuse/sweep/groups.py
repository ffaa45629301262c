"""Searched runs and the groups that they train in: identified, planned, trained on what may be seen, turned into rows.

Everything here works on `TrainingData`, which holds no test label.
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
from emofuse.training.together import Trained, group_key, train_together

OnRows = Callable[[int, float], None]
"""Is given, after each epoch, how many rows heads have learned from in it, and its share of the estimated seconds."""


@dataclass(frozen=True)
class SearchedRun:
    """One run of a search.

    Attributes:
        configuration: that it is one fold and seed of.
        spec: with its fold and seed.
        digest: what it is found again by; with successive halving that of its bracket too, for who goes on depends on
            whom it is compared with.
    """

    configuration: Configuration
    spec: RunSpec
    digest: str


@dataclass(frozen=True)
class SearchGroup:
    """Runs that train at the same time and whose rows are written at once.

    Attributes:
        runs: in the order of the search.
        sweep: name of the sweep.
        halving: lets the worst configurations leave before their end; the runs are whole brackets then.
        seconds: estimated.
    """

    runs: tuple[SearchedRun, ...]
    sweep: str
    halving: Halving | None
    seconds: float

    @property
    def digests(self) -> frozenset[str]:
        """Of its runs."""
        return frozenset(run.digest for run in self.runs)

    def only(self, digests: frozenset[str]) -> SearchGroup:
        """The same group with these of its runs; a bracket that one of them belongs to stays whole."""
        if self.halving is None:
            kept = [run for run in self.runs if run.digest in digests]
        else:
            brackets = self.halving.brackets([run.spec for run in self.runs])
            members = [[index for own in bracket for index in own] for bracket in brackets]
            wanted = [own for own in members if any(self.runs[index].digest in digests for index in own)]
            kept = [self.runs[index] for index in sorted(index for own in wanted for index in own)]
        seconds = self.seconds * len(kept) / len(self.runs)
        return SearchGroup(tuple(kept), self.sweep, self.halving, seconds)


def searched_runs(data: TrainingData, configurations: Sequence[Configuration], spec: SweepSpec) -> list[SearchedRun]:
    """Every run of these configurations, a configuration's runs side by side.

    Raises:
        SpecError: a stream that is not in the cache.
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
            members = [group[place] for own in bracket for place in own]
            compared = digest({"halving": asdict(halving), "runs": [runs[index].digest for index in members]})
            for index in members:
                identity = digest({"run": runs[index].digest, "bracket": compared})
                runs[index] = replace(runs[index], digest=identity)
    return runs


def halving_of(spec: SweepSpec) -> Halving | None:
    """How a sweep ends its worst configurations early, if it does."""
    return Halving.of(spec.halving, spec.select) if spec.halving else None


def plan_search(
    data: TrainingData, runs: Sequence[SearchedRun], spec: SweepSpec, machine: Machine, rates: Rates | None = None
) -> Plan:
    """What trains together; always asked of all runs of a batch, so that a resumed sweep is cut as before.

    Args:
        data: of the runs' split.
        runs: of one batch of the search.
        spec: of the sweep.
        machine: where they will train.
        rates: measured ones, for the estimates.

    Raises:
        TrainingError: as `plan_runs`.
    """
    return plan_runs(data, [run.spec for run in runs], machine=machine, rates=rates, halving=halving_of(spec))


def planned_groups(plan: Plan, runs: Sequence[SearchedRun], spec: SweepSpec) -> list[SearchGroup]:
    """The groups of a plan of these runs."""
    return [
        SearchGroup(tuple(runs[index] for index in group.members), spec.name, halving_of(spec), group.seconds)
        for group in plan.groups
    ]


def only_missing(plan: Plan, runs: Sequence[SearchedRun], there: Collection[str]) -> Plan:
    """What of a plan is still to be trained, for the eye.

    Args:
        plan: of these runs.
        runs: of one batch of the search.
        there: digests that have a row.
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
    """Trains a group and gives its rows.

    Args:
        data: of the runs' split.
        group: its runs.
        machine: where and how precisely.
        on_rows: follows it.

    Raises:
        EmofuseError: whatever `train_together` raises.
    """
    specs = [run.spec for run in group.runs]
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
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Of what decides the numbers of a run."""
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
