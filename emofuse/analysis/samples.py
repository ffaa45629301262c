"""Why one sample gets its answer: contributions of its streams, drawn on its picture and on the face in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from emofuse.analysis.attributions import names_of
from emofuse.analysis.cached_rows import RunOnRows, open_run, rows_of_samples
from emofuse.analysis.context import Analysis
from emofuse.analysis.face_regions import Points, RegionShare, by_region, is_of_face, mean_face, points_of
from emofuse.analysis.gradients import integrated_gradients
from emofuse.analysis.heat_maps import draw_heat, is_picture_backbone
from emofuse.analysis.photographs import Photograph, open_photograph
from emofuse.cache.reader import Cache
from emofuse.errors import DecodeError, ResultsError, SpecError, StreamError, WeightsError, did_you_mean
from emofuse.heads.members import HeadBatch
from emofuse.results import RunRecord
from emofuse.specs import CacheSpec, parse_spec
from emofuse.status import Status
from emofuse.stores import replace_file
from emofuse.streams import with_located_weights
from emofuse.training.rows import targets_of

Floats = npt.NDArray[np.float64]
_STRONGEST = 8


@dataclass(frozen=True)
class ExplainedSample:
    """One sample with the reasons of its answer.

    Attributes:
        sample_id: the id of the sample.
        label: its class, values or labels as a text; None without.
        outputs: class or label -> probability, the most probable first; or column -> value.
        explained: the class, column or label whose score is explained.
        streams: stream -> its contribution to the score.
        values: stream -> its strongest values with their contributions.
        missing: the streams that the sample lacks.
        files: the written files.
        notes: what could not be shown, and why.
    """

    sample_id: str
    label: str | None
    outputs: Mapping[str, float]
    explained: str
    streams: Mapping[str, float]
    values: Mapping[str, Mapping[str, float]]
    missing: tuple[str, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def explain_sample(
    analysis: Analysis,
    sample_id: str,
    out: Path,
    *,
    image_root: Path | None = None,
    explained: str | None = None,
    images: bool = True,
) -> ExplainedSample:
    """Explain the answer to one sample, and write what was found below `out`.

    The run is the one that has tested the sample, or else the first of the configuration.

    Args:
        analysis: the runs and their cache.
        sample_id: the id of the sample.
        out: the folder of the files.
        image_root: the folder of the pictures; that of the cache's manifest unless given.
        explained: the class, column or label whose score is explained; the answer, the most probable label or the first
            column unless given.
        images: whether the picture of the sample is drawn, with heat and regions of the face on it.

    Raises:
        ResultsError: there is no such sample or class.
    """
    cache = analysis.source.need_cache("explaining a sample")
    if sample_id not in set(cache.sample_ids.tolist()):
        hint = did_you_mean(sample_id, cache.sample_ids.tolist()[:100_000])
        raise ResultsError(f"{cache.path} has no sample {sample_id!r}{hint}")
    record = _run_of(analysis, sample_id)
    row = rows_of_samples(cache, np.array([sample_id]))
    opened = open_run(cache, analysis.runs, record, row, device=analysis.options.device)
    outputs = opened.trained.answers(opened.inputs)[0].astype(np.float64)
    classes = tuple(record.classes)
    if explained is not None and explained not in classes:
        raise ResultsError(
            f"no {analysis.chosen.target.part} {explained!r}{did_you_mean(explained, classes)} "
            f"(there are: {', '.join(classes)})"
        )
    is_ranked = record.target_kind != "regression"
    target = classes.index(explained) if explained is not None else int(outputs.argmax()) if is_ranked else 0
    found = integrated_gradients(opened.trained, opened.inputs, np.array([target]), against_others=analysis.has_classes)
    streams = tuple(record.spec["features"]["streams"])
    values = {}
    for stream in streams:
        names = names_of(cache, analysis.answered, stream)
        if names:
            order = np.argsort(-np.abs(found.values[stream][0]))[:_STRONGEST]
            values[stream] = {names[place]: float(found.values[stream][0][place]) for place in order}
    folder = out / "samples" / re.sub(r"[^A-Za-z0-9_.-]+", "-", sample_id)
    photograph, notes = _photograph_of(cache, record, int(row[0]), image_root) if images else (None, [])
    files, of_heat = _heat_maps(
        cache,
        opened,
        target,
        row=int(row[0]),
        folder=folder,
        photograph=photograph,
        against_others=analysis.has_classes,
    )
    shares = {
        stream: by_region(names, found.values[stream][0].tolist())
        for stream in streams
        for names in [names_of(cache, analysis.answered, stream)]
        if is_of_face(names) and opened.inputs[0].valid[stream][0]
    }
    faces, of_faces = _draw_faces(
        cache, int(row[0]), shares, title=classes[target], folder=folder, photograph=photograph
    )
    files, notes = [*files, *faces], [*notes, *of_heat, *of_faces]
    order = np.argsort(-outputs, kind="stable") if is_ranked else np.arange(len(classes))
    result = ExplainedSample(
        sample_id,
        _truth_of(cache, analysis, int(row[0])),
        {classes[place]: float(outputs[place]) for place in order},
        classes[target],
        {stream: float(found.of_stream(stream)[0]) for stream in streams},
        values,
        tuple(stream for stream in streams if not opened.inputs[0].valid[stream][0]),
        tuple(files),
        tuple(notes),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for former in set(folder.glob("*.png")) - set(files):  # of another class, or of a call with pictures
        former.unlink()
    plain = {**vars(result), "files": [path.name for path in files], "run": record.digest}
    replace_file(folder / "explanation.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return result


def _truth_of(cache: Cache, analysis: Analysis, row: int) -> str | None:
    """Return the class, the values or the labels of a row; None without any."""
    target = analysis.spec.target
    if analysis.has_classes:
        label = int(targets_of(cache, target).labels[row])
        return analysis.classes[label] if label >= 0 else None
    values = targets_of(cache, target).values
    if values is None or not np.isfinite(values[row]).all():
        return None
    if target.kind == "multilabel":
        return (
            ", ".join(name for name, has in zip(analysis.classes, values[row], strict=True) if has > 0.5) or "no label"
        )
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(analysis.classes, values[row], strict=True))


def _photograph_of(cache: Cache, record: RunRecord, row: int, root: Path | None) -> tuple[Photograph | None, list[str]]:
    """Return the picture of a row, and notes on why there is none."""
    try:
        spec = parse_spec(CacheSpec, dict(record.cache_spec), f"run {record.digest[:16]}: cache_spec")
    except SpecError as error:  # such as streams that were imported as arrays
        return None, [f"nothing is drawn on the picture, its streams cannot be extracted again: {error}"]
    weights = {name: stream["weights"] for name, stream in record.streams.items()}
    try:
        return open_photograph(cache, row, with_located_weights(spec, weights), root), []
    except (DecodeError, WeightsError) as error:
        return None, [f"nothing is drawn on the picture: {error}"]


def _draw_faces(
    cache: Cache,
    row: int,
    shares: Mapping[str, Sequence[RegionShare]],
    *,
    title: str,
    folder: Path,
    photograph: Photograph | None,
) -> tuple[list[Path], list[str]]:
    """Write a picture of the face for each stream: the photograph, or else a drawing of the sample's or a mean mesh."""
    if not shares:
        return [], []
    aligned, notes, mesh = _landmarks_of(cache, row), [], None
    if photograph is not None:
        try:
            mesh = photograph.find_mesh(aligned)
        except (StreamError, WeightsError) as error:
            notes.append(f"the face is not drawn on the photograph: {error}")
        else:
            if mesh is None:
                notes.append("the face is not drawn on the photograph: the cached face is not found in it again")
    files = []
    for stream, of_stream in shares.items():
        path = folder / f"face_of_{stream}.png"
        if mesh is not None and photograph is not None:
            _draw_face(path, f"{title}: {stream}", of_stream, points_of(mesh), photograph.image)
        else:
            face = mean_face() if aligned is None else points_of(aligned)
            _draw_face(path, f"{title}: {stream}", of_stream, face)
        files.append(path)
    return files, notes


