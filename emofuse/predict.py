"""Predictions for images, clips and sounds, by the extractors, the scaling and the head of a saved run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.datasets.files import DatasetFiles
from emofuse.datasets.names import SUFFIXES_OF, NameKind
from emofuse.datasets.sources import Source
from emofuse.datasets.walk import FolderWalk
from emofuse.errors import DatasetError, StaleCacheError
from emofuse.results import RunRecord
from emofuse.specs import ActionUnitsSpec, CacheSpec, StreamSpec, digest, parse_spec
from emofuse.status import Status, Step
from emofuse.streams import stream_identity, with_located_weights
from emofuse.streams.base import Rows
from emofuse.streams.block_extraction import Extraction
from emofuse.streams.extractor import Extractor
from emofuse.training.trained import TrainedHead, load_head

_ACTION_UNITS = "action_units"
_BLOCK_ROWS = 64
IMAGES = frozenset({NameKind.IMAGE})


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
        path: the path of the file.
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
    """

    path: Path
    probs: Mapping[str, float]
    face: bool | None
    action_units: Sequence[ActionUnit]
    missing: Mapping[str, str]
    problem: str | None
    kind: str = "class"
    values: Mapping[str, float] = field(default_factory=dict)

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
            "action_units": [vars(unit) for unit in self.action_units],
            "missing": dict(self.missing),
            "problem": self.problem,
        }


class Predictor:
    """A saved run with its extractors, ready for images.

    Raises:
        ResultsError: the folder has no run, or a damaged one.
        WeightsError: the weights of a stream are not on this machine.
        StaleCacheError: this machine would extract other features than those that the run was trained on.
    """

    def __init__(self, run: Path, *, device: str = "cpu") -> None:
        self._trained: TrainedHead = load_head(run, device=device)
        record = self._trained.record
        spec = parse_spec(CacheSpec, dict(record.cache_spec), f"{run}/run.json: cache_spec")
        weights = {name: stream["weights"] for name, stream in record.streams.items()}
        beside = (run, run.absolute().parent, run.absolute().parent.parent)  # a whole pipeline may have moved
        spec = with_located_weights(spec, weights, beside=beside)
        _check_same_features(spec, record, run)
        self._faces = _action_unit_stream(spec) if any("face" in stream.needs for stream in spec.streams) else None
        self._kinds = kinds_of_files(spec)
        streams = spec.streams if self._faces is None or self._faces in spec.streams else (*spec.streams, self._faces)
        self._extractor = Extractor(streams, spec, device=device)
        self._columns = () if self._faces is None else self._extractor.streams[self._faces.name].columns
        self._baseline = self._trained.action_unit_baseline

    @property
    def record(self) -> RunRecord:
        """The record of the run."""
        return self._trained.record

    @property
    def kinds(self) -> frozenset[NameKind]:
        """The kinds of files that the streams of the run were extracted from: pictures, clips, sounds."""
        return self._kinds

    def predict(self, sources: Sequence[Path | Source]) -> Iterator[Prediction]:
        """Yield the predictions of files, or of spans and members of files, in their order, in blocks of 64 samples."""
        for start in range(0, len(sources), _BLOCK_ROWS):
            block = list(sources[start : start + _BLOCK_ROWS])
            extraction = self._extractor.extract(block)
            rows = extraction.rows
            outputs = self._trained.outputs(
                {name: part.features for name, part in rows.items()},
                {name: part.status for name, part in rows.items()},
                {name: part.mask for name, part in rows.items()},
            )
            for index, source in enumerate(block):
                path = source.path if isinstance(source, Source) else source
                yield self._describe(path, extraction, index, outputs[index])

    def close(self) -> None:
        """Release the extractors."""
        self._extractor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _describe(self, path: Path, extraction: Extraction, index: int, outputs: npt.NDArray[np.float32]) -> Prediction:
        record, kind = self._trained.record, self._trained.record.target_kind
        reasons = [reason for row, _, reason in extraction.problems if row == index]
        if all(extraction.rows[name].status[index] == Status.UNREADABLE for name in record.streams):
            return Prediction(path, {}, None, (), {}, "; ".join(dict.fromkeys(reasons)) or "unreadable", kind)
        is_regression = kind == "regression"
        order = range(len(outputs)) if is_regression else np.argsort(-outputs, kind="stable")
        answers = {record.classes[i]: float(outputs[i]) for i in order}
        faces = None if self._faces is None else extraction.rows[self._faces.name]
        has_face = None if faces is None else bool(faces.status[index] == Status.OK)
        return Prediction(
            path=path,
            probs={} if is_regression else answers,
            face=has_face,
            action_units=self._strongest(_values(faces, index)) if faces is not None and has_face else (),
            missing=missing_streams(
                record, {name: Status(extraction.rows[name].status[index]) for name in record.streams}
            ),
            problem=None,
            kind=kind,
            values=answers if is_regression else {},
        )

    def _strongest(self, values: npt.NDArray[Any]) -> tuple[ActionUnit, ...]:
        if self._baseline is None:
            return tuple(ActionUnit(name, float(v), None) for name, v in zip(self._columns, values, strict=True))
        activations = (values - self._baseline.center) / self._baseline.scale
        order = np.argsort(-np.abs(activations), kind="stable")
        return tuple(ActionUnit(self._columns[i], float(values[i]), float(activations[i])) for i in order)


