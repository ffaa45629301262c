"""A saved run with its extractors: it predicts images, clips and sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.datasets.names import NameKind
from emofuse.datasets.sources import Source
from emofuse.extraction.face_rows import FACE_BOXES, faces_spec, gives_rows_to_faces
from emofuse.predict.files import kinds_of_files
from emofuse.predict.models import cache_spec_of, find_model, load_model
from emofuse.predict.prediction import ActionUnit, Prediction
from emofuse.results import RunRecord
from emofuse.specs import ActionUnitsSpec, CacheSpec, StreamSpec
from emofuse.specs.streams import looks_at_faces
from emofuse.status import Status, Step
from emofuse.streams.base import Rows
from emofuse.streams.block_extraction import Extraction
from emofuse.streams.extractor import Extractor
from emofuse.streams.face_boxes import boxes_of
from emofuse.streams.runtimes import Runtime
from emofuse.training.trained import TrainedHead

_ACTION_UNITS = "action_units"
_WHOLE = "whole_image"
_BLOCK_ROWS = 64


class Predictor:
    """A saved run, or the mean of several, with its extractors, ready for images.

    Args:
        run: the folder of a run, or of a pipeline or sweep, whose best run on validation rows is taken.
        device: the device of backbones and heads.
        ensemble: whether the outputs of all runs of the configuration are averaged.
        runtime: the runtime of the backbones, as in a build (see `emofuse.streams.runtimes`).

    Raises:
        ResultsError: the folder has no run, or a damaged one.
        WeightsError: the weights of a stream are not on this machine.
        StaleCacheError: this machine would extract other features than those that the run was trained on.
    """

    def __init__(self, run: Path, *, device: str = "cpu", ensemble: bool = False, runtime: Runtime = "auto") -> None:
        self.model = find_model(run, ensemble=ensemble)
        self._trained: TrainedHead = load_model(self.model, device=device)
        spec = cache_spec_of(self.model)
        self._spec = spec
        self._of_faces = [stream.name for stream in spec.streams if looks_at_faces(stream.needs)]
        self._faces = _action_unit_stream(spec) if self._of_faces and _has_meshes(spec) else None
        self._kinds = kinds_of_files(spec)
        streams = spec.streams if self._faces is None or self._faces in spec.streams else (*spec.streams, self._faces)
        with ExitStack() as opened:
            self._extractor = opened.enter_context(Extractor(streams, spec, device=device, runtime=runtime))
            self._boxes = (
                opened.enter_context(Extractor((FACE_BOXES,), faces_spec(spec), device=device, runtime=runtime))
                if gives_rows_to_faces(spec)
                else None
            )
            self._opened = opened.pop_all()
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
        """Yield the predictions of files, or of spans and members of files, in their order, in blocks of 64 samples.

        If each face is a row of the run's cache, a picture has a prediction for each of its faces, the largest first.
        """
        for start in range(0, len(sources), _BLOCK_ROWS):
            block = self._with_faces(sources[start : start + _BLOCK_ROWS])
            extraction = self._extractor.extract(block)
            outputs = self.outputs(extraction.rows)
            for index, source in enumerate(block):
                yield self._describe(source, extraction, index, outputs[index])

    @property
    def extractor(self) -> Extractor:
        """The open streams of the run, and a stream of action units if the run looks at faces and has none."""
        return self._extractor

    @property
    def spec(self) -> CacheSpec:
        """The cache spec of the run, with the weights of this machine."""
        return self._spec

    @property
    def action_unit_names(self) -> tuple[str, ...]:
        """The names of the action units in the order of the stream; () if no stream of the run looks at faces."""
        return tuple(self._columns)

    @property
    def has_baseline(self) -> bool:
        """Whether action units have an activation."""
        return self._baseline is not None

    def outputs(self, rows: Mapping[str, Rows]) -> npt.NDArray[np.float32]:
        """Return the outputs of the head (n, C) for n rows of every stream of the run; see `TrainedHead.outputs`."""
        return self._trained.outputs(
            {name: part.features for name, part in rows.items()},
            {name: part.status for name, part in rows.items()},
            {name: part.mask for name, part in rows.items()},
        )

    def action_units(self, rows: Mapping[str, Rows], index: int) -> tuple[ActionUnit, ...]:
        """Return the action units of one row, the strongest first; () without a face."""
        if self._faces is None or rows[self._faces.name].status[index] != Status.OK:
            return ()
        return self._strongest(_values(rows[self._faces.name], index))

    def close(self) -> None:
        """Release the extractors."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_faces(self, sources: Sequence[Path | Source]) -> list[Source]:
        """Return the sources, each picture once for every face in it if each face is a row."""
        block = [source if isinstance(source, Source) else Source(source) for source in sources]
        if self._boxes is None:
            return block
        rows = self._boxes.extract(block).rows[FACE_BOXES.name]
        faces: list[Source] = []
        for source, features, status in zip(block, rows.features, rows.status, strict=True):
            boxes = boxes_of(features).tolist() if status == Status.OK and source.face_box is None else []
            faces += [replace(source, face_box=tuple(box)) for box in boxes] or [source]
        return faces

    def _describe(
        self, source: Source, extraction: Extraction, index: int, outputs: npt.NDArray[np.float32]
    ) -> Prediction:
        path = _named(source)
        record, kind = self._trained.record, self._trained.record.target_kind
        reasons = [reason for row, _, reason in extraction.problems if row == index]
        if all(extraction.rows[name].status[index] == Status.UNREADABLE for name in record.streams):
            return Prediction(path, {}, None, (), {}, "; ".join(dict.fromkeys(reasons)) or "unreadable", kind)
        is_regression = kind == "regression"
        order = range(len(outputs)) if is_regression else np.argsort(-outputs, kind="stable")
        answers = {record.classes[i]: float(outputs[i]) for i in order}
        units = self.action_units(extraction.rows, index)
        names = self._of_faces if self._faces is None else [*self._of_faces, self._faces.name]
        has_face = any(self._is_of_face(name, extraction.rows[name], index) for name in names) if names else None
        return Prediction(
            path=path,
            probs={} if is_regression else answers,
            face=has_face,
            action_units=units,
            missing=missing_streams(
                record, {name: Status(extraction.rows[name].status[index]) for name in record.streams}
            ),
            problem=None,
            kind=kind,
            values=answers if is_regression else {},
            face_box=source.face_box,
        )

    def _is_of_face(self, name: str, rows: Rows, index: int) -> bool:
        """Return whether a row of a stream that looks at faces is that of a face, and not of the whole picture."""
        flags = self._extractor.streams[name].flag_names
        is_whole = _WHOLE in flags and bool(rows.flags[index] >> flags.index(_WHOLE) & 1)
        return bool(rows.status[index] == Status.OK) and not is_whole

    def _strongest(self, values: npt.NDArray[Any]) -> tuple[ActionUnit, ...]:
        if self._baseline is None:
            return tuple(ActionUnit(name, float(v), None) for name, v in zip(self._columns, values, strict=True))
        activations = (values - self._baseline.center) / self._baseline.scale
        order = np.argsort(-np.abs(activations), kind="stable")
        return tuple(ActionUnit(self._columns[i], float(values[i]), float(activations[i])) for i in order)


def _named(source: Source) -> Path:
    """Return the path of a file, followed by the name of a member."""
    return source.path if source.member is None else source.path / source.member


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


def _has_meshes(spec: CacheSpec) -> bool:
    """Return whether faces have meshes, for action units: by their detector, or because a stream of the run needs one.

    Otherwise Face Mesh would have to be installed for them alone.
    """
    return spec.face.detector in {"face_mesh", "landmarker"} or any("face" in stream.needs for stream in spec.streams)


def _action_unit_stream(spec: CacheSpec) -> StreamSpec:
    """Return the action units of the run, or a further stream of them if the run has none."""
    of_run = [stream for stream in spec.streams if isinstance(stream, ActionUnitsSpec)]
    taken = {stream.name for stream in spec.streams}
    return (
        of_run[0]
        if of_run
        else ActionUnitsSpec(name=_ACTION_UNITS if _ACTION_UNITS not in taken else "face.action_units")
    )
