"""Saved runs: plain files that training writes and reports read.

A run is one folder named by its digest::

    runs/<digest, 16 hex digits>/
        run.json            everything but arrays (class `RunRecord`)
        predictions.npz     test rows: sample_id (str), label (int64), probs (n, C) float32 or, of a regression, values
                            (n, C) float32; group (str) if there are groups; target (n, C) float32 of all but classes
        weights.safetensors `head.<parameter or buffer>`, `scaling.<stream>.center|scale|limit`, of a stream with
                            principal components also `scaling.<stream>.components|offset|variances`, and, if the cache
                            has action units, `baseline.center|scale` of all 30 over the run's training faces; of head k
                            of an ensemble `heads.<k>.head...` and `heads.<k>.scaling...`

The folder is written under another name and renamed, so it is complete or absent. `references.json` beside the runs has
the notes on their reference models, for reports that are made later.
"""

from emofuse.results.arrays import Predictions, read_predictions, read_weights
from emofuse.results.paths import ResultPaths, check_results_folder, folder_of_runs, run_dir, runs_of_folder
from emofuse.results.record import RunRecord, list_runs, read_record, record_plugins, rename_run
from emofuse.results.references import read_reference_notes, write_reference_notes
from emofuse.results.write import write_run

__all__ = [
    "Predictions",
    "ResultPaths",
    "RunRecord",
    "check_results_folder",
    "folder_of_runs",
    "list_runs",
    "read_predictions",
    "read_record",
    "read_reference_notes",
    "read_weights",
    "record_plugins",
    "rename_run",
    "run_dir",
    "runs_of_folder",
    "write_reference_notes",
    "write_run",
]