def _values(rows: Rows, index: int) -> npt.NDArray[np.floating[Any]]:
    """Return the features of one row; of a sequence the mean over the steps that have any."""
    values: npt.NDArray[np.floating[Any]] = rows.features[index]
    return values if rows.mask is None else np.asarray(values[rows.mask[index] == Step.OK].mean(axis=0))


def missing_streams(record: RunRecord, status: Mapping[str, Status]) -> dict[str, str]:
    """Return the streams of a run that its head does not use for an image, with the reason."""
    missing = {}
    for name, stream in record.streams.items():
        if status[name] is not Status.OK:
            missing[name] = status[name].name.lower()
        elif not stream.get("fitted", True):
            missing[name] = "never_learned"
    return missing


def find_images(
    path: Path, kinds: frozenset[NameKind] = IMAGES, *, say: Callable[[str], None] | None = None
) -> list[Path]:
    """Return the file, or the sorted images below a folder, listed by the same rule as datasets.

    Links are followed, because the user has chosen the path.

    Args:
        path: the path of a file or a folder.
        kinds: the kinds of files to list in a folder; images unless given.
        say: receives a line for each kind of file that was left out.

    Raises:
        DatasetError: the path does not exist, is neither a file nor a folder, or is a folder without an image.
    """
    if path.is_file():
        return [path]
    nouns = " or ".join(sorted(kinds))
    if not path.is_dir():
        problem = "is neither a file nor a folder" if path.exists() else f"no such {nouns} or folder"
        raise DatasetError(f"{path}: {problem}")
    walk = FolderWalk(DatasetFiles(path, follow_links=True), kinds)
    images = sorted(path / picture.path for picture in walk.pictures(""))
    if not images:
        left_out = "".join(f"; {note}" for note in walk.notes())
        suffixes = ", ".join(suffix for kind in sorted(kinds) for suffix in SUFFIXES_OF[kind])
        raise DatasetError(f"{path}: no {nouns} in this folder (looked for {suffixes}{left_out})")
    if say is not None:
        for note in walk.notes():
            say(f"{path}: {note}")
    return images


def kinds_of_files(spec: CacheSpec) -> frozenset[NameKind]:
    """Return the kinds of files that the streams of a cache spec are extracted from: pictures, clips, sounds."""
    if spec.clip is not None:
        return frozenset({NameKind.CLIP})
    hears_alone = all(stream.needs == {"audio"} for stream in spec.streams)
    return frozenset({NameKind.CLIP, NameKind.SOUND}) if hears_alone else IMAGES


def _action_unit_stream(spec: CacheSpec) -> StreamSpec:
    """Return the action units of the run, or a further stream of them if the run has none."""
    of_run = [stream for stream in spec.streams if isinstance(stream, ActionUnitsSpec)]
    taken = {stream.name for stream in spec.streams}
    return (
        of_run[0]
        if of_run
        else ActionUnitsSpec(name=_ACTION_UNITS if _ACTION_UNITS not in taken else "face.action_units")
    )


def _check_same_features(spec: CacheSpec, record: RunRecord, run: Path) -> None:
    for stream in spec.streams:
        if digest(stream_identity(stream, spec)) != record.streams[stream.name]["digest"]:
            raise StaleCacheError(
                f"{run}: the head was trained on other {stream.name!r} features than this machine would extract "
                "(other weights, face model or emofuse). Restore those, or build the cache and train again"
            )
