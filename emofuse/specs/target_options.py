"""Which heads, losses and scores each kind of target can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from emofuse.specs.head_kinds import EXACT_HEADS
from emofuse.specs.heads import HeadSpecBase
from emofuse.specs.targets import TargetSpec
from emofuse.specs.train import TrainSpec

Score = Literal["macro_f1", "accuracy", "loss", "ccc", "map"]
"""A validation score that chooses epochs, penalties and configurations."""

SCORES: Mapping[str, tuple[Score, ...]] = {
    "class": ("loss", "macro_f1", "accuracy"),
    "distribution": ("loss", "macro_f1", "accuracy"),
    "regression": ("loss", "ccc"),
    "multilabel": ("loss", "map"),
}
"""Kind of a target -> the scores that can choose."""

MAIN_SCORES: Mapping[str, Score] = {
    "class": "macro_f1",
    "distribution": "macro_f1",
    "regression": "ccc",
    "multilabel": "map",
}
"""Kind of a target -> the score that compares the configurations of a sweep unless it names another."""

_NOUNS = {
    "class": "a class",
    "distribution": "a distribution",
    "regression": "a regression",
    "multilabel": "several labels",
}
_KINDS_OF_OPTION: Mapping[str, tuple[str, ...]] = {
    "class_weights": ("class", "distribution", "multilabel"),
    "label_smoothing": ("class", "distribution"),
    "focal_gamma": ("class",),
    "logit_adjustment": ("class",),
    "balance": ("class", "distribution"),
}
"""Option of the loss -> the kinds of targets that it is defined for."""


def target_problems(target: TargetSpec, head: HeadSpecBase, train: TrainSpec) -> list[str]:
    """Return why a head cannot learn this target with these options, one sentence each."""
    noun, kind = _NOUNS[target.kind], target.kind
    problems = []
    if fault := score_problem(target, train.select):
        problems.append(f"train.select: {fault}")
    for option, kinds in _KINDS_OF_OPTION.items():
        value = getattr(train, option)
        if kind not in kinds and value != TrainSpec.model_fields[option].default:
            problems.append(
                f"train.{option}: is for targets of kind {', '.join(kinds)}, and the target is {noun}. Leave it out"
            )
    if train.balance != "none" and head.kind in EXACT_HEADS:
        instead = "Leave it out" if head.kind == "kernel_ridge" else "Weight the rows by class_weights: balanced"
        problems.append(
            f"train.balance: draws the rows of the epochs of a trained head, and a {head.kind} head is solved on all "
            f"rows at once. {instead}"
        )
    if kind == "regression" and head.kind in {"logistic", "averaged_logistic"}:
        problems.append(
            f"head.kind: {head.kind} gives probabilities, and the target is a regression. Take kernel_ridge (with "
            "`kernel: linear` it is ridge regression), or a head that is trained"
        )
    return problems


def score_problem(target: TargetSpec, score: str) -> str:
    """Return why a score cannot choose for this target; an empty text if it can."""
    if score in SCORES[target.kind]:
        return ""
    return f"{score} is no score of {_NOUNS[target.kind]} (there are: {', '.join(SCORES[target.kind])})"
