"""The uncertainty of test scores: intervals, paired comparisons and their correction.

The bootstrap draws *units*: the images of the test rows, or whole groups of images (all of one speaker). All runs are
scored on the same draws, so a difference between two runs is measured on the same images. Repeats of one configuration
on one test split may be drawn as well, so that the randomness of training is inside (`Resampled.mean_of_drawn`).
Without it, results are conditional on the trained heads. Scores over several random splits, whose rows overlap, have
the corrected resampled t-test.
"""

from emofuse.metrics.confusion import accuracy, classes_without_rows, macro_f1
from emofuse.statistics.bootstrap import Interval, PairedTest, bootstrap_interval, paired_bootstrap
from emofuse.statistics.resampling import ConfusionFormula, Resampled, Resampling, RunPredictions, resample_metrics
from emofuse.statistics.row_resampling import ScoredRows, resample_rows
from emofuse.statistics.significance import EXACT_BELOW, EXCHANGES, McNemarTest, holm, mcnemar
from emofuse.statistics.split_test import SplitTest, corrected_resampled_t

__all__ = [
    "EXACT_BELOW",
    "EXCHANGES",
    "ConfusionFormula",
    "Interval",
    "McNemarTest",
    "PairedTest",
    "Resampled",
    "Resampling",
    "RunPredictions",
    "ScoredRows",
    "SplitTest",
    "accuracy",
    "bootstrap_interval",
    "classes_without_rows",
    "corrected_resampled_t",
    "holm",
    "macro_f1",
    "mcnemar",
    "paired_bootstrap",
    "resample_metrics",
    "resample_rows",
]
