"""The arrays of a run: its predictions and its weights."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError

PREDICTIONS_FILE = "predictions.npz"
WEIGHTS_FILE = "weights.safetensors"
_UNREADABLE_NPZ = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""The errors of zipfile and NumPy for a damaged file, which depend on the place of the damage."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for its n test rows.

    Attributes:
        sample_id: the ids of the samples, (n,) str.
        label: the class index of each row, (n,) int64; -1 in every row of a regression and of several labels.
        outputs: the probabilities of the C classes, whose rows sum to 1, or of the C labels, or the C values of a
            regression in the units of its columns, (n, C) float32.
        group: the group of each sample (its speaker, film or picture), (n,) str, empty for a sample that is a group of
            its own; None if the manifest has no groups.
        target: the true values that `outputs` is compared with, (n, C) float32: a distribution over the classes, the
            columns of a regression, or 0 and 1 of each label; None if the target is a class.
    """

    sample_id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.float32]
    group: npt.NDArray[np.str_] | None = None
    target: npt.NDArray[np.float32] | None = None

    @property
    def probs(self) -> npt.NDArray[np.float32]:
        """The outputs where they are probabilities: of classes, of a distribution, or of several labels."""
        return self.outputs


def read_predictions(folder: Path) -> Predictions:
    """Read the predictions of a run's folder, without unpickling.

    Raises:
        ResultsError: the file is missing or damaged.
    """
    path = folder / PREDICTIONS_FILE
    try:
        with np.load(path, allow_pickle=False) as data:
            outputs = data["values"] if "values" in data else data["probs"]
            return Predictions(data["sample_id"], data["label"], outputs, data.get("group"), data.get("target"))
    except _UNREADABLE_NPZ as error:
        raise ResultsError(f"{path}: missing or damaged ({error}); delete the folder and train the run again") from None


def read_weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the parameters, buffers and scaling of the head from a run's folder.

    Raises:
        ResultsError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResultsError(f"{path}: missing or damaged ({error}); delete the folder and train the run again") from None


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays in C order as one safetensors file.

    Raises:
        OSError: the disk refuses it. safetensors has an error of its own for this, with the number in its message.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(arrays), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
