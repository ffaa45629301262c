"""Load the heads of a saved run and predict with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from emofuse.errors import ResultsError
from emofuse.features import derived_features
from emofuse.heads import load_head_weights
from emofuse.heads.links import Link
from emofuse.heads.members import HeadBatch
from emofuse.machine.devices import resolve_device
from emofuse.results import RunRecord, read_record, read_weights
from emofuse.scaling import Scaling, feature_axis, saved_projection, shape_after
from emofuse.specs import RunSpec, parse_spec
from emofuse.status import Status, Step
from emofuse.training.targets import LINKS, TargetScale, in_units
from emofuse.training.validation import mean_outputs, predict_outputs


@dataclass(frozen=True)
class ScaledHead:
    """One head with its standardisation.

    Attributes:
        head: the head in evaluation mode, on its device.
        scaling: stream -> its standardisation, as fitted on the training rows of the head.
        target_scale: the standardisation of the targets of a regression; None for others.
    """

    head: nn.Module
    scaling: Mapping[str, Scaling]
    target_scale: TargetScale | None = None


@dataclass(frozen=True)
class HeadInputs:
    """What a head sees of n rows.

    Attributes:
        features: stream -> (n, *shape) float32, derived and standardised, zeros where a row lacks the stream.
        valid: stream -> (n,) bool, whether the head uses the stream of the row.
        steps: stream -> (n, T) bool of every sequence, whether the step is there.
    """

    features: Mapping[str, npt.NDArray[np.float32]]
    valid: Mapping[str, npt.NDArray[np.bool_]]
    steps: Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class TrainedHead:
    """A saved run that is ready to predict.

    Attributes:
        heads: the head, or the several heads of an ensemble, whose outputs are averaged.
        action_unit_baseline: the scaling of all 30 action units over the run's training faces, also if its head does
            not see them; None if the cache had none.
        record: the record of the run.
    """

    heads: tuple[ScaledHead, ...]
    action_unit_baseline: Scaling | None
    record: RunRecord

    def outputs(
        self,
        features: Mapping[str, npt.NDArray[Any]],
        status: Mapping[str, npt.NDArray[np.uint8]],
        masks: Mapping[str, npt.NDArray[np.uint8] | None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the outputs of new rows, from features as a cache stores them.

        They are probabilities of classes or labels, or values in the units of their columns (`record.target_kind`).

        Args:
            features: stream -> (n, *shape) as extracted, n >= 1.
            status: stream -> (n,) uint8 of `Status`.
            masks: stream -> (n, T) uint8 of `Step` of every sequence; other streams may have None.

        Returns:
            (n, C) float32, columns in the order of `record.classes`.
        """
        return self.answers(self.inputs(features, status, masks))

    def inputs(
        self,
        features: Mapping[str, npt.NDArray[Any]],
        status: Mapping[str, npt.NDArray[np.uint8]],
        masks: Mapping[str, npt.NDArray[np.uint8] | None] | None = None,
    ) -> tuple[HeadInputs, ...]:
        """Return what each head sees of new rows: derived and standardised features. For arguments see `outputs`."""
        spec = _run_spec(self.record)
        derived, steps = {}, {}
        for name in spec.features.streams:
            derived[name] = derived_features(self.record.streams[name]["kind"], features[name], spec.features, name)
            mask = (masks or {}).get(name)
            if mask is not None:
                steps[name] = mask == Step.OK
        inputs = []
        for each in self.heads:
            rows, valid = {}, {}
            for name, values in derived.items():
                valid[name] = each.scaling[name].present(status[name] == Status.OK)
                rows[name] = each.scaling[name].apply(values, valid[name], steps.get(name))
            inputs.append(HeadInputs(rows, valid, steps))
        return tuple(inputs)

    def answers(self, inputs: Sequence[HeadInputs]) -> npt.NDArray[np.float32]:
        """Return the outputs (n, C) of what each head sees, see `outputs`."""
        link = LINKS[self.record.target_kind]
        parts = []
        for each, seen in zip(self.heads, inputs, strict=True):
            outputs = head_outputs(each.head, seen.features, seen.valid, seen.steps, link=link)
            parts.append(in_units(outputs, each.target_scale))
        return mean_outputs(parts)


