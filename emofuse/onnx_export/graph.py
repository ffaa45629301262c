"""A whole model as one module that can be traced: derived features, standardisation, heads, their mean, and units.

Inputs are the features of streams as they are extracted and cached, so that nobody has to know the variants and the
standardisation of a run. A row without a stream may hold anything in it, if it says that the stream is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from emofuse.errors import ResultsError
from emofuse.features import Choice, chosen_variant, derive
from emofuse.heads.links import apply_link
from emofuse.heads.members import HeadBatch
from emofuse.onnx_export.plain import make_plain
from emofuse.results import RunRecord
from emofuse.scaling import Scaling, feature_axis
from emofuse.specs import RunSpec, parse_spec
from emofuse.specs.streams import STREAMS
from emofuse.training.targets import LINKS, TargetScale
from emofuse.training.trained import ScaledHead, TrainedHead

_SAME = 1e-6
"""The largest difference of a derived feature to the one of its kind, relative to the largest."""


@dataclass(frozen=True)
class StreamInput:
    """The inputs of one stream.

    Attributes:
        name: the name of the stream.
        kind: its kind.
        shape: the shape of a row as it is extracted; the first axis of a sequence may be shorter.
        is_sequence: whether rows are sequences, of which each step is there or not.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    is_sequence: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs: features, whether each row has the stream, and which steps are there."""
        return (self.name, f"{self.name}.present", *([f"{self.name}.steps"] if self.is_sequence else []))

    @property
    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Input -> its axes of any length, with their names."""
        time = {1: f"{self.name}_time"} if self.is_sequence else {}
        axes = {self.names[0]: {0: "batch", **time}, self.names[1]: {0: "batch"}}
        return axes | ({self.names[2]: {0: "batch", **time}} if self.is_sequence else {})


def stream_inputs(record: RunRecord) -> list[StreamInput]:
    """Return the inputs of the streams of a run, in the order of its spec."""
    spec = parse_spec(RunSpec, record.spec, f"run {record.digest[:16]}")
    inputs = []
    for name in spec.features.streams:
        stream = record.streams[name]
        shape = tuple(stream.get("used_shape", (stream["used_dim"],)))
        kind = STREAMS.find(stream["kind"])
        if kind is not None and chosen_variant(stream["kind"], name, spec.features) and kind.stored_shape is not None:
            shape = (*shape[: len(shape) - len(kind.stored_shape)], *kind.stored_shape)
        inputs.append(StreamInput(name, stream["kind"], shape, len(shape) in {2, 4}))
    return inputs


