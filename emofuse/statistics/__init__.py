"""How sure a test score is: bootstrap intervals, paired comparisons, and their correction. NumPy alone.

What is drawn is the *unit*, here an image of the test rows. All runs are scored on the same draws, so that a difference
between two of them is that of the same images, and so that repeats of one configuration (several seeds, also several
random splits whose test rows overlap) are drawn together: an image that is drawn twice counts twice in every run that
has it. All of this is conditional on the trained heads: it says what other test images would change, not what another
training would.
"""

from emofuse.metrics.confusion import accuracy, classes_without_rows, macro_f1
from emofuse.statistics.bootstrap import Interval, PairedTest, bootstrap_interval, paired_bootstrap
from emofuse.statistics.resampling import Answers, Metric, Resampled, Resampling, resample_metrics
from emofuse.statistics.significance import EXACT_BELOW, McNemarTest, holm, mcnemar

__all__ = [
    "EXACT_BELOW",
    "Answers",
    "Interval",
    "McNemarTest",
    "Metric",
    "PairedTest",
    "Resampled",
    "Resampling",
    "accuracy",
    "bootstrap_interval",
    "classes_without_rows",
    "holm",
    "macro_f1",
    "mcnemar",
    "paired_bootstrap",
    "resample_metrics",
]
