"""The prediction of a run for one file: probabilities or values, the face, and the action units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ActionUnit:
    """One facial action unit measurement of a face.

    Attributes:
        name: the name of the measurement, see `emofuse.streams.action_units`.
        value: the raw measurement, in inter-ocular distances or radians.
        activation: the distance from the baseline of the run's training faces, in deviations; None without a baseline,
            which is so if the run's cache had no action units.
    """

    name: str
    value: float
    activation: float | None


@dataclass(frozen=True)
class Prediction:
    """The prediction of a run for one image, clip or sound.

    Attributes:
        path: the path of the file, followed by that of a member: `faces.zip/happy/1.png`.
        probs: label -> probability, most probable first; empty if the image cannot be read, or if the run predicts
            numbers.
        face: whether a face was found; None if the image cannot be read, or if no stream of the run looks at faces.
        action_units: the action units, the strongest first, or in the stream's order without a baseline; empty without
            a face. Of a clip they are means over the frames with a face.
        missing: stream of the run -> why the head does not use it: the name of its status in lower case, or
            `never_learned` if hardly any training row had the stream.
        problem: the reason why the image cannot be read, or None.
        kind: what the run predicts: `class`, `distribution`, `regression` or `multilabel`.
        values: column of a regression -> its predicted value, in the unit of the column; empty for others.
        face_box: the left, top, width and height of the face in pixels of the picture, of a run whose cache gives each
            face a row (`face.which: all`); None for others, and without a face.
    """

    path: Path
    probs: Mapping[str, float]
    face: bool | None
    action_units: Sequence[ActionUnit]
    missing: Mapping[str, str]
    problem: str | None
    kind: str = "class"
    values: Mapping[str, float] = field(default_factory=dict)
    face_box: tuple[float, float, float, float] | None = None

    @property
    def label(self) -> str | None:
        """The most probable label; None where the run predicts numbers or several labels."""
        return next(iter(self.probs), None) if self.kind in {"class", "distribution"} else None

    @property
    def labels(self) -> list[str]:
        """The labels that are more probable than not, of a run that predicts several, most probable first."""
        return [label for label, prob in self.probs.items() if prob > 0.5] if self.kind == "multilabel" else []

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain data: label and probs, or labels and probs, or values."""
        match self.kind:
            case "regression":
                answer: dict[str, Any] = {"values": dict(self.values)}
            case "multilabel":
                answer = {"labels": self.labels, "probs": dict(self.probs)}
            case _:
                answer = {"label": self.label, "probs": dict(self.probs)}
        return {
            "path": str(self.path),
            **answer,
            "face": self.face,
            **({} if self.face_box is None else {"face_box": list(self.face_box)}),
            "action_units": [vars(unit) for unit in self.action_units],
            "missing": dict(self.missing),
            "problem": self.problem,
        }
