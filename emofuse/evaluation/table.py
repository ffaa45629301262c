"""The table of a test: every row of the data with its label, the class that it counts as, and the prediction."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.cache.reader import Cache
from emofuse.evaluation.rows import TestedRows
from emofuse.stores import replace_file


def write_predictions(path: Path, cache: Cache, tested: TestedRows, outputs: npt.NDArray[np.float32]) -> None:
    """Write a CSV file with one row for each row of the data, in its order; `scored` says which the scores are of.

    Args:
        path: the path of the file.
        cache: the cache with the rows.
        tested: the rows that are scored, and their targets.
        outputs: the outputs of the model for all rows, (N, M).
    """
    targets, shared = tested.targets, tested.shared
    table = cache.manifest.table.select("sample_id", "path", "split", "label")
    scored = np.zeros(len(cache), np.bool_)
    scored[tested.rows] = True
    columns = [pl.Series("scored", scored)]
    if shared is None:
        columns += [pl.Series(f"output_{name}", outputs[:, place]) for place, name in enumerate(targets.names)]
    else:
        answers = shared.outputs(outputs)
        counted = [shared.names[label] if label >= 0 else None for label in targets.labels.tolist()]
        predicted = [shared.names[place] for place in answers.argmax(axis=1).tolist()]
        columns += [pl.Series("counted_as", counted, pl.String), pl.Series("predicted", predicted, pl.String)]
        columns += [pl.Series(f"prob_{name}", answers[:, place]) for place, name in enumerate(shared.names)]
    file = io.BytesIO()
    table.with_columns(columns).write_csv(file)
    replace_file(path, file.getvalue())
