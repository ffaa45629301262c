"""Single samples: the most confident mistakes, those that fusion rescued or spoiled, and candidates for wrong labels.

Source: Northcutt, Jiang and Chuang, *Confident learning: estimating uncertainty in dataset labels*, JAIR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints

Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-6


@dataclass(frozen=True)
class LabelNoise:
    """What confident learning says of labels.

    Attributes:
        thresholds: the mean probability of each class in the rows that are labelled so, (C,); NaN without rows.
        confident: rows that are confidently of a class, by label (down) and that class (across), int64 (C, C).
        joint: the same scaled to the number of rows of each label, so that it sums to n, float64 (C, C).
        suspects: the rows off the diagonal of `confident`, the least probable label first, int64.
        suggested: the class that each suspect confidently is, int64.
        margin: the probability of the label less that of the suggested class, for each suspect.
    """

    thresholds: Floats
    confident: Ints
    joint: Floats
    suspects: Ints
    suggested: Ints
    margin: Floats

    @property
    def noisy(self) -> float:
        """The estimated number of wrong labels."""
        return float(self.joint.sum() - np.trace(self.joint))


def find_label_noise(probs: Floats, label: Ints) -> LabelNoise:
    """Find rows whose label is confidently another, from probabilities (n, C) of models that did not learn them.

    A row is confidently of class j if its probability of j is at least the mean probability of j in the rows that are
    labelled j. Of several such classes the most probable counts. Rows that are confidently of no class are not counted.
    """
    classes = probs.shape[1]
    counts = np.bincount(label, minlength=classes)
    thresholds = np.array(
        [probs[label == place, place].mean() if counts[place] else np.nan for place in range(classes)]
    )
    above = probs >= np.where(np.isnan(thresholds), np.inf, thresholds) - _ROUNDING
    is_confident = above.any(axis=1)
    guess = np.where(above, probs, -np.inf).argmax(axis=1)
    confident = np.bincount(label[is_confident] * classes + guess[is_confident], minlength=classes**2).reshape(
        classes, classes
    )
    suspects = np.flatnonzero(is_confident & (guess != label))
    margin = probs[suspects, label[suspects]] - probs[suspects, guess[suspects]]
    order = np.argsort(margin, kind="stable")
    return LabelNoise(
        thresholds,
        confident.astype(np.int64),
        _calibrated(confident.astype(np.float64), counts),
        suspects[order],
        guess[suspects][order].astype(np.int64),
        margin[order],
    )


def _calibrated(confident: Floats, counts: Ints) -> Floats:
    """Return the counts (C, C) with each line scaled to the number of rows of its label, and all to n.

    Every label counts as right at least once, as in cleanlab.
    """
    lines = confident.copy()
    np.fill_diagonal(lines, np.maximum(np.diagonal(lines), 1))
    scaled: Floats = lines / lines.sum(axis=1, keepdims=True) * counts[:, None]
    return scaled


@dataclass(frozen=True)
class Rescue:
    """Samples that other models get wrong and fusion right, and the reverse.

    Attributes:
        rescued: rows that all others get wrong and fusion right, the most probable first, int64.
        spoiled: rows that all others get right and fusion wrong, the least probable first, int64.
        nobody: the number of rows that all, fusion too, get wrong.
        everybody: the number of rows that all get right.
    """

    rescued: Ints
    spoiled: Ints
    nobody: int
    everybody: int


def find_rescued(fusion: Floats, others: Mapping[str, Floats], label: Ints) -> Rescue:
    """Compare fusion with other models, such as those of single streams, on the same n rows.

    Args:
        fusion: the probabilities of fusion, (n, C).
        others: name -> probabilities of another model, (n, C).
        label: the true classes, (n,).
    """
    right = fusion.argmax(axis=1) == label
    others_right = np.stack([probs.argmax(axis=1) == label for probs in others.values()])
    of_true = fusion[np.arange(len(label)), label]
    rescued = np.flatnonzero(right & ~others_right.any(axis=0))
    spoiled = np.flatnonzero(~right & others_right.all(axis=0))
    return Rescue(
        rescued[np.argsort(-of_true[rescued], kind="stable")],
        spoiled[np.argsort(of_true[spoiled], kind="stable")],
        int((~right & ~others_right.any(axis=0)).sum()),
        int((right & others_right.all(axis=0)).sum()),
    )


def confident_mistakes(probs: Floats, label: Ints, most: int) -> Ints:
    """Return the wrongly answered rows with the largest probability of their answer, int64."""
    predicted = probs.argmax(axis=1)
    wrong = np.flatnonzero(predicted != label)
    order = np.argsort(-probs[wrong, predicted[wrong]], kind="stable")
    return wrong[order][:most]
