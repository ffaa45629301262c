"""Write the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.results.arrays import PREDICTIONS_FILE, WEIGHTS_FILE, Predictions, write_arrays
from emofuse.results.paths import RECORD_FILE, run_dir
from emofuse.results.record import RunRecord, record_text
from emofuse.stores import making_folder


def write_run(
    runs: Path, record: RunRecord, predictions: Predictions, weights: Mapping[str, npt.NDArray[Any]] | None
) -> Path:
    """Write a run's folder at once and return it. If another process has written the equal run, that one stays.

    Args:
        runs: the folder of all runs.
        record: all but the arrays.
        predictions: the predictions of the test rows.
        weights: weights and scaling; None for an evaluation, which has none.
    """
    runs.mkdir(parents=True, exist_ok=True)
    target = run_dir(runs, record.digest)
    contiguous = {name: np.asarray(array, order="C") for name, array in (weights or {}).items()}
    try:
        with making_folder(target) as partial:
            (partial / RECORD_FILE).write_text(record_text(record), encoding="utf-8")
            arrays = {name: array for name, array in vars(predictions).items() if array is not None}
            arrays[_outputs_name(record)] = arrays.pop("outputs")
            np.savez(partial / PREDICTIONS_FILE, **arrays)
            if weights is not None:
                write_arrays(partial / WEIGHTS_FILE, contiguous)
    except OSError:
        if not (target / RECORD_FILE).is_file():
            raise
    return target


def _outputs_name(record: RunRecord) -> str:
    """Return the name of the outputs in `predictions.npz`."""
    return "values" if record.target_kind == "regression" else "probs"
