"""Metrics of the predicted classes alone."""

from __future__ import annotations

from functools import partial

from emofuse.metrics import Metric
from emofuse.metrics.confusion import (
    Counts,
    Floats,
    accuracy,
    balanced_accuracy,
    by_support,
    class_scores,
    kappa,
    macro_f1,
    matthews,
    over_classes_that_occur,
)


def _macro(name: str, counts: Counts) -> Floats:
    return over_classes_that_occur(class_scores(counts)[name], counts)


def _weighted(name: str, counts: Counts) -> Floats:
    return by_support(class_scores(counts)[name], counts)


ACCURACY = Metric("accuracy", "Accuracy", accuracy)
MACRO_F1 = Metric("macro_f1", "Macro F1", macro_f1)
WEIGHTED_F1 = Metric("weighted_f1", "Weighted F1", partial(_weighted, "f1"))
PRECISION = Metric("precision", "Macro precision", partial(_macro, "precision"))
RECALL = Metric("recall", "Macro recall", partial(_macro, "recall"))
SPECIFICITY = Metric("specificity", "Macro specificity", partial(_macro, "specificity"))
BALANCED_ACCURACY = Metric("balanced_accuracy", "Balanced accuracy", balanced_accuracy)
KAPPA = Metric("kappa", "Cohen's kappa", kappa)
MCC = Metric("mcc", "MCC", matthews)
