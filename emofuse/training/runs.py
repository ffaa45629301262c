"""Final runs: trained together where they can be, scored on the test rows once, written one folder a run.

    specs -> found by digest | missing ones, planned -> groups -> train -> score -> write

The same run asked again is read, and one that diverged is not tried again. What trains sees `TrainingData`, which hides
the test labels; they are read when a group has been trained, by `emofuse.training.scoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emofuse.datasets.split_needs import USES
from emofuse.devices import resolve_device
from emofuse.errors import TrainingError
from emofuse.progress import step
from emofuse.results import RunRecord, read_record, rename_run, run_dir, write_run
from emofuse.specs import RunSpec, canonical_json
from emofuse.training.data import TrainingData, rows_digest
from emofuse.training.divergence import Divergence, divergence_path, read_divergence, write_divergence
from emofuse.training.engine import OnEpoch
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.planning import plan_runs
from emofuse.training.scoring import score_together, split_rows
from emofuse.training.tally import TrainingTally
from emofuse.training.together import train_together

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

OnRun = Callable[[int, RunRecord, bool], None]
OnTried = Callable[[int, RunRecord | Divergence, bool], None]


def train_run(
    cache: Cache,
    spec: RunSpec,
    runs: Path,
    *,
    device: str = "auto",
    memory_bytes: int | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> tuple[RunRecord, bool]:
    """One run: `train_runs` of one spec.

    Args:
        cache: where the features are.
        spec: the run.
        runs: folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: that training may use.
        on_epoch: is given {epoch, train_loss, val_loss, val_accuracy, val_macro_f1} after each epoch.

    Returns:
        The record, and whether it was trained by this call.

    Raises:
        EmofuseError: as `train_runs`.
    """

    def tell(_: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        if on_epoch is not None and entries:
            on_epoch(entries[0])

    (found,) = train_runs(cache, [spec], runs, device=device, memory_bytes=memory_bytes, on_epoch=tell)
    return found


def train_runs(
    cache: Cache,
    specs: Sequence[RunSpec],
    runs: Path,
    *,
    device: str = "auto",
    memory_bytes: int | None = None,
    on_run: OnRun | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[tuple[RunRecord, bool]]:
    """Trains runs and writes their folders, or finds them there.

    A run is found again by its digest, which its name is no part of: the same run under another name is not trained
    again, and its record takes the name asked for last. One that is known to diverge is an error again, untrained.

    Args:
        cache: where the features are.
        specs: the runs.
        runs: folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: that training may use; by default a share of what the device has.
        on_run: is given the index of a run, its record, and whether it was trained by this call: of those that are
            found first, then of those that were trained, group by group.
        on_epoch: is given the epoch and {index of a run that is in training: the entry that its history got}.

    Returns:
        For each spec its record, and whether it was trained by this call.

    Raises:
        SpecError: a stream that is not in the cache.
        IncompleteCacheError: a stream that has not been built to its end.
        TrainingError: runs that cannot be trained as asked. Of runs that diverge, after all others have been written.
        ResultsError: a folder that is there is damaged.
    """

    def tell(index: int, result: RunRecord | Divergence, trained_now: bool) -> None:
        if on_run is not None and isinstance(result, RunRecord):
            on_run(index, result, trained_now)

    tried = try_runs(cache, specs, runs, device=device, memory_bytes=memory_bytes, on_run=tell, on_epoch=on_epoch)
    found = [(result, trained_now) for result, trained_now in tried if isinstance(result, RunRecord)]
    if len(found) < len(tried):
        raise TrainingError(" | ".join(_faults(tried, runs)))
    return found


def try_runs(
    cache: Cache,
    specs: Sequence[RunSpec],
    runs: Path,
    *,
    device: str = "auto",
    memory_bytes: int | None = None,
    on_run: OnTried | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[tuple[RunRecord | Divergence, bool]]:
    """`train_runs` for whom a run that diverges is a result like others, not an error.

    Args:
        cache: see `train_runs`, as all that follow.
        specs: the runs.
        runs: folder of all runs; what diverged is remembered there too.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: that training may use.
        on_run: is given those that diverged as well.
        on_epoch: follows those in training.

    Returns:
        For each spec its record, or that it diverged; and whether it was trained by this call.

    Raises:
        EmofuseError: as `train_runs`, but not of runs that diverge.
    """
    where = torch.device(resolve_device(device))
    training = _Training(cache, runs, Machine.of(where), on_run, on_epoch)
    identified = _identify(cache, specs, memory_bytes or default_memory_bytes(where))
    missing: list[_Identified] = []
    for run in identified:
        if not training.find(run) and run.digest not in {other.digest for other in missing}:
            missing.append(run)
    training.train(missing)
    for run in identified:  # the same run under a second name
        if run.index not in training.found:
            training.find(run)
    return [training.found[run.index] for run in identified]


def _faults(tried: Sequence[tuple[RunRecord | Divergence, bool]], runs: Path) -> list[str]:
    """What to say of those that diverged; of one that was not trained now, how to try it again."""
    faults = []
    for result, trained_now in tried:
        if isinstance(result, Divergence):
            known = f" (known from before; to try it again, delete {divergence_path(runs, result.digest)})"
            faults.append(f"{result}{known * (not trained_now)}")
    return faults


@dataclass(frozen=True)
class _Identified:
    """A run, the rows of its split, and the digest by which it is found."""

    index: int
    spec: RunSpec
    data: TrainingData
    digest: str

    @property
    def train_rows(self) -> int:
        """Rows that it learns from in an epoch."""
        return len(self.data.folds(self.spec)[self.spec.fold.index if self.spec.fold else 0].train)


def _identify(cache: Cache, specs: Sequence[RunSpec], memory_bytes: int) -> list[_Identified]:
    """In the order of specs. Runs of one split share its rows, all runs the features that are read."""
    splits: dict[str, tuple[TrainingData, str]] = {}
    identified = []
    for index, spec in enumerate(specs):
        key = canonical_json(spec.split.model_dump(mode="json"))
        if key not in splits:
            features = next((data.features for data, _ in splits.values()), None)
            data = TrainingData.of(cache, spec.split, memory_bytes=memory_bytes, features=features)
            splits[key] = data, rows_digest(cache, data.splits, cache.labels)
        data, rows = splits[key]
        identified.append(_Identified(index, spec, data, data.digest(spec, rows=rows)))
    return identified


class _Training:
    """One call of `try_runs`.

    Attributes:
        found: index of a run -> its record, or that it diverged; and whether it was trained by this call.
    """

    def __init__(
        self, cache: Cache, runs: Path, machine: Machine, on_run: OnTried | None, on_epoch: OnEpoch | None
    ) -> None:
        self.found: dict[int, tuple[RunRecord | Divergence, bool]] = {}
        self._cache = cache
        self._runs = runs
        self._machine = machine
        self._on_run = on_run
        self._on_epoch = on_epoch

    def find(self, run: _Identified) -> bool:
        """Whether the run is there already, or known to diverge; then it has the name that was asked for."""
        folder = run_dir(self._runs, run.digest)
        if not (folder / "run.json").is_file():
            known = read_divergence(self._runs, run.digest)
            if known is not None:
                self._take(run, replace(known, spec=run.spec.model_dump(mode="json")), trained=False)
            return known is not None
        record = read_record(folder)
        self._take(run, record if record.name == run.spec.name else rename_run(folder, run.spec.name), trained=False)
        return True

    def train(self, runs: Sequence[_Identified]) -> None:
        """Trains, scores and writes runs of any splits and shapes, all of which differ; first checks and plans all."""
        groups: list[tuple[list[_Identified], float]] = []
        for data in dict.fromkeys(run.data for run in runs):
            own = [run for run in runs if run.data is data]
            self._check_splits(data, own)
            for variant in data.all_variants([run.spec for run in own]):
                data.features.status(variant)  # raises for a stream that has not been built to its end
            with step("planning"):
                plan = plan_runs(data, [run.spec for run in own], machine=self._machine)
            groups += [([own[index] for index in group.members], group.seconds) for group in plan.groups]
        tally = TrainingTally(len(self.found), [run.spec for run in runs], sum(seconds for _, seconds in groups))
        for group, seconds in groups:
            tally.start([run.spec for run in group], [run.train_rows for run in group], seconds)
            self._train_group(group[0].data, group, tally)
            tally.finish()

    def _train_group(self, data: TrainingData, runs: Sequence[_Identified], tally: TrainingTally) -> None:
        def tell(epoch: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
            tally.learn(epoch, entries)
            if self._on_epoch is not None:
                self._on_epoch(epoch, {runs[index].index: entry for index, entry in entries.items()})

        group = train_together(data, [run.spec for run in runs], self._machine, on_epoch=tell)
        for run, trained in zip(runs, group, strict=True):
            if trained.result.ended == "diverged":
                divergence = self._divergence(run, trained.result.last_epoch)
                write_divergence(self._runs, divergence)
                self._take(run, divergence, trained=True)
        finished = [
            (run, trained) for run, trained in zip(runs, group, strict=True) if trained.result.ended != "diverged"
        ]
        digests = [run.digest for run, _ in finished]
        with step("scoring", len(finished), "runs") as advance:
            scored = score_together(
                self._cache, data, [trained for _, trained in finished], digests, self._machine.device
            )
            for number, ((run, _), of_run) in enumerate(zip(finished, scored, strict=True), start=1):
                write_run(self._runs, of_run.record, of_run.predictions, of_run.arrays)
                self._take(run, of_run.record, trained=True)
                advance(number, len(finished))

    def _take(self, run: _Identified, result: RunRecord | Divergence, *, trained: bool) -> None:
        self.found[run.index] = result, trained
        if self._on_run is not None:
            self._on_run(run.index, result, trained)

    def _divergence(self, run: _Identified, epoch: int) -> Divergence:
        return Divergence(
            digest=run.digest,
            spec=run.spec.model_dump(mode="json"),
            epoch=epoch,
            device=str(self._machine.device),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _check_splits(self, data: TrainingData, runs: Sequence[_Identified]) -> None:
        """Raises if there are splits without a row that can be used; all that lack are named together."""
        lacking, labelled = {}, {}
        for spec in {data.partition(run.spec): run.spec for run in runs}.values():
            for split, reason in USES.items():
                if spec.fold and split != "test":  # folds are made of both, and have a check of their own
                    continue
                if not len(split_rows(self._cache, data, spec, split)):
                    lacking[split] = reason
                    labelled[split] = int(((data.splits == split) & (self._cache.labels >= 0)).sum())
        data.check_splits(lacking, labelled)
