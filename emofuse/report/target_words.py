"""The words of a report for each kind of target, where its sentences and captions differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from emofuse.specs.targets import TargetSpec


@dataclass(frozen=True)
class TargetWords:
    """Words on one kind of target.

    Attributes:
        outputs: the heading of the list of outputs among the facts.
        rows: the heading of the number of rows among the facts.
        rows_by_split: the caption of the table of rows.
        rows_of_parts: the summary of this table where it is folded.
        end: how a head ends, with the number of outputs.
        losses: the loss in the target's spec -> what training minimises; an empty key for a target without a choice.
        logistic: what a logistic head is.
        averaged_logistic: what an averaged_logistic head is.
        ridge_choice: how a kernel_ridge head is chosen.
        references: the models that are solved as references.
        rules: the sentences on what the scores count.
        scores: the caption of the table of scores of several outputs.
        details: for each table of further scores its caption, and its summary where it is folded.
    """

    outputs: str
    rows: str
    rows_by_split: str
    rows_of_parts: str
    end: str
    losses: Mapping[str, str]
    logistic: str
    averaged_logistic: str
    ridge_choice: str
    references: str
    rules: tuple[str, ...]
    scores: str
    details: tuple[tuple[str, str], ...]


CLASS_WORDS = TargetWords(
    outputs="Labels",
    rows="Labelled rows",
    rows_by_split="Labelled rows by split.",
    rows_of_parts="Labelled rows of each label",
    end="a softmax over {} classes",
    losses={"": "cross-entropy"},
    logistic="multinomial logistic regression on all streams side by side",
    averaged_logistic="one multinomial logistic regression for each stream, whose probabilities are averaged",
    ridge_choice=(
        "its penalty and its temperature have the least cross-entropy of the leave-one-out predictions of the training "
        "rows"
    ),
    references=(
        "logistic regression on all streams side by side, the mean of one logistic regression for each stream, and "
        "kernel ridge regression"
    ),
    rules=("Macro scores are means over the labels that have rows or predictions.",),
    scores="Scores on the test split.",
    details=(
        (
            (
                "Precision (P), recall (R), F1 and specificity on the test split; macro scores are means over classes, "
                "weighted scores means by support."
            ),
            "Precision, recall and specificity of all configurations",
        ),
    ),
)

DISTRIBUTION_WORDS = replace(
    CLASS_WORDS,
    losses={
        "cross_entropy": "the cross-entropy to the distribution of each row",
        "kl": "the Kullback-Leibler divergence from the distribution of each row",
    },
    rules=(
        *CLASS_WORDS.rules,
        (
            "Accuracy, F1 and the other scores of classes are against one class of each row; the distances are means "
            "over rows of that between the predicted distribution and the true one, with natural logarithms."
        ),
    ),
    details=(
        *CLASS_WORDS.details,
        (
            (
                "Distances of the predicted distributions from the true ones on the test split, means over rows. JS is "
                "the Jensen-Shannon divergence, KL the Kullback-Leibler divergence."
            ),
            "Distances of the distributions of all configurations",
        ),
    ),
)

REGRESSION_WORDS = TargetWords(
    outputs="Columns",
    rows="Rows with values",
    rows_by_split="Rows with values by split.",
    rows_of_parts="Rows with values",
    end="a linear output for each of {} columns",
    losses={
        "mse": "the mean squared error of the standardised columns",
        "ccc": "1 − CCC of a batch (the mean over the columns)",
    },
    logistic="logistic regression, which has no numbers as answers",
    averaged_logistic="logistic regression, which has no numbers as answers",
    ridge_choice="its penalty has the least squared error of the leave-one-out predictions of the training rows",
    references="kernel ridge regression",
    rules=(
        (
            "CCC is the concordance correlation coefficient (Lin, Biometrics 1989), which is 1 only where answers "
            "equal the true values; RMSE and MAE are in the units of the columns."
        ),
        (
            "Scores of a run are means over its columns; a column whose test rows have one value has no CCC and no "
            "correlation, and is left out of their means. Answers of one value have a CCC of 0 and no correlation."
        ),
    ),
    scores="Scores on the test split, means over the columns.",
    details=(("Further scores on the test split, means over the columns.", "Further scores of all configurations"),),
)

MULTILABEL_WORDS = TargetWords(
    outputs="Labels",
    rows="Rows with labels",
    rows_by_split="Rows that have each label, by split. A row may have several labels, or none.",
    rows_of_parts="Rows of each label",
    end="a sigmoid for each of {} labels",
    losses={"": "the binary cross-entropy of each label"},
    logistic="one binary logistic regression for each label, on all streams side by side",
    averaged_logistic="binary logistic regressions for each stream and label, whose probabilities are averaged",
    ridge_choice=(
        "its penalty and its temperature have the least binary cross-entropy of the leave-one-out predictions of the "
        "training rows"
    ),
    references=(
        "logistic regression on all streams side by side, the mean of one logistic regression for each stream, and "
        "kernel ridge regression, each for every label"
    ),
    rules=(
        (
            "mAP is the mean over the labels of the average precision, which sums the precision at each threshold by "
            "its gain of recall, without interpolation. F1 takes a label as given from a probability of 0.5 on."
        ),
        "A label that no test row has is left out of the means.",
    ),
    scores="Scores on the test split, means over the labels.",
    details=(
        (
            (
                "Further scores on the test split; the area under the ROC curve is a mean over labels, micro F1 counts "
                "all labels together."
            ),
            "Further scores of all configurations",
        ),
    ),
)


def target_words(target: Mapping[str, Any]) -> str:
    """Return what a target in the spec of a run is, in words: its kind and its columns."""
    try:
        return f"{target.get('kind', 'class')}: {TypeAdapter(TargetSpec).validate_python(target)}"
    except ValidationError:  # of a later release
        return str(target.get("kind", "class"))
