"""The check of a written ONNX file: onnxruntime must give what torch gives, on generated rows and on given samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.media.libraries import import_library
from emofuse.onnx_export.graph import StreamInput
from emofuse.results import RunRecord
from emofuse.scaling import Scaling, feature_axis
from emofuse.status import Status, Step
from emofuse.training.trained import TrainedHead

HEAD_TOLERANCE = 1e-5
"""The largest difference of an output of the head, relative to the largest output above 1."""
BACKBONE_TOLERANCE = 1e-4
"""The same of a graph with its backbone, whose features may be rounded to float16 on either side of a boundary."""
_ROWS = (1, 2, 17)
_PURPOSE = "ONNX files"
_SHOWN = 300  # letters of an error of onnxruntime

Arrays = Mapping[str, npt.NDArray[Any]]


class OnnxModel:
    """An ONNX file on the CPU.

    Raises:
        StreamError: onnxruntime is not installed.
        ResultsError: onnxruntime refuses the file.
    """

    def __init__(self, path: Path) -> None:
        runtime = import_library("onnxruntime", extra="onnx", purpose=_PURPOSE)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = " ".join(str(error).split())[:_SHOWN]
            raise ResultsError(f"onnxruntime cannot load the ONNX graph, so no file was written: {reason}") from error

    def outputs(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        """Return the outputs (n, C)."""
        outputs: npt.NDArray[np.float32] = self._session.run(None, dict(arrays))[0]
        return outputs


def check_outputs(
    name: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], tolerance: float
) -> float:
    """Check that outputs agree, and return the largest difference.

    Args:
        name: what was computed, for the message.
        found: the outputs of the file.
        expected: those of torch.
        tolerance: the largest difference, relative to the largest output above 1.

    Raises:
        ResultsError: the outputs differ more, or are not finite.
    """
    difference = float(np.abs(found.astype(np.float64) - expected).max()) if found.shape == expected.shape else np.inf
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise ResultsError(
            f"the ONNX graph differs from the model by {difference:.2g} on {name} (allowed: {allowed:.2g}), so no file "
            "was written. Report this with the head and the streams of the run"
        )
    return difference


def expected_outputs(model: TrainedHead, inputs: Sequence[StreamInput], arrays: Arrays) -> npt.NDArray[np.float32]:
    """Return the outputs (n, C) of the model itself for the arrays of an ONNX file."""
    features = {each.name: arrays[each.name] for each in inputs}
    status = {
        each.name: np.where(arrays[each.names[1]], Status.OK, Status.NO_DETECTION).astype(np.uint8) for each in inputs
    }
    masks = {
        each.name: np.where(arrays[each.names[2]], Step.OK, Step.PADDING).astype(np.uint8) if each.is_sequence else None
        for each in inputs
    }
    return model.outputs(features, status, masks)


def generated_arrays(record: RunRecord, model: TrainedHead, inputs: Sequence[StreamInput]) -> list[dict[str, Any]]:
    """Return arrays of 1, 2 and 17 rows around the training rows; some lack streams and steps, and are NaN there."""
    rng = np.random.default_rng(int(record.digest[:8], 16))
    return [
        {key: array for each in inputs for key, array in _of_stream(each, model.heads[0].scaling[each.name], rows, rng)}
        for rows in _ROWS
    ]


def _of_stream(
    stream: StreamInput, scaling: Scaling, rows: int, rng: np.random.Generator
) -> list[tuple[str, npt.NDArray[Any]]]:
    values = rng.normal(0, 2, (rows, *stream.shape))
    axis = feature_axis(stream.shape)
    width = min(len(scaling.center), stream.shape[axis])  # heads may see fewer columns than are stored
    broadcast = [1] * (-axis - 1)
    seen = [slice(None)] * (values.ndim + axis) + [slice(width)] + [slice(None)] * (-axis - 1)
    scale, center = (array[:width].reshape(-1, *broadcast) for array in (scaling.scale, scaling.center))
    values[tuple(seen)] = values[tuple(seen)] * scale + center
    present = rng.random(rows) > 0.3 if rows > 1 else np.ones(1, np.bool_)
    features = values.astype(np.float32)
    features[~present] = np.nan
    arrays: list[tuple[str, npt.NDArray[Any]]] = [(stream.names[0], features), (stream.names[1], present)]
    if stream.is_sequence:
        steps = rng.random((rows, stream.shape[0])) > 0.3
        features[~steps] = np.nan
        arrays.append((stream.names[2], steps))
    return arrays
