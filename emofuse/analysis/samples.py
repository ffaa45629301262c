"""Why one sample gets its answer: contributions of its streams, and where image backbones look (Grad-CAM).

Source: Selvaraju et al., *Grad-CAM: visual explanations from deep networks via gradient-based localization*, ICCV 2017.

The cached vector of a backbone is the mean of its last map over the picture. So the gradient of a class's score by the
cached value of channel k, through standardisation and fusion head, is the weight of map k:

    heat(y, x) = max(0, sum over k of d score / d pooled_k * map_k(y, x))

Backbones whose pooled vector is not the mean of their last map, such as transformers, have no such heat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from emofuse.analysis.attributions import names_of
from emofuse.analysis.cached_rows import RunOnRows, open_run, rows_of_samples
from emofuse.analysis.context import Analysis
from emofuse.analysis.face_regions import Points, RegionShare, by_region, is_of_face, mean_face, points_of
from emofuse.analysis.gradients import integrated_gradients
from emofuse.cache.reader import Cache
from emofuse.datasets.sources import Source
from emofuse.errors import ResultsError, SpecError, StreamError, did_you_mean
from emofuse.heads.members import HeadBatch
from emofuse.media.decode import read_image
from emofuse.results import RunRecord
from emofuse.specs import CacheSpec, parse_spec
from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.stores import replace_file
from emofuse.streams import with_located_weights
from emofuse.streams.backbones import BackboneSpec, BackboneStream
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.extractor import Extractor

Floats = npt.NDArray[np.float64]
_NEAR = 2e-2
"""The largest relative distance of a cached vector from the mean of its map: the cache holds float16."""
_STRONGEST = 8


@dataclass(frozen=True)
class ExplainedSample:
    """One sample with the reasons of its answer.

    Attributes:
        sample_id: the id of the sample.
        label: its class; None without one.
        probs: class -> probability, the most probable first.
        explained: the class whose score is explained.
        streams: stream -> its contribution to the score.
        values: stream -> its strongest values with their contributions.
        missing: the streams that the sample lacks.
        files: the written files.
        notes: what could not be shown, and why.
    """

    sample_id: str
    label: str | None
    probs: Mapping[str, float]
    explained: str
    streams: Mapping[str, float]
    values: Mapping[str, Mapping[str, float]]
    missing: tuple[str, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def explain_sample(
    analysis: Analysis, sample_id: str, out: Path, *, image_root: Path | None = None, explained: str | None = None
) -> ExplainedSample:
    """Explain the answer to one sample, and write what was found below `out`.

    The run is the one that has tested the sample, or else the first of the configuration.

    Args:
        analysis: the runs and their cache.
        sample_id: the id of the sample.
        out: the folder of the files.
        image_root: the folder of the pictures; that of the cache's manifest unless given.
        explained: the class whose score is explained; the answer unless given.

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
    probs = opened.trained.answers(opened.inputs)[0].astype(np.float64)
    classes = tuple(record.classes)
    if explained is not None and explained not in classes:
        raise ResultsError(
            f"no class {explained!r}{did_you_mean(explained, classes)} (there are: {', '.join(classes)})"
        )
    target = int(probs.argmax()) if explained is None else classes.index(explained)
    found = integrated_gradients(opened.trained, opened.inputs, np.array([target]))
    streams = tuple(record.spec["features"]["streams"])
    values = {}
    for stream in streams:
        names = names_of(cache, analysis.answered, stream)
        if names:
            order = np.argsort(-np.abs(found.values[stream][0]))[:_STRONGEST]
            values[stream] = {names[place]: float(found.values[stream][0][place]) for place in order}
    folder = out / "samples" / re.sub(r"[^A-Za-z0-9_.-]+", "-", sample_id)
    files, notes = _heat_maps(cache, record, opened, target, row=int(row[0]), folder=folder, root=image_root)
    face = _face_of(cache, int(row[0]))
    for stream in streams:
        names = names_of(cache, analysis.answered, stream)
        if is_of_face(names) and opened.inputs[0].valid[stream][0]:
            shares = by_region(names, found.values[stream][0].tolist())
            files.append(_draw_face(folder / f"face_of_{stream}.png", f"{classes[target]}: {stream}", shares, face))
    label = int(cache.labels[row[0]])
    result = ExplainedSample(
        sample_id,
        cache.classes[label] if label >= 0 else None,
        {classes[place]: float(probs[place]) for place in np.argsort(-probs, kind="stable")},
        classes[target],
        {stream: float(found.of_stream(stream)[0]) for stream in streams},
        values,
        tuple(stream for stream in streams if not opened.inputs[0].valid[stream][0]),
        tuple(files),
        tuple(notes),
    )
    folder.mkdir(parents=True, exist_ok=True)
    plain = {**vars(result), "files": [path.name for path in files], "run": record.digest}
    replace_file(folder / "explanation.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return result


def _face_of(cache: Cache, row: int) -> Points:
    """Return the sample's own face if its landmarks are cached, and the mean face otherwise."""
    for stream in cache.streams.values():
        if stream.kind == "landmarks" and len(stream.shape) == 1 and stream.status[row, 0] == Status.OK:
            block = stream.read_block(row // cache.layout.block_rows, dtype=np.float32)
            return points_of(block[row % cache.layout.block_rows])
    return mean_face()


def _draw_face(path: Path, title: str, shares: Sequence[RegionShare], face: Points) -> Path:
    """Write a picture of a face whose regions are coloured by their contributions."""
    from emofuse.analysis.face_plot import plot_faces
    from emofuse.report.figures import draw_figure

    drawn = draw_figure(path.stem, title, lambda: plot_faces([title], [shares], face))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, drawn.png)
    return path


def _run_of(analysis: Analysis, sample_id: str) -> RunRecord:
    """Return the run that has tested the sample, so that its heads have not learned it; the first run otherwise."""
    for rows in analysis.answered.repeats:
        for record, places in rows.parts:
            if sample_id in rows.sample_id[places]:
                return record
    return analysis.chosen.runs[0]


def _heat_maps(
    cache: Cache,
    record: RunRecord,
    opened: RunOnRows,
    target: int,
    *,
    row: int,
    folder: Path,
    root: Path | None,
) -> tuple[list[Path], list[str]]:
    """Write a picture with the heat of every image backbone of a run; return the files, and notes on the others."""
    try:
        spec = parse_spec(CacheSpec, dict(record.cache_spec), f"run {record.digest[:16]}: cache_spec")
    except SpecError as error:  # such as streams that were imported as arrays
        return [], [f"no heat is drawn, its streams cannot be extracted again: {error}"]
    backbones = [stream for stream in spec.streams if _is_picture_backbone(stream)]
    if not backbones or spec.clip is not None:
        return [], []
    folder_of_pictures, name = Path(root or cache.manifest.root), str(cache.manifest.table["path"][row])
    there = [path for path in (folder_of_pictures / name, folder_of_pictures / Path(name).name) if path.is_file()]
    path = (there or [folder_of_pictures / name])[0]
    if not there:
        return [], [f"no picture at {path}, so that no heat is drawn; name the folder of the pictures: --image-root"]
    weights = {name: stream["weights"] for name, stream in record.streams.items()}
    spec = with_located_weights(spec, weights)
    files, notes = [], []
    for plain in backbones:
        located = next(stream for stream in spec.streams if stream.name == plain.name)
        if not opened.inputs[0].valid[plain.name][0]:
            continue
        slope = _slope(opened, plain.name, target)
        try:
            picture, maps = _picture_and_map(located, spec, path)
        except StreamError as error:
            notes.append(f"{plain.name}: {error}")
            continue
        pooled = cache.streams[plain.name].read_block(row // cache.layout.block_rows, dtype=np.float32)
        if not _is_mean(maps, pooled[row % cache.layout.block_rows]):
            notes.append(f"{plain.name}: its vector is not the mean of its last map, so that it has no heat map")
            continue
        heat = heat_of(maps, slope)
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{plain.name}.png")
        overlay(picture, heat).save(files[-1])
    return files, notes


def _is_picture_backbone(stream: StreamSpecBase) -> bool:
    return isinstance(stream, BackboneSpec) and stream.input == "image" and stream.output == "pooled"


def _slope(opened: RunOnRows, stream: str, target: int) -> Floats:
    """Return d score / d stored value of a stream in the only row, (D,): the mean over the heads of an ensemble."""
    slopes = []
    for each, seen in zip(opened.trained.heads, opened.inputs, strict=True):
        features = {name: torch.from_numpy(array).unsqueeze(0) for name, array in seen.features.items()}
        features[stream].requires_grad_()
        valid = {name: torch.from_numpy(array).unsqueeze(0) for name, array in seen.valid.items()}
        steps = {name: torch.from_numpy(array).unsqueeze(0) for name, array in seen.steps.items()}
        logits = each.head(HeadBatch(features, valid, steps))[0, 0]
        score = logits[target] - logits.mean()
        (gradient,) = torch.autograd.grad(score, [features[stream]])
        slopes.append(gradient[0, 0].double().numpy() / each.scaling[stream].scale)
    mean: Floats = np.mean(slopes, axis=0)
    return mean


def _picture_and_map(
    located: Any, spec: CacheSpec, path: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return the picture as the network sees it, uint8 (h, w, 3), and its last map (C, y, x).

    Raises:
        StreamError: the network has no map.
    """
    if located.region == "face":
        raise StreamError("it sees the aligned face, whose heat is not drawn")
    stream = located.model_copy(update={"output": "map"})
    with Extractor((stream,), spec, device="cpu") as extractor:
        extraction = extractor.extract([Source(path)])
        maps = extraction.rows[stream.name].features[0]
        network = extractor.streams[stream.name]
        if not isinstance(network, BackboneStream):
            raise StreamError("it is no network of pictures")
        image = read_image(path, spec.decode)
        cut = network.preset.cut_all(SampleBatch([Sample(image=image)]), torch.device("cpu"))
    return cut[0].permute(1, 2, 0).numpy(), np.asarray(maps, np.float32)


def _is_mean(maps: npt.NDArray[np.float32], pooled: npt.NDArray[np.floating[Any]]) -> bool:
    """Return whether a cached vector (D,) is the mean of a map (C, y, x) over the picture."""
    if maps.ndim != 3 or maps.shape[0] != pooled.shape[0]:
        return False
    distance = np.linalg.norm(maps.mean(axis=(1, 2)) - pooled)
    return bool(distance <= _NEAR * max(float(np.linalg.norm(pooled)), 1e-6))


def heat_of(maps: npt.NDArray[np.float32], slope: Floats) -> Floats:
    """Return the heat (y, x), from 0 to 1, of maps (C, y, x) and the slopes (C,) of the score."""
    heat = np.maximum(np.tensordot(slope, maps.astype(np.float64), axes=1), 0)
    return heat / heat.max() if heat.max() > 0 else heat


def overlay(picture: npt.NDArray[np.uint8], heat: Floats) -> Image.Image:
    """Return a picture (h, w, 3) and, to its right, the same under its heat (y, x), which is enlarged smoothly."""
    from matplotlib import colormaps

    height, width = picture.shape[:2]
    small = Image.fromarray((255 * heat).astype(np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64) / 255
    colours = 255 * colormaps["inferno"](large)[..., :3]
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    share = 0.15 + 0.6 * large[..., None]
    mixed = (share * colours + (1 - share) * grey).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([picture, np.full((height, 6, 3), 255, np.uint8), mixed], axis=1))
