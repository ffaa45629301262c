"""Train final runs, together where possible, score them once on the test rows, and write a folder for each run.

    specs -> read those that exist, by digest | plan the missing ones -> groups -> train -> score -> write

A run that exists is read, and one that diverged is not trained again. Training sees `TrainingData`, which hides the
test labels; `emofuse.training.scoring` reads them after the training of a group.
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
    """Train one run, as `train_runs` does.

    Args:
        cache: the cache of the features.
        spec: the run.
        runs: the folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: the memory that training may use.
        on_epoch: called with {epoch, train_loss, val_loss, val_accuracy, val_macro_f1} after each epoch.

    Returns:
        The record, and whether it was trained by this call.

    Raises:
        EmofuseError: as `train_runs`.
    """

    def of_run(_: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        if on_epoch is not None and entries:
            on_epoch(entries[0])

    (result,) = train_runs(cache, [spec], runs, device=device, memory_bytes=memory_bytes, on_epoch=of_run)
    return result


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
    """Train runs and write their folders, or read those that exist.

    A run is identified by its digest, of which its name is no part: the same run under another name is not trained
    again, and its record takes the latest name. A run that is known to diverge raises again without training.

    Args:
        cache: the cache of the features.
        specs: the runs.
        runs: the folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: the memory that training may use; by default a share of what the device has.
        on_run: called with the index of a run, its record, and whether this call trained it: first for runs that exist,
            then for those that were trained, group by group.
        on_epoch: called with the epoch and {index of a run in training: the entry added to its history}.

    Returns:
        For each spec its record, and whether this call trained it.

    Raises:
        SpecError: a stream that is not in the cache.
        IncompleteCacheError: a stream that is incomplete.
        TrainingError: runs that cannot be trained as asked. For runs that diverge, after all others have been written.
        ResultsError: an existing folder is damaged.
    """

    def of_records(index: int, result: RunRecord | Divergence, trained_now: bool) -> None:
        if on_run is not None and isinstance(result, RunRecord):
            on_run(index, result, trained_now)

    tried = try_runs(cache, specs, runs, device=device, memory_bytes=memory_bytes, on_run=of_records, on_epoch=on_epoch)
    records = [(result, trained_now) for result, trained_now in tried if isinstance(result, RunRecord)]
    if len(records) < len(tried):
        raise TrainingError(" | ".join(_problems(tried, runs)))
    return records


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
    """Train runs as `train_runs` does, where a run that diverges is a result and not an error.

    Args:
        cache: see `train_runs`, also for the other arguments.
        specs: the runs.
        runs: the folder of all runs, where divergences are recorded too.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: the memory that training may use.
        on_run: called for runs that diverged as well.
        on_epoch: called for the runs in training.

    Returns:
        For each spec its record or its divergence, and whether this call trained it.

    Raises:
        EmofuseError: as `train_runs`, but not for runs that diverge.
    """
    where = torch.device(resolve_device(device))
    training = _TrainingCall(cache, runs, Machine.of(where), on_run, on_epoch)
    identified = _identify(cache, specs, memory_bytes or default_memory_bytes(where))
    missing: list[_Identified] = []
    for run in identified:
        if not training.find(run) and run.digest not in {other.digest for other in missing}:
            missing.append(run)
    training.train(missing)
    for run in identified:  # the same run under a second name
        if run.index not in training.results:
            training.find(run)
    return [training.results[run.index] for run in identified]


def _problems(tried: Sequence[tuple[RunRecord | Divergence, bool]], runs: Path) -> list[str]:
    """Return what to say of runs that diverged; for one that diverged before, how to train it again."""
    problems = []
    for result, trained_now in tried:
        if isinstance(result, Divergence):
            known = f" (known from before; to try it again, delete {divergence_path(runs, result.digest)})"
            problems.append(f"{result}{known * (not trained_now)}")
    return problems


@dataclass(frozen=True)
class _Identified:
    """A run, the rows of its split, and its digest with all labels."""

    index: int
    spec: RunSpec
    data: TrainingData
    digest: str

    @property
    def train_rows(self) -> int:
        """The number of rows that it learns from in an epoch."""
        return len(self.data.folds(self.spec)[self.spec.fold.index if self.spec.fold else 0].train)


def _identify(cache: Cache, specs: Sequence[RunSpec], memory_bytes: int) -> list[_Identified]:
    """Return the runs in the order of specs. Runs of one split share its rows; all runs share the features."""
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


class _TrainingCall:
    """The work of one call of `try_runs`.

    Attributes:
        results: index of a run -> its record or its divergence, and whether this call trained it.
    """

    def __init__(
        self, cache: Cache, runs: Path, machine: Machine, on_run: OnTried | None, on_epoch: OnEpoch | None
    ) -> None:
        self.results: dict[int, tuple[RunRecord | Divergence, bool]] = {}
        self._cache = cache
        self._runs = runs
        self._machine = machine
        self._on_run = on_run
        self._on_epoch = on_epoch

    def find(self, run: _Identified) -> bool:
        """Return whether the run exists or is known to diverge; if so, keep its result under the name of this call."""
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
        """Train, score and write different runs of any splits and shapes, after a check and a plan of all of them."""
        groups: list[tuple[list[_Identified], float]] = []
        for data in dict.fromkeys(run.data for run in runs):
            of_split = [run for run in runs if run.data is data]
            self._check_splits(data, of_split)
            for variant in data.all_variants([run.spec for run in of_split]):
                data.features.status(variant)  # raises for an incomplete stream
            with step("planning"):
                plan = plan_runs(data, [run.spec for run in of_split], machine=self._machine)
            groups += [([of_split[index] for index in group.members], group.seconds) for group in plan.groups]
        tally = TrainingTally(len(self.results), [run.spec for run in runs], sum(seconds for _, seconds in groups))
        for group, seconds in groups:
            tally.start([run.spec for run in group], [run.train_rows for run in group], seconds)
            self._train_group(group[0].data, group, tally)
            tally.finish()

    def _train_group(self, data: TrainingData, runs: Sequence[_Identified], tally: TrainingTally) -> None:
        def learn(epoch: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
            tally.learn(epoch, entries)
            if self._on_epoch is not None:
                self._on_epoch(epoch, {runs[index].index: entry for index, entry in entries.items()})

        group = train_together(data, [run.spec for run in runs], self._machine, on_epoch=learn)
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
            for number, ((run, _), scored_run) in enumerate(zip(finished, scored, strict=True), start=1):
                write_run(self._runs, scored_run.record, scored_run.predictions, scored_run.arrays)
                self._take(run, scored_run.record, trained=True)
                advance(number, len(finished))

    def _take(self, run: _Identified, result: RunRecord | Divergence, *, trained: bool) -> None:
        self.results[run.index] = result, trained
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
        """Raise if splits have no usable row; all of them are named together."""
        lacking, labelled = {}, {}
        for spec in {data.partition(run.spec): run.spec for run in runs}.values():
            for split, reason in USES.items():
                if spec.fold and split != "test":  # folds are made of train and val, and are checked themselves
                    continue
                if not len(split_rows(self._cache, data, spec, split)):
                    lacking[split] = reason
                    labelled[split] = int(((data.splits == split) & (self._cache.labels >= 0)).sum())
        data.check_splits(lacking, labelled)
