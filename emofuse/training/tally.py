"""Report the progress of a call that trains runs (`emofuse.progress`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
        self._done_s = self._running_s = self._group_s = 0.0
        self._group: Sequence[RunSpec] = ()
        self._learned: Sequence[int] = ()
        self._heads = self._rows = self._epoch = 0
        self._losses: tuple[float, float] | None = None
        self._best: tuple[str, float] | None = None
        self._started = time.perf_counter()

    def start(self, group: Sequence[RunSpec], learned: Sequence[int], seconds: float) -> None:
        """Record that a group begins.

        Args:
            group: its heads, as runs.
            learned: the number of training rows of each head.
            seconds: its estimated time.
        """
        self._group, self._learned, self._group_s = group, learned, seconds
        self._running_s, self._epoch, self._losses = 0.0, 0, None
        self._report()

    def learn(self, epoch: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        """Record an epoch.

        Args:
            epoch: its number.
            entries: index into the group -> the entry added to the head's history.
        """
        if not entries:
            return
        self._epoch = epoch
        self._rows += sum(self._learned[index] for index in entries)
        in_all = sum(epochs_of(spec) * rows for spec, rows in zip(self._group, self._learned, strict=True))
        learned = sum(self._learned[index] for index in entries)
        self._running_s = min(self._group_s, self._running_s + self._group_s * learned / in_all)
        if isinstance(self._group[0], RefitRun):  # the validation rows train, so their scores say nothing
            self._report()
            return
        losses = [(entry["train_loss"], entry["val_loss"]) for entry in entries.values()]
        train_losses, val_losses = zip(*losses, strict=True)
        self._losses = sum(train_losses) / len(losses), sum(val_losses) / len(losses)
        for index, entry in entries.items():
            self._compare(self._group[index].name, entry[f"val_{self._select}"])
        self._report()

    def finish(self, done: int) -> None:
        """Record that the heads of the group are trained and the complete runs written.

        Args:
            done: the number of runs that are done, with those that were trained before.
        """
        self._done = done
        self._heads += len(self._group)
        self._done_s += self._group_s
        self._running_s, self._group, self._losses = 0.0, (), None
        self._report()

    def _compare(self, name: str, score: float) -> None:
        sign = -1 if self._select == "loss" else 1
        if self._best is None or sign * score > sign * self._best[1]:
            self._best = name, score

    def _report(self) -> None:
        report_progress(
            TrainingState(
                runs=self._done,
                total=self._total,
                what="training",
                epoch=self._epoch,
                epochs=max((epochs_of(spec) for spec in self._group if not is_exact(spec.head)), default=0),
                losses=self._losses,
                heads=self._heads,
                rows=self._rows,
                work=min(1.0, (self._done_s + self._running_s) / self._whole_s) if self._whole_s > 0 else 0.0,
                seconds=time.perf_counter() - self._started,
                best=self._best,
                select=self._select,
            )
        )
