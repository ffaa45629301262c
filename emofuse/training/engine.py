"""Trains K heads as one program. One head is a group of one: there is no other loop.

    order of rows -> step: forward, backward, update of all members -> validation -> best epoch of each -> who leaves

A member's result depends on itself, the rows and the folds alone, not on who trains beside it: its initial weights and
its dropout come from its own seed, its batches from the order seed. What remains is rounding: a matrix product or fused
Adam may add up otherwise for one head than for many. In float64 results agree to 1e-12. In float32 losses differ in
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

from emofuse.training.group import SharedRows, TrainingGroup
from emofuse.training.machine import Machine
from emofuse.training.members import Ended, FeatureTable, Fold, Member, MemberResult, MemberState, StopRule, check_group
from emofuse.training.optim import optimizer_key
from emofuse.training.streaming import Window

SMALLEST_SHARE = 0.75
"""Once fewer of a group's members than this still train, the group shrinks to them."""

OnEpoch = Callable[[int, Mapping[int, Mapping[str, Any]]], None]


def train_group(
    table: FeatureTable,
    folds: Sequence[Fold],
    members: Sequence[Member],
    machine: Machine,
    *,
    window: Window | None = None,
    on_epoch: OnEpoch | None = None,
    stop_rule: StopRule | None = None,
) -> list[MemberResult]:
    """Trains members that share head and batches (`structure_key`), each to its own end.

    The best epoch of a member has the highest macro F1 or accuracy, or the lowest loss, on its fold's validation rows
    (`train.select`); equal scores go to the lower validation loss, equal losses to the earlier epoch.

    Args:
        table: rows and labels. Labels of rows in no fold are not read.
        folds: all folds of the split; a plain split is one fold. Batches are drawn from the training rows of all of
            them, so a member's result depends on the list and not on which of the folds the members use.
        members: K heads.
        machine: where and how precisely.
        window: how far rows are shuffled, of a table in blocks (`Blocks.window`); None for the whole table. Tensors
            give the same results as blocks with the same window.
        on_epoch: is given the epoch and {index of a member: the entry that its history got}.
        stop_rule: may dismiss members after an epoch; their result is that of the best epoch until then.

    Returns:
        Outcomes, in the order of members.

    Raises:
        TrainingError: the group cannot be trained as asked, see `check_group`.
    """
    check_group(table, folds, members)
    arranged = sorted(
        range(len(members)), key=lambda index: (members[index].fold, *optimizer_key(members[index].train))
    )
    members_progress = [_MemberProgress(index, members[index]) for index in arranged]
    with closing(SharedRows(table, folds, members, machine, window)) as shared:
        _train(
            TrainingGroup(shared, [progress.member for progress in members_progress]),
            members_progress,
            on_epoch,
            stop_rule,
        )
    return [progress.result() for progress in sorted(members_progress, key=lambda progress: progress.index)]


def _train(
    group: TrainingGroup,
    members_progress: Sequence[_MemberProgress],
    on_epoch: OnEpoch | None,
    stop_rule: StopRule | None,
) -> None:
    """Epoch after epoch until no place is left; place k of the group is `running[k]`."""
    running = members_progress
    for epoch in count(1):
        entries = [trained | scored for trained, scored in zip(group.train_epoch(epoch), group.validate(), strict=True)]
        active = [place for place, progress in enumerate(running) if progress.ended is None]
        group.keep([place for place in active if running[place].take(entries[place])])
        if stop_rule is not None:
            _dismiss(members_progress, epoch, stop_rule)
        for place in active:
            if running[place].ended and running[place].best_epoch:
                running[place].weights = group.best_of(place)
        if on_epoch is not None:
            told = [place for place in active if running[place].ended != "diverged"]
            on_epoch(epoch, {running[place].index: entries[place] for place in told})
        staying = [place for place in active if running[place].ended is None]
        if not staying:
            return
        if len(staying) < SMALLEST_SHARE * len(running):
            running = [running[place] for place in staying]
            group.shrink(staying)


def _dismiss(members_progress: Sequence[_MemberProgress], epoch: int, stop_rule: StopRule) -> None:
    by_index = sorted(members_progress, key=lambda progress: progress.index)
    for index in stop_rule(epoch, [progress.state() for progress in by_index]):
        if by_index[index].ended is None:
            by_index[index].ended = "halved"


@dataclass
class _MemberProgress:
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

    def state(self) -> MemberState:
        return MemberState(self.history[self.best_epoch - 1] if self.best_epoch else None, self.ended)

    def result(self) -> MemberResult:
        if self.ended is None:
            raise RuntimeError(f"member {self.index} is still training")
        return MemberResult(self.weights, self.history, self.best_epoch, self.last_epoch, self.ended)