def _landmarks_of(cache: Cache, row: int) -> npt.NDArray[np.float32] | None:
    """Return the aligned landmarks of a row, (1404,); None where the cache has none."""
    for stream in cache.streams.values():
        if stream.kind == "landmarks" and len(stream.shape) == 1 and stream.status[row, 0] == Status.OK:
            block = stream.read_block(row // cache.layout.block_rows, dtype=np.float32)
            landmarks: npt.NDArray[np.float32] = block[row % cache.layout.block_rows]
            return landmarks
    return None


def _draw_face(
    path: Path,
    title: str,
    shares: Sequence[RegionShare],
    face: Points,
    photograph: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Write a picture of a face whose regions are coloured by their contributions."""
    from emofuse.analysis.face_plot import plot_faces, plot_photograph
    from emofuse.report.figures import draw_figure

    if photograph is None:
        drawn = draw_figure(path.stem, title, lambda: plot_faces([title], [shares], face))
    else:
        drawn = draw_figure(path.stem, title, lambda: plot_photograph(title, shares, face, photograph))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, drawn.png)


def _run_of(analysis: Analysis, sample_id: str) -> RunRecord:
    """Return the run that has tested the sample, so that its heads have not learned it; the first run otherwise."""
    for rows in analysis.answered.repeats:
        for record, places in rows.parts:
            if sample_id in rows.sample_id[places]:
                return record
    return analysis.chosen.runs[0]


def _heat_maps(
    cache: Cache,
    opened: RunOnRows,
    target: int,
    *,
    row: int,
    folder: Path,
    photograph: Photograph | None,
    against_others: bool,
) -> tuple[list[Path], list[str]]:
    """Write a picture with the heat of every image backbone of a run; return the files, and notes on the others."""
    if photograph is None:
        return [], []
    files, notes = [], []
    for spec in photograph.spec.streams:
        if not is_picture_backbone(spec) or not opened.inputs[0].valid[spec.name][0]:
            continue
        pooled = cache.streams[spec.name].read_block(row // cache.layout.block_rows, dtype=np.float32)
        slope = _slope(opened, spec.name, target, against_others=against_others)
        try:
            drawn = draw_heat(photograph, spec, pooled[row % cache.layout.block_rows], slope)
        except (StreamError, WeightsError) as error:
            notes.append(f"{spec.name}: {error}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{spec.name}.png")
        drawn.save(files[-1])
    return files, notes


def _slope(opened: RunOnRows, stream: str, target: int, *, against_others: bool) -> Floats:
    """Return d score / d stored value of a stream in the only row, (D,): the mean over the heads of an ensemble.

    Args:
        opened: the run.
        stream: the stream.
        target: the class, column or label.
        against_others: whether the score is the logit less the mean of all logits, as of classes. The answer of a
            column of numbers is in standard deviations of its training rows.
    """
    slopes = []
    for each, seen in zip(opened.trained.heads, opened.inputs, strict=True):
        features = {name: torch.from_numpy(array).unsqueeze(0) for name, array in seen.features.items()}
        features[stream].requires_grad_()
        valid = {name: torch.from_numpy(array).unsqueeze(0) for name, array in seen.valid.items()}
        steps = {name: torch.from_numpy(array).unsqueeze(0) for name, array in seen.steps.items()}
        logits = each.head(HeadBatch(features, valid, steps))[0, 0]
        score = logits[target] - logits.mean() if against_others else logits[target]
        (gradient,) = torch.autograd.grad(score, [features[stream]])
        slopes.append(gradient[0, 0].double().numpy() / each.scaling[stream].scale)
    mean: Floats = np.mean(slopes, axis=0)
    return mean
