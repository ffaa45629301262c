"""The uncertainty of test scores: intervals, paired comparisons and their correction.

The bootstrap draws *units*, here the images of the test rows. All runs are scored on the same draws, so a difference
between two runs is measured on the same images. Repeats of one configuration (several seeds, or several random splits
whose test rows overlap) are drawn together: an image that is drawn twice counts twice in every run that has it. All
results are conditional on the trained heads: they cover the choice of test images, not the randomness of training.
"""

from emofuse.metrics.confusion import accuracy, classes_without_rows, macro_f1
from emofuse.statistics.bootstrap import Interval, PairedTest, bootstrap_interval, paired_bootstrap
from emofuse.statistics.resampling import ConfusionFormula, Resampled, Resampling, RunPredictions, resample_metrics
from emofuse.statistics.significance import EXACT_BELOW, McNemarTest, holm, mcnemar
from emofuse.statistics.split_test import SplitTest, corrected_resampled_t

__all__ = [
    "EXACT_BELOW",
    "ConfusionFormula",
    "Interval",
    "McNemarTest",
    "PairedTest",
    "Resampled",
    "Resampling",
    "RunPredictions",
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
]
