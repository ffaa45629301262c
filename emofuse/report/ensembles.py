"""What a report says of runs of several heads, and of runs that were trained again on training and validation rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emofuse.report.configurations import Results
from emofuse.report.formats import join_some


def answer_texts(results: Results) -> list[str]:
    """Return what answers in each configuration; nothing if each of them is one head that was trained once."""
    again = [item.spec.get("refit", "none") != "none" for item in results.configurations]
    counts = [item.heads for item in results.configurations]
    if max(counts) == 1 and not any(again):
        return []
    return [
        ("1 head" if count == 1 else f"mean of {count} heads") + ", trained again" * is_again
        for count, is_again in zip(counts, again, strict=True)
    ]


def ensemble_sentences(results: Results) -> list[str]:
    """Return of which heads the ensembles are the mean, and how their validation rows are answered."""
    sentences = []
    for labels, options in _by_option(results, "ensemble").items():
        folds, seeds = options["folds"], len(options["seeds"]) or 1
        verb = "answers" if len(labels) == 1 else "answer"
        if folds is None:
            what = f"{seeds} heads that differ in their seeds"
            validation = "a validation score is that of the mean"
        else:
            what = f"{folds * seeds} heads, {_one_for_each(folds, seeds)} of the training and validation rows"
            validation = "a validation score counts every row once, answered by the heads that did not learn from it"
        sentences.append(f"{join_some(labels)} {verb} with the mean of {what}; {validation}.")
    return sentences


def _one_for_each(folds: int, seeds: int) -> str:
    return f"one for each of {folds} folds" if seeds == 1 else f"one for each of {seeds} seeds and {folds} folds"


def refit_sentences(results: Results) -> list[str]:
    """Return which configurations were trained a second time."""
    labels = [item.label for item in results.configurations if item.spec.get("refit", "none") != "none"]
    if not labels:
        return []
    return [
        (
            f"For {join_some(labels)}, what was chosen on the validation rows (the epoch, or the penalty of a logistic "
            "head; kernel ridge regression chooses anew) was trained again on training and validation rows together. "
            "The validation scores are those of the first training."
        )
    ]


def _by_option(results: Results, name: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Return the labels of the configurations that share a value of an option -> the value, where it is given."""
    items = [(item, item.spec.get(name)) for item in results.configurations]
    values = [value for index, (_, value) in enumerate(items) if value and value not in [v for _, v in items[:index]]]
    return {tuple(item.label for item, given in items if given == value): value for value in values}
