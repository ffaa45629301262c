"""Load a saved run and predict with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from emofuse.devices import resolve_device
from emofuse.errors import ResultsError
from emofuse.features import derived_features
from emofuse.heads import load_head_weights
from emofuse.heads.members import HeadBatch
from emofuse.results import RunRecord, read_record, read_weights
from emofuse.scaling import Scaling
from emofuse.specs import RunSpec, parse_spec
from emofuse.status import Status, Step
from emofuse.training.validation import predict_probs


@dataclass(frozen=True)
class TrainedHead:
    """A saved run that is ready to predict.

    Attributes:
        head: the head in evaluation mode, on its device.
        scaling: stream -> its standardisation, as fitted on the run's training rows.
        action_unit_baseline: the scaling of all 30 action units over the run's training faces, also if its head does
            not see them; None if the cache had none.
        record: the record of the run.
    """

    head: nn.Module
    scaling: Mapping[str, Scaling]
    action_unit_baseline: Scaling | None
    record: RunRecord

    def probs(
        self,
        features: Mapping[str, npt.NDArray[Any]],
        status: Mapping[str, npt.NDArray[np.uint8]],
        masks: Mapping[str, npt.NDArray[np.uint8] | None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the probabilities of new rows, from features as a cache stores them.

        Args:
            features: stream -> (n, *shape) as extracted, n >= 1.
            status: stream -> (n,) uint8 of `Status`.
            masks: stream -> (n, T) uint8 of `Step` of every sequence; other streams may have None.

        Returns:
            (n, C) float32, columns in the order of `record.classes`.
        """
        spec = _run_spec(self.record)
        rows, valid, steps = {}, {}, {}
        for name in spec.features.streams:
            valid[name] = self.scaling[name].present(status[name] == Status.OK)
            derived = derived_features(self.record.streams[name]["kind"], features[name], spec.features, name)
            mask = (masks or {}).get(name)
            there = None if mask is None else mask == Step.OK
            if there is not None:
                steps[name] = there
            rows[name] = self.scaling[name].apply(derived, valid[name], there)
        return head_probs(self.head, rows, valid, steps)


def load_head(folder: Path, *, device: str = "cpu") -> TrainedHead:
    """Load the head of a run's folder, as it was when its test rows were scored.

    Raises:
        ResultsError: the folder has no run, or its weights do not fit its record.
        DeviceError: the device does not exist.
    """
    record, arrays = read_record(folder), read_weights(folder)
    spec = _run_spec(record)
    streams = spec.features.streams
    dims = {name: _used_shape(record.streams[name]) for name in streams}
    weights = {name.removeprefix("head."): array for name, array in arrays.items() if name.startswith("head.")}
    # Former versions saved the single number of a stream of a `late` head as an array of one.
    weights = {name: array.reshape(()) if name.endswith(".log_weight") else array for name, array in weights.items()}
    try:
        head = load_head_weights(spec.head, dims, len(record.classes), weights)
        scaling = {
            name: _saved_scaling(arrays, f"scaling.{name}", fitted=record.streams[name].get("fitted", True))
            for name in streams
        }
        baseline = _saved_scaling(arrays, "baseline") if "baseline.center" in arrays else None
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(
            f"{folder}: weights.safetensors does not fit run.json ({reason}); delete the folder and train the run again"
        ) from None
    return TrainedHead(head.to(resolve_device(device)), scaling, baseline, record)


def _used_shape(stream: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a row as the head sees it; of vectors only the length is recorded."""
    return tuple(stream.get("used_shape", (stream["used_dim"],)))


def head_probs(
    head: nn.Module,
    features: Mapping[str, npt.NDArray[np.floating[Any]]],
    valid: Mapping[str, npt.NDArray[np.bool_]],
    steps: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the probabilities (n, C) of a single head, of standardised features (n, *shape) and steps (n, T)."""
    device = next(head.parameters()).device
    batch = HeadBatch(
        {name: torch.from_numpy(array).unsqueeze(0).to(device) for name, array in features.items()},
        {name: torch.from_numpy(array).unsqueeze(0).to(device) for name, array in valid.items()},
        {name: torch.from_numpy(array).unsqueeze(0).to(device) for name, array in (steps or {}).items()},
    )
    probs: npt.NDArray[np.float32] = predict_probs(head, batch)[0]
    return probs


def _saved_scaling(arrays: Mapping[str, npt.NDArray[Any]], name: str, *, fitted: bool = True) -> Scaling:
    """Return a scaling as it was saved. Runs of former versions have no limits, and may use streams without a fit."""
    return Scaling(arrays[f"{name}.center"], arrays[f"{name}.scale"], arrays.get(f"{name}.limit"), fitted)


def _run_spec(record: RunRecord) -> RunSpec:
    return parse_spec(RunSpec, record.spec, f"run {record.digest[:16]}")
