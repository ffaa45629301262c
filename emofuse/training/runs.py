"""Train final runs, together where possible, score them once on the test rows, and write a folder for each run.

    specs -> read those that exist, by digest | plan the missing ones -> groups -> train -> score -> write

A run that exists is read, and one that diverged is not trained again. Heads of a run that lacks others are kept on disk
from group to group (`emofuse.training.kept_heads`), and the next call takes them up if this one is interrupted.
Training sees `TrainingData`, which hides the test labels; `emofuse.training.scoring` reads them after the training of a
group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emofuse.datasets.split_needs import USES
from emofuse.errors import TrainingError
from emofuse.machine.devices import resolve_device
from emofuse.progress import step
from emofuse.results import RunRecord, read_record, rename_run, run_dir, write_run
from emofuse.specs import RunSpec, canonical_json
from emofuse.training.data import TrainingData
from emofuse.training.divergence import Divergence, divergence_path, read_divergence, write_divergence
from emofuse.training.engine import OnEpoch
from emofuse.training.kept_heads import KeptHeads
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.planning import plan_runs
from emofuse.training.refits import RefitRun
from emofuse.training.rows import rows_digest, targets_of_run
from emofuse.training.scoring import score_together, split_rows
from emofuse.training.side_by_side import Report, SideBySide, cores_of, groups_at_once
from emofuse.training.tally import TrainingTally
from emofuse.training.together import USING_DATA, Trained, train_together
from emofuse.training.trained_runs import mean_entry
from emofuse.training.unfinished import HeadInTraining, HeadsOfGroup, IdentifiedRun, RunInTraining

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
        on_epoch: called with {epoch, train_loss, val_loss, val_accuracy, val_macro_f1} after each epoch; targets that
            are no class have other scores (`emofuse.training.validation_scores`).

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
        on_epoch: called with the epoch and {index of a run in training: the entry added to its history}; for an
            ensemble the mean of its heads' entries, and not in second trainings.

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
    missing: list[IdentifiedRun] = []
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


def _identify(cache: Cache, specs: Sequence[RunSpec], memory_bytes: int) -> list[IdentifiedRun]:
    """Return the runs in the order of specs. Runs of one split and target share its rows; all share the features."""
    shared: dict[str, tuple[TrainingData, str]] = {}
    identified = []
    for index, spec in enumerate(specs):
        key = canonical_json(spec.model_dump(mode="json", include={"split", "target", "weight_column"}))
        if key not in shared:
            features = next((data.features for data, _ in shared.values()), None)
            data = TrainingData.of_run(cache, spec, memory_bytes=memory_bytes, features=features)
            shared[key] = data, rows_digest(cache, data.splits, targets_of_run(cache, spec))
        data, rows = shared[key]
        identified.append(IdentifiedRun(index, spec, data, data.digest(spec, rows=rows)))
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
        self._kept = KeptHeads(runs)
        self._training: dict[int, RunInTraining] = {}

    def find(self, run: IdentifiedRun) -> bool:
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

    def train(self, runs: Sequence[IdentifiedRun]) -> None:
        """Train, score and write different runs of any splits and shapes, after a check and a plan of all of them."""
        groups: list[HeadsOfGroup] = []
        for data in dict.fromkeys(run.data for run in runs):
            of_split = [run for run in runs if run.data is data]
            self._check_splits(data, of_split)
            for variant in data.all_variants([run.spec for run in of_split]):
                data.features.status(variant)  # raises for an incomplete stream
            with step("planning"):
                in_training = [RunInTraining(run, self._kept) for run in of_split]
                self._training |= {each.run.index: each for each in in_training}
                groups += self._plan(data, [head for each in in_training for head in each.missing()])
        seconds = sum(group.seconds + group.refit_seconds for group in groups)
        tally = TrainingTally(len(self.results), len(runs), [run.spec for run in runs], seconds)
        for each in [each for each in self._training.values() if each.is_complete]:  # other calls have kept all heads
            self._score(each.run.data, [each])
        self._train_groups(groups, tally)

    def _train_groups(self, groups: Sequence[HeadsOfGroup], tally: TrainingTally) -> None:
        """Train groups, side by side where that is sooner, and after each the second training of its heads."""
        pending = deque(groups)

        def take() -> HeadsOfGroup | None:
            if not pending:
                return None
            group = pending.popleft()
            specs, rows = [head.spec for head in group.heads], [head.train_rows for head in group.heads]
            tally.start(id(group), specs, rows, group.seconds)
            return group

        trainer: SideBySide[HeadsOfGroup, list[Trained]] = SideBySide(
            self._train_heads,
            partial(self._learn, tally),
            groups_at_once([group.seconds for group in groups], cores_of(self._machine.device)),
            min((group.data.memory_bytes for group in groups), default=0),
        )
        with closing(trainer.run(take)) as finished:
            for group, trained in finished:
                with USING_DATA:
                    self._take_heads(group, trained)
                    pending.extendleft(reversed(self._refits(group)))
                tally.finish(id(group), len(self.results))

    def _refits(self, group: HeadsOfGroup) -> list[HeadsOfGroup]:
        """Return the groups of the second trainings of the heads of a group."""
        first = [head for head in group.heads if head.run.refits and not head.is_refit]
        again = [head for head in first if head.run.index not in self.results]
        refits = [HeadInTraining(head.run, RefitRun.of(head.spec, head.result)) for head in again]
        planned = self._plan(group.data, refits)
        whole = sum(refit.seconds for refit in planned) or 1.0
        # The shares of the time that the first plan has for them.
        return [replace(refit, seconds=group.refit_seconds * refit.seconds / whole) for refit in planned]

    def _plan(self, data: TrainingData, heads: Sequence[HeadInTraining]) -> list[HeadsOfGroup]:
        """Return groups of heads, each with the time of its second trainings, of which all epochs are counted."""
        if not heads:
            return []
        groups = []
        for group in plan_runs(data, [head.spec for head in heads], machine=self._machine).groups:
            members = [heads[index] for index in group.members]
            again = [RefitRun.of(head.spec) for head in members if head.run.refits and not head.is_refit]
            seconds = sum(g.seconds for g in plan_runs(data, again, machine=self._machine).groups) if again else 0.0
            groups.append(HeadsOfGroup(data, members, group.seconds, seconds, group.memory_bytes))
        return groups

    def _train_heads(self, group: HeadsOfGroup, report: Report) -> list[Trained]:
        """Train a group of heads; called in another thread where groups train side by side."""
        return train_together(group.data, [head.spec for head in group.heads], self._machine, on_epoch=report)

    def _learn(
        self, tally: TrainingTally, group: HeadsOfGroup, epoch: int, entries: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """Pass on an epoch of a group."""
        tally.learn(id(group), epoch, entries)
        if self._on_epoch is None or group.heads[0].is_refit:
            return
        present: dict[int, list[Mapping[str, Any]]] = {}
        for place, entry in sorted(entries.items()):
            present.setdefault(group.heads[place].run.index, []).append(entry)
        self._on_epoch(epoch, {run: mean_entry(of_heads) for run, of_heads in present.items()})

    def _take_heads(self, group: HeadsOfGroup, trained_heads: Sequence[Trained]) -> None:
        """Take the heads of a group; score and write the runs that are complete with it."""
        for head, trained in zip(group.heads, trained_heads, strict=True):
            head.result = trained.result
            if head.run.index in self.results:  # another head of the run has diverged
                continue
            if trained.result.ended == "diverged":
                divergence = self._divergence(head.run, trained.result.last_epoch)
                write_divergence(self._runs, divergence)
                self._take(head.run, divergence, trained=True)
                del self._training[head.run.index]
                continue
            self._training[head.run.index].add(trained, is_refit=head.is_refit)
        indices = dict.fromkeys(head.run.index for head in group.heads)
        in_training = [self._training[run] for run in indices if run in self._training]
        for each in in_training:
            if not each.is_complete:
                each.keep()
        self._score(group.data, [each for each in in_training if each.is_complete])

    def _score(self, data: TrainingData, complete: Sequence[RunInTraining]) -> None:
        finished = [each for each in complete if each.run.index not in self.results]
        with step("scoring", len(finished), "runs") as advance:
            scored = score_together(
                self._cache,
                data,
                [each.trained_run() for each in finished],
                [each.run.digest for each in finished],
                self._machine,
            )
            for number, (each, scored_run) in enumerate(zip(finished, scored, strict=True), start=1):
                write_run(self._runs, scored_run.record, scored_run.predictions, scored_run.arrays)
                self._take(each.run, scored_run.record, trained=True)
                del self._training[each.run.index]
                advance(number, len(finished))

    def _take(self, run: IdentifiedRun, result: RunRecord | Divergence, *, trained: bool) -> None:
        self.results[run.index] = result, trained
        self._kept.remove(run.digest)
        if self._on_run is not None:
            self._on_run(run.index, result, trained)

    def _divergence(self, run: IdentifiedRun, epoch: int) -> Divergence:
        return Divergence(
            digest=run.digest,
            spec=run.spec.model_dump(mode="json"),
            epoch=epoch,
            device=str(self._machine.device),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _check_splits(self, data: TrainingData, runs: Sequence[IdentifiedRun]) -> None:
        """Raise if splits have no usable row; all of them are named together."""
        lacking, labelled = {}, {}
        heads = [spec for run in runs for spec in run.spec.heads()]
        targets = targets_of_run(self._cache, runs[0].spec)
        for spec in {data.partition(spec): spec for spec in heads}.values():
            for split, reason in USES.items():
                if spec.fold and split != "test":  # folds are made of train and val, and are checked themselves
                    continue
                if not len(split_rows(targets, data, spec, split)):
                    lacking[split] = reason
                    labelled[split] = int(((data.splits == split) & (targets.labels >= 0)).sum())
        data.check_splits(lacking, labelled)
