"""Trains K heads as one program. One head is a group of one: there is no other loop.

    order of rows -> step: forward, backward, update of all lanes -> validation -> best epoch of each -> who leaves

A member's outcome depends on itself, the rows and the folds alone, not on who trains beside it: its initial weights and
its dropout come from its own seed, its batches from the order seed. What remains is rounding: a matrix product or fused
Adam may add up otherwise for one head than for many. In float64 outcomes agree to 1e-12. In float32 losses differ in
their last digits, on some processors and not on others; where two epochs score almost alike, that may decide which of
them is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy.typing as npt

from emofuse.training.group import Group, Room
from emofuse.training.machine import Machine
from emofuse.training.members import Ended, Fold, Judge, Member, Outcome, Standing, Table, check_group
from emofuse.training.optim import setting
from emofuse.training.streaming import Window

SMALLEST_SHARE = 0.75
"""Once fewer of a group's lanes than this still train, the group shrinks to them."""

OnEpoch = Callable[[int, Mapping[int, Mapping[str, Any]]], None]


def train_group(
    table: Table,
    folds: Sequence[Fold],
    members: Sequence[Member],
    machine: Machine,
    *,
    window: Window | None = None,
    on_epoch: OnEpoch | None = None,
    judge: Judge | None = None,
) -> list[Outcome]:
    """Trains members that share head and batches (`group_key`), each to its own end.

    The best epoch of a member has the highest macro F1 or accuracy, or the lowest loss, on its fold's validation rows
    (`train.select`); equal scores go to the lower validation loss, equal losses to the earlier epoch.

    Args:
        table: rows and labels. Labels of rows in no fold are not read.
        folds: all folds of the split; a plain split is one fold. Batches are drawn from the training rows of all of
            them, so a member's outcome depends on the list and not on which of the folds the members use.
        members: K heads.
        machine: where and how precisely.
        window: how far rows are shuffled, of a table in blocks (`Blocks.window`); None for the whole table. Tensors
            give the same outcomes as blocks with the same window.
        on_epoch: is given the epoch and {index of a member: the entry that its history got}.
        judge: may dismiss members after an epoch; their outcome is that of the best epoch until then.

    Returns:
        Outcomes, in the order of members.

    Raises:
        TrainingError: the group cannot be trained as asked, see `check_group`.
    """
    check_group(table, folds, members)
    arranged = sorted(range(len(members)), key=lambda index: (members[index].fold, *setting(members[index].train)))
    courses = [_Course(index, members[index]) for index in arranged]
    with closing(Room(table, folds, members, machine, window)) as room:
        _train(Group(room, [course.member for course in courses]), courses, on_epoch, judge)
    return [course.outcome() for course in sorted(courses, key=lambda course: course.index)]


def _train(group: Group, courses: Sequence[_Course], on_epoch: OnEpoch | None, judge: Judge | None) -> None:
    """Epoch after epoch until no lane is left; lane k of the group is `running[k]`."""
    running = courses
    for epoch in count(1):
        entries = [trained | scored for trained, scored in zip(group.train_epoch(epoch), group.validate(), strict=True)]
        active = [lane for lane, course in enumerate(running) if course.ended is None]
        group.keep([lane for lane in active if running[lane].take(entries[lane])])
        if judge is not None:
            _dismiss(courses, epoch, judge)
        for lane in active:
            if running[lane].ended and running[lane].best_epoch:
                running[lane].weights = group.best_of(lane)
        if on_epoch is not None:
            told = [lane for lane in active if running[lane].ended != "diverged"]
            on_epoch(epoch, {running[lane].index: entries[lane] for lane in told})
        staying = [lane for lane in active if running[lane].ended is None]
        if not staying:
            return
        if len(staying) < SMALLEST_SHARE * len(running):
            running = [running[lane] for lane in staying]
            group.shrink(staying)


def _dismiss(courses: Sequence[_Course], epoch: int, judge: Judge) -> None:
    by_index = sorted(courses, key=lambda course: course.index)
    for index in judge(epoch, [course.standing() for course in by_index]):
        if by_index[index].ended is None:
            by_index[index].ended = "halved"


@dataclass
class _Course:
    """How one member fares, epoch by epoch."""

    index: int
    member: Member
    history: list[Mapping[str, Any]] = field(default_factory=list)
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = 0
    last_epoch: int = 0
    ended: Ended | None = None
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def take(self, entry: Mapping[str, Any]) -> bool:
        """Takes in an epoch: whether it is the best so far, and whether it was the last."""
        train = self.member.train
        self.last_epoch = entry["epoch"]
        if not (math.isfinite(entry["train_loss"]) and math.isfinite(entry["val_loss"])):
            self.ended = "diverged"
            return False
        self.history.append(entry)
        score = (-entry["val_loss"] if train.select == "loss" else entry[f"val_{train.select}"], -entry["val_loss"])
        better = score > self.best_score
        if better:
            self.best_score, self.best_epoch = score, self.last_epoch
        if self.last_epoch >= train.epochs:
            self.ended = "epochs"
        elif train.patience is not None and self.last_epoch - self.best_epoch >= train.patience:
            self.ended = "patience"
        return better

    def standing(self) -> Standing:
        return Standing(self.history[self.best_epoch - 1] if self.best_epoch else None, self.ended)

    def outcome(self) -> Outcome:
        if self.ended is None:
            raise RuntimeError(f"member {self.index} is still training")
        return Outcome(self.weights, self.history, self.best_epoch, self.last_epoch, self.ended)