class ModelGraph(nn.Module):
    """A trained model from extracted features to outputs.

    Args:
        trained: the model; the heads of an ensemble are averaged.
    """

    def __init__(self, trained: TrainedHead) -> None:
        super().__init__()
        record = trained.record
        self.inputs = stream_inputs(record)
        spec = parse_spec(RunSpec, record.spec, f"run {record.digest[:16]}")
        self.derived = nn.ModuleList(
            _Derived(each, chosen_variant(each.kind, each.name, spec.features)) for each in self.inputs
        )
        self.heads = nn.ModuleList(_ScaledGraph(head, self.inputs, record.target_kind) for head in trained.heads)

    @property
    def input_names(self) -> list[str]:
        """The names of all inputs, in the order of `forward`."""
        return [name for each in self.inputs for name in each.names]

    @property
    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Input -> its axes of any length, with their names."""
        return {name: axes for each in self.inputs for name, axes in each.dynamic_axes.items()}

    def forward(self, *arrays: Tensor) -> Tensor:
        """Return the outputs (B, C) of the arrays of all inputs."""
        features, valid, steps = {}, {}, {}
        rest = list(arrays)
        for each, derive_features in zip(self.inputs, self.derived, strict=True):
            stored, present = rest.pop(0), rest.pop(0)
            features[each.name] = derive_features(stored.to(torch.float32))
            valid[each.name] = present
            if each.is_sequence:
                steps[each.name] = rest.pop(0)
        outputs = [head(features, valid, steps) for head in self.heads]
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(dim=0)


class _Derived(nn.Module):
    """The features of a variant as one matrix product of the stored ones: every variant selects or adds columns."""

    matrix: Tensor | None

    def __init__(self, stream: StreamInput, choice: Choice) -> None:
        super().__init__()
        self.register_buffer("matrix", _matrix_of(stream, choice))

    def forward(self, stored: Tensor) -> Tensor:
        return stored if self.matrix is None else torch.matmul(stored, self.matrix)


def _matrix_of(stream: StreamInput, choice: Choice) -> Tensor | None:
    """Return the matrix (stored, seen) of a variant, or None if heads see what is stored.

    Raises:
        ResultsError: the variant is no linear map of the features.
    """
    if not choice:
        return None
    width = stream.shape[-1]
    rows = np.random.default_rng(0).normal(size=(16, width)).astype(np.float32)
    matrix, expected = (derive(stream.kind, values, choice) for values in (np.eye(width, dtype=np.float32), rows))
    found = rows.astype(np.float64) @ matrix.astype(np.float64)
    if found.shape != expected.shape or np.abs(found - expected).max() > _SAME * max(
        1.0, float(np.abs(expected).max())
    ):
        raise ResultsError(
            f"stream {stream.name!r}: what heads see of a stream of kind {stream.kind!r} is no linear map of its "
            "features, so that it cannot be part of an ONNX graph"
        )
    return None if np.array_equal(matrix, np.eye(width)) else torch.from_numpy(matrix)


class _ScaledGraph(nn.Module):
    """One head with its standardisation, its link and its units."""

    def __init__(self, scaled: ScaledHead, inputs: Sequence[StreamInput], target: str) -> None:
        super().__init__()
        self.link = LINKS[target]
        self.names = [each.name for each in inputs]
        self.scalings = nn.ModuleList(
            _Scaled(scaled.scaling[each.name], len(each.shape), is_sequence=each.is_sequence) for each in inputs
        )
        self.head = make_plain(scaled.head)
        self.units = _Units(scaled.target_scale)

    def forward(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], steps: Mapping[str, Tensor]
    ) -> Tensor:
        seen, there = {}, {}
        for name, scaling in zip(self.names, self.scalings, strict=True):
            seen[name], there[name] = scaling(features[name], valid[name], steps.get(name))
        batch = HeadBatch(
            {name: values.unsqueeze(0) for name, values in seen.items()},
            {name: present.unsqueeze(0) for name, present in there.items()},
            {name: present.unsqueeze(0) for name, present in steps.items()},
        )
        outputs: Tensor = self.units(apply_link(self.link, self.head(batch)[0]))
        return outputs


class _Scaled(nn.Module):
    """The standardisation of a stream, as `emofuse.scaling.Scaling.apply` defines it."""

    center: Tensor
    scale: Tensor
    limit: Tensor | None
    components: Tensor | None
    offset: Tensor | None

    def __init__(self, scaling: Scaling, axes: int, *, is_sequence: bool) -> None:
        super().__init__()
        self.axes, self.is_sequence, self.fitted = axes, is_sequence, scaling.fitted
        self.feature_axis = feature_axis((1,) * axes)
        broadcast = (-1, *[1] * (-self.feature_axis - 1))
        projection = scaling.projection
        for name, array in (
            ("center", scaling.center),
            ("scale", scaling.scale),
            ("limit", scaling.limit),
        ):
            self.register_buffer(name, None if array is None else _tensor(array).reshape(broadcast))
        self.register_buffer("components", None if projection is None else _tensor(projection.components))
        self.register_buffer("offset", None if projection is None else _tensor(projection.offset))

    def forward(self, features: Tensor, valid: Tensor, steps: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return standardised features (B, *shape), and which rows have the stream (B,)."""
        valid = valid if self.fitted else torch.zeros_like(valid)
        there = valid.reshape(-1, *[1] * self.axes)
        if steps is not None:
            there = there & steps.reshape(*steps.shape, *[1] * (self.axes - 1))
        values = (torch.where(there, features, torch.zeros_like(features)) - self.center) / self.scale
        if self.limit is not None:
            values = torch.maximum(torch.minimum(values, self.limit), -self.limit)
        if self.components is not None and self.offset is not None:
            axis, last = values.dim() + self.feature_axis, values.dim() - 1
            projected = torch.matmul(values.transpose(axis, last), self.components.t()) - self.offset
            values = projected.transpose(axis, last)
        return torch.where(there, values, torch.zeros_like(values)), valid


class _Units(nn.Module):
    """The units of the columns of a regression; other outputs stay as they are."""

    center: Tensor | None
    scale: Tensor | None

    def __init__(self, units: TargetScale | None) -> None:
        super().__init__()
        self.register_buffer("center", None if units is None else _tensor(units.center))
        self.register_buffer("scale", None if units is None else _tensor(units.scale))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs if self.center is None or self.scale is None else outputs * self.scale + self.center


def _tensor(array: npt.NDArray[np.floating[Any]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
