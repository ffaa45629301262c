"""Log saved runs to experiment trackers: MLflow, Weights & Biases and TensorBoard, one file each.

    logged    what is logged of a run or a report, in plain data
    log       log runs one by one, none twice, and say at the end what was not taken

Runs are logged from their saved folders after they are trained, and never inside a training: hundreds of heads train at
once, and a tracker that hangs or fails must not cost any of them. The library of a tracker is imported when the tracker
is opened, which comes before any work.
"""

from emofuse.tracking.log import find_results, log_results, open_trackers
from emofuse.tracking.logged import logged_searched_run

__all__ = ["find_results", "log_results", "logged_searched_run", "open_trackers"]
