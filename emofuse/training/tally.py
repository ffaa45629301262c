"""Report the progress of a call that trains runs (`emofuse.progress`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emofuse.progress import TrainingState, report_progress
from emofuse.specs import RunSpec
from emofuse.training.exact import is_exact
from emofuse.training.refits import RefitRun, epochs_of
from emofuse.training.targets import WITH_CLASSES


class TrainingTally:
    """The work that one call of `try_runs` has done so far.

    Args:
        done: the number of runs that were trained before.
        missing: the number of runs to train.
        specs: these runs.
        seconds: the estimated time of all groups.
    """

    def __init__(self, done: int, missing: int, specs: Sequence[RunSpec], seconds: float) -> None:
        selects = {spec.train.select for spec in specs}
        has_classes = all(spec.target.kind in WITH_CLASSES for spec in specs)
        self._select: str = selects.pop() if len(selects) == 1 else "macro_f1" if has_classes else "loss"
        self._done = done
        self._total = done + missing
        self._whole_s = seconds
        self._done_s = 0.0
        self._groups: dict[int, _RunningGroup] = {}
        self._heads = self._rows = 0
        self._best: tuple[str, float] | None = None
        self._started = time.perf_counter()

    def start(self, key: int, group: Sequence[RunSpec], learned: Sequence[int], seconds: float) -> None:
        """Record that a group begins.

        Args:
            key: the group, among those that train at the same time.
            group: its heads, as runs.
            learned: the number of training rows of each head.
            seconds: its estimated time.
        """
        self._groups[key] = _RunningGroup(group, learned, seconds)
        self._report()

    def learn(self, key: int, epoch: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        """Record an epoch.

        Args:
            key: the group.
            epoch: its number.
            entries: index into the group -> the entry added to the head's history.
        """
        if not entries:
            return
        running = self._groups[key]
        running.epoch = epoch
        self._rows += running.learn(list(entries))
        if isinstance(running.specs[0], RefitRun):  # the validation rows train, so their scores say nothing
            self._report()
            return
        losses = [(entry["train_loss"], entry["val_loss"]) for entry in entries.values()]
        train_losses, val_losses = zip(*losses, strict=True)
        running.losses = sum(train_losses) / len(losses), sum(val_losses) / len(losses)
        for index, entry in entries.items():
            self._compare(running.specs[index].name, entry[f"val_{self._select}"])
        self._report()

    def finish(self, key: int, done: int) -> None:
        """Record that the heads of a group are trained and the complete runs written.

        Args:
            key: the group.
            done: the number of runs that are done, with those that were trained before.
        """
        running = self._groups.pop(key)
        self._done = done
        self._heads += len(running.specs)
        self._done_s += running.seconds
        self._report()

    def _compare(self, name: str, score: float) -> None:
        sign = -1 if self._select == "loss" else 1
        if self._best is None or sign * score > sign * self._best[1]:
            self._best = name, score

    def _report(self) -> None:
        """Report all groups. Epoch and losses are those of the group that began first; they are not comparable."""
        first = next(iter(self._groups.values()), _NONE)
        worked = self._done_s + sum(running.worked_s for running in self._groups.values())
        report_progress(
            TrainingState(
                runs=self._done,
                total=self._total,
                what="training",
                epoch=first.epoch,
                epochs=max((epochs_of(spec) for spec in first.specs if not is_exact(spec.head)), default=0),
                losses=first.losses,
                heads=self._heads,
                rows=self._rows,
                work=min(1.0, worked / self._whole_s) if self._whole_s > 0 else 0.0,
                seconds=time.perf_counter() - self._started,
                best=self._best,
                select=self._select,
            )
        )


@dataclass
class _RunningGroup:
    """A group in training.

    Attributes:
        specs: its heads, as runs.
        learned: the number of training rows of each head.
        seconds: its estimated time.
        worked_s: how much of that is done.
        epoch: its last epoch.
        losses: the mean losses of that epoch.
    """

    specs: Sequence[RunSpec]
    learned: Sequence[int]
    seconds: float
    worked_s: float = 0.0
    epoch: int = 0
    losses: tuple[float, float] | None = None

    def learn(self, indices: Sequence[int]) -> int:
        """Add an epoch of some of the heads, and return the number of rows that they have learned from."""
        rows = sum(self.learned[index] for index in indices)
        in_all = sum(epochs_of(spec) * learned for spec, learned in zip(self.specs, self.learned, strict=True))
        self.worked_s = min(self.seconds, self.worked_s + self.seconds * rows / in_all)
        return rows


_NONE = _RunningGroup((), (), 0.0)