def load_head(folder: Path, *, device: str = "cpu") -> TrainedHead:
    """Load the heads of a run's folder, as they were when its test rows were scored.

    Raises:
        ResultsError: the folder has no run, or its weights do not fit its record.
        DeviceError: the device does not exist.
    """
    record, arrays = read_record(folder), read_weights(folder)
    count = max(1, len(record.heads))
    where = resolve_device(device)
    try:
        heads = tuple(_saved_head(record, arrays, number, place) for number, place in enumerate(array_places(count)))
        baseline = _saved_scaling(arrays, "baseline") if "baseline.center" in arrays else None
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(
            f"{folder}: weights.safetensors does not fit run.json ({reason}); delete the folder and train the run again"
        ) from None
    return TrainedHead(tuple(replace(each, head=each.head.to(where)) for each in heads), baseline, record)


def average_runs(runs: Sequence[TrainedHead]) -> TrainedHead:
    """Return one model whose outputs are the mean of those of several saved runs on the same features.

    The record is that of the first run, with the heads of all. The action units are described against the baseline of
    the first run.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    streams = {
        name: {**stream, "fitted": any(run.record.streams[name].get("fitted", True) for run in runs)}
        for name, stream in first.record.streams.items()
    }
    described = [head for run in runs for head in _described_heads(run.record)]
    record = replace(first.record, streams=streams, heads=described)
    return TrainedHead(tuple(head for run in runs for head in run.heads), first.action_unit_baseline, record)


def _described_heads(record: RunRecord) -> Sequence[Mapping[str, Any]]:
    """Return what a record says of each of its heads, also where it has one."""
    fitted = {name: stream.get("fitted", True) for name, stream in record.streams.items()}
    seed = record.spec.get("train", {}).get("seed")
    alone = {"fold": None, "seed": seed, "best_epoch": record.best_epoch, "history": record.history, "fitted": fitted}
    return record.heads or [alone]


def array_places(heads: int) -> list[str]:
    """Return what the names of the arrays of each head of a run begin with; nothing for a single head."""
    return [""] if heads == 1 else [f"heads.{number}." for number in range(heads)]


def _saved_head(record: RunRecord, arrays: Mapping[str, npt.NDArray[Any]], number: int, place: str) -> ScaledHead:
    """Return one head of a run, on the CPU; the names of its arrays begin with `place`."""
    spec, start = _run_spec(record), f"{place}head."
    dims = {}
    for name in spec.features.streams:
        dims[name] = _used_shape(record.streams[name])
        projection = saved_projection(arrays, f"{place}scaling.{name}")
        if projection is not None:  # the folds of an ensemble may keep other numbers of components
            dims[name] = shape_after(dims[name], feature_axis(dims[name]), projection.width)
    weights = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
    # Former versions saved the single number of a stream of a `late` head as an array of one.
    weights = {name: array.reshape(()) if name.endswith(".log_weight") else array for name, array in weights.items()}
    head = load_head_weights(spec.head, dims, len(record.classes), weights, LINKS[record.target_kind])
    fitted = {name: record.streams[name].get("fitted", True) for name in dims}
    if record.heads:
        fitted = record.heads[number]["fitted"]
    scaling = {name: _saved_scaling(arrays, f"{place}scaling.{name}", fitted=fitted[name]) for name in dims}
    return ScaledHead(head, scaling, TargetScale.saved(arrays, place))


def _used_shape(stream: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a row as the head sees it; of vectors only the length is recorded."""
    return tuple(stream.get("used_shape", (stream["used_dim"],)))


def head_outputs(
    head: nn.Module,
    features: Mapping[str, npt.NDArray[np.floating[Any]]],
    valid: Mapping[str, npt.NDArray[np.bool_]],
    steps: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    *,
    link: Link = "softmax",
) -> npt.NDArray[np.float32]:
    """Return the outputs (n, C) of a single head, of standardised features (n, *shape) and steps (n, T).

    Those of a regression stay standardised as its targets are.
    """
    device = next(head.parameters()).device
    batch = HeadBatch(
        {name: torch.from_numpy(array).unsqueeze(0).to(device) for name, array in features.items()},
        {name: torch.from_numpy(array).unsqueeze(0).to(device) for name, array in valid.items()},
        {name: torch.from_numpy(array).unsqueeze(0).to(device) for name, array in (steps or {}).items()},
    )
    outputs: npt.NDArray[np.float32] = predict_outputs(head, batch, link)[0]
    return outputs


def _saved_scaling(arrays: Mapping[str, npt.NDArray[Any]], name: str, *, fitted: bool = True) -> Scaling:
    """Return a scaling as it was saved. Runs of former versions have no limits, and may use streams without a fit."""
    limit = arrays.get(f"{name}.limit")
    return Scaling(arrays[f"{name}.center"], arrays[f"{name}.scale"], limit, fitted, saved_projection(arrays, name))


def _run_spec(record: RunRecord) -> RunSpec:
    return parse_spec(RunSpec, record.spec, f"run {record.digest[:16]}")
