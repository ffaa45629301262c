"""Score trained runs on all their rows, once, after everything is chosen; the test rows are among them.

    features, a span of rows at a time -> outputs of every run -> metrics, predictions, record

No code that chooses imports this module, since it sees all targets.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import emofuse
from emofuse.datasets.splits import SPLITS
from emofuse.features import ACTION_UNITS
from emofuse.heads import load_head_weights
from emofuse.heads.stems import Shape
from emofuse.metrics import METRICS
from emofuse.metrics.targets import target_metrics
from emofuse.results import Predictions, RunRecord
from emofuse.scaling import LEAST_ROWS, Scaling, projection_arrays
from emofuse.specs import RunSpec, canonical_json
from emofuse.specs.plugins import plugins_with, recorded
from emofuse.status import Status
from emofuse.streams.action_units import MEASUREMENTS
from emofuse.training.costs import forward_flops, without_dropout
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine
from emofuse.training.notes import FarValues, run_notes
from emofuse.training.refits import RefitRun
from emofuse.training.rows import targets_of_run
from emofuse.training.targets import LINKS, WITH_CLASSES, in_units
from emofuse.training.together import Trained
from emofuse.training.trained import array_places, head_outputs
from emofuse.training.trained_runs import AnsweringHead, Rows, TrainedRun, mean_of_answers
from emofuse.training.validation import EVAL_ROWS
from emofuse.training.variants import FeatureVariant

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache
    from emofuse.datasets.targets import Targets

Far = dict[tuple[FeatureVariant, int], FarValues]
"""(variant, id of its scaling) -> the values that are limited."""


@dataclass(frozen=True)
class ScoredRun:
    """The parts of a run that are written.

    Attributes:
        record: all but the arrays.
        predictions: those of the test rows.
        arrays: weights and scaling under the names by which they are saved.
    """

    record: RunRecord
    predictions: Predictions
    arrays: Mapping[str, npt.NDArray[np.float32]]


def split_rows(targets: Targets, data: TrainingData, spec: RunSpec, split: str) -> npt.NDArray[np.int64]:
    """Return (n,) the rows of a split that have a target and whose pictures the run can read, ascending."""
    return np.flatnonzero((data.splits == split) & (targets.labels >= 0) & ~data.unreadable(spec))


def score_together(
    cache: Cache, data: TrainingData, trained_runs: Sequence[TrainedRun], digests: Sequence[str], machine: Machine
) -> Iterator[ScoredRun]:
    """Score trained runs on all their rows, and yield them in their order.

    Args:
        cache: the cache, with all targets.
        data: of the runs' split and target.
        trained_runs: the runs, none of which diverged.
        digests: the digests of the runs, with all targets.
        machine: the machine that trained them.
    """
    if not trained_runs:
        return
    targets = targets_of_run(cache, trained_runs[0].spec)
    answering = [trained.answering(data, split_rows(targets, data, trained.spec, "test")) for trained in trained_runs]
    all_answering = [head for heads in answering for head in heads]
    modules = _load_heads(data, all_answering)
    flops = _count_flops(data, all_answering, modules)
    outputs, far = _outputs(data, all_answering, [module.to(machine.device) for module in modules])
    of_all = iter(outputs)
    for trained, heads, identity in zip(trained_runs, answering, digests, strict=True):
        of_heads = [(head, next(of_all)) for head in heads]
        rows, outputs_of_run = {}, {}
        for split in SPLITS:
            rows[split], outputs_of_run[split] = mean_of_answers(
                [(head.rows[split], answers[split]) for head, answers in of_heads if split in answers]
            )
        yield ScoredRun(
            record=_record(
                cache,
                data,
                trained,
                targets,
                rows,
                outputs=outputs_of_run,
                far=_far_of_run(data.features.of(trained.spec.features), heads, far),
                identity=identity,
                machine=machine,
                flops=sum(flops[id(head)] for head in heads if "test" in head.rows),
            ),
            predictions=_predictions(cache, targets, rows["test"], outputs_of_run["test"]),
            arrays=_arrays(trained, _action_unit_baseline(data, trained)),
        )


def _predictions(
    cache: Cache, targets: Targets, rows: npt.NDArray[np.int64], outputs: npt.NDArray[np.float32]
) -> Predictions:
    has_classes = targets.kind in WITH_CLASSES
    return Predictions(
        cache.sample_ids[rows],
        targets.labels[rows] if has_classes else np.full(len(rows), -1, dtype=np.int64),
        outputs,
        cache.groups[rows] if cache.has_groups else None,
        None if targets.values is None else targets.values[rows],
    )


def _far_of_run(
    variants: Sequence[FeatureVariant], heads: Sequence[AnsweringHead], far: Far
) -> dict[FeatureVariant, FarValues]:
    """Return variant -> the values that are limited in the head of a run that limits most of them."""
    return {
        variant: max(
            (far[variant, id(head.trained.scaling[variant.stream])] for head in heads), key=lambda values: values.count
        )
        for variant in variants
    }


def _load_heads(data: TrainingData, answering: Sequence[AnsweringHead]) -> list[nn.Module]:
    """Return the trained heads on the CPU, in evaluation mode."""
    link, classes = LINKS[data.target.kind], len(data.classes)
    heads = (each.trained for each in answering)
    return [
        load_head_weights(head.spec.head, _shapes(data, head), classes, head.result.weights, link) for head in heads
    ]


def _shapes(data: TrainingData, trained: Trained) -> dict[str, Shape]:
    """Return stream -> the shape of a row as the head sees it."""
    return {
        variant.stream: trained.scaling[variant.stream].shape_of_rows(variant.shape)
        for variant in data.features.of(trained.spec.features)
    }


def _count_flops(
    data: TrainingData, answering: Sequence[AnsweringHead], modules: Sequence[nn.Module]
) -> dict[int, int]:
    """Return id of an answering head -> its operations for one row; heads of one structure are counted once."""
    counted: dict[tuple[Any, ...], int] = {}
    flops = {}
    for each, module in zip(answering, modules, strict=True):
        shapes, spec = _shapes(data, each.trained), without_dropout(each.trained.spec.head)
        key = (canonical_json(spec.model_dump(mode="json")), tuple(shapes.items()), each.trained.parameters)
        if key not in counted:
            counted[key] = forward_flops(module, shapes)
        flops[id(each)] = counted[key]
    return flops


def _outputs(
    data: TrainingData, answering: Sequence[AnsweringHead], heads: Sequence[nn.Module]
) -> tuple[list[dict[str, npt.NDArray[np.float32]]], Far]:
    """Return split -> (n, C) of the rows that each head answers, and the values that were limited.

    Features are read once for all heads, a span of rows at a time.
    """
    trained_heads, link = [each.trained for each in answering], LINKS[data.target.kind]
    variants = data.all_variants([trained.spec for trained in trained_heads])
    parts: list[dict[str, list[npt.NDArray[np.float32]]]] = [{split: [] for split in each.rows} for each in answering]
    far: Far = {}
    for span in data.features.spans(EVAL_ROWS):
        looked_at = set()
        features = {variant: data.features.take(variant, np.arange(span.start, span.stop)) for variant in variants}
        for each, head, parts_of_head in zip(answering, heads, parts, strict=True):
            trained = each.trained
            for split, of_split in each.rows.items():
                inside = of_split[(of_split >= span.start) & (of_split < span.stop)]
                if len(inside):
                    scaled, valid, steps = {}, {}, {}
                    for variant in data.features.of(trained.spec.features):
                        name = variant.stream
                        valid[name] = trained.scaling[name].present(data.features.valid(variant)[inside])
                        taken = features[variant][inside - span.start]
                        of_rows = data.features.steps(variant)
                        there = None if of_rows is None else of_rows[inside]
                        if there is not None:
                            steps[name] = there
                        place = (variant, id(trained.scaling[name]))  # runs of one fold share scaling and rows
                        if (split, place) not in looked_at:
                            looked_at.add((split, place))
                            beyond = trained.scaling[name].beyond(taken, valid[name], there)
                            far.setdefault(place, FarValues()).add(inside, beyond)
                        scaled[name] = trained.scaling[name].apply(taken, valid[name], there)
                    answers = head_outputs(head, scaled, valid, steps, link=link)
                    parts_of_head[split].append(in_units(answers, trained.result.target_scale))
    return [{split: np.concatenate(of_split) for split, of_split in of_head.items()} for of_head in parts], far


def _record(
    cache: Cache,
    data: TrainingData,
    trained: TrainedRun,
    targets: Targets,
    rows: Rows,
    *,
    outputs: Mapping[str, npt.NDArray[np.float32]],
    far: Mapping[FeatureVariant, FarValues],
    identity: str,
    machine: Machine,
    flops: int,
) -> RunRecord:
    spec = trained.spec
    metrics = {split: _metrics(targets, of_split, outputs[split]) for split, of_split in rows.items()}
    return RunRecord(
        digest=identity,
        name=spec.name,
        spec={**spec.model_dump(mode="json"), "head": recorded(spec.head)},
        cache_spec=_cache_spec(cache, spec),
        classes=list(targets.names),
        dataset=dict(cache.manifest.info),
        streams=_streams(cache, data, trained),
        rows={split: {"rows": len(part), "missing": _missing(data, spec, part)} for split, part in rows.items()},
        metrics=metrics,
        history=trained.history,
        best_epoch=trained.best_epoch,
        parameters=trained.parameters,
        versions=_versions(),
        machine={
            "platform": platform.platform(),
            "device": _device_name(machine.device),
            "products": machine.products_name,
        },
        seconds=trained.seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=run_notes(cache, targets, data, trained, rows, metrics=metrics, far=far),
        plugins=[plugin.model_dump(mode="json") for plugin in plugins_with(METRICS)],
        heads=trained.heads_record(),
        refit=trained.refit_record(data),
        costs={"flops": flops, **trained.together_record()},
    )


def _metrics(targets: Targets, rows: npt.NDArray[np.int64], outputs: npt.NDArray[np.float32]) -> dict[str, Any]:
    labels = targets.labels[rows]
    if targets.values is None:
        return target_metrics(targets.kind, labels, outputs, targets.names)
    of_classes = labels if targets.kind == "distribution" else None
    return target_metrics(targets.kind, targets.values[rows], outputs, targets.names, labels=of_classes)


def _missing(data: TrainingData, spec: RunSpec, rows: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return stream -> lower-case status -> the number of rows that lack the stream with it, if there are any."""
    missing = {}
    for variant in data.features.of(spec.features):
        status = data.features.status(variant)[rows]
        missing[variant.stream] = {
            each.name.lower(): int(count)
            for each in Status
            if each is not Status.OK and (count := np.sum(status == each))
        }
    return missing


def _cache_spec(cache: Cache, spec: RunSpec) -> dict[str, Any]:
    streams = [cache.streams[name].spec for name in spec.features.streams]
    clip = {} if cache.clip is None else {"clip": cache.clip}
    return {"name": cache.path.stem, "decode": cache.decode, "face": cache.face, **clip, "streams": streams}


def _streams(cache: Cache, data: TrainingData, trained: TrainedRun) -> dict[str, Any]:
    streams = {}
    for variant in data.features.of(trained.spec.features):
        stream = cache.streams[variant.stream]
        scalings = [head.scaling[variant.stream] for head in trained.heads]
        shape = scalings[0].shape_of_rows(variant.shape)
        streams[variant.stream] = {
            "kind": stream.kind,
            "digest": stream.digest,
            "dim": stream.dim,
            "used_dim": math.prod(shape),
            **({"used_shape": list(shape)} if len(shape) > 1 else {}),
            "weights": stream.weights,
            "fitted": any(scaling.fitted for scaling in scalings),
            **_components(variant, scalings),
        }
    return streams


def _components(variant: FeatureVariant, scalings: Sequence[Scaling]) -> dict[str, Any]:
    """Return what is recorded of a stream's principal components: their numbers and shares of the variance by head."""
    projections = [each.projection for each in scalings if each.projection is not None]
    if not projections:
        return {}
    return {
        "pca": {
            "wanted": variant.pca,
            "components": [each.width for each in projections],
            "variance": [round(float(each.variances.sum()), 6) for each in projections],
        }
    }


def _action_unit_baseline(data: TrainingData, trained: TrainedRun) -> Scaling | None:
    """Return the scaling of all action units over the training faces, which `predict` describes a face against.

    It is that of the run's stream of action units, or else of the first complete one of the cache. The heads of an
    ensemble of folds have learned from all training and validation rows together.
    """
    spec = trained.heads[0].spec
    if trained.spec.ensemble is not None and trained.spec.ensemble.folds is not None:
        spec = RefitRun.of(spec)
    names = data.features.whole_streams(ACTION_UNITS)
    names.sort(key=lambda name: name not in spec.features.streams)
    if not names:
        return None
    wanted = {"streams": (names[0],), "variants": {names[0]: {"count": len(MEASUREMENTS)}}}
    of_all = spec.model_copy(update={"features": spec.features.model_copy(update=wanted)})
    (variant,) = data.features.of(of_all.features)
    train = data.folds(spec)[spec.fold.index if spec.fold else 0].train
    if data.features.valid(variant)[train].sum() < LEAST_ROWS:
        return None
    return data.scaling(of_all)[names[0]]


def _arrays(trained: TrainedRun, baseline: Scaling | None) -> dict[str, npt.NDArray[np.float32]]:
    """Return all arrays of a run under the names by which they are saved (see `emofuse.results`)."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    fitted: dict[str, Scaling] = {}
    for place, head in zip(array_places(len(trained.heads)), trained.heads, strict=True):
        arrays |= {f"{place}head.{name}": array for name, array in head.result.weights.items()}
        fitted |= {f"{place}scaling.{name}": values for name, values in head.scaling.items()}
        if head.result.target_scale is not None:
            arrays |= head.result.target_scale.arrays(place)
    if baseline is not None:
        fitted["baseline"] = baseline
    for name, values in fitted.items():
        arrays |= {f"{name}.center": values.center, f"{name}.scale": values.scale}
        if values.limit is not None:
            arrays[f"{name}.limit"] = values.limit
        arrays |= projection_arrays(values.projection, name)
    return arrays


def _versions() -> dict[str, str]:
    return {
        "emofuse": emofuse.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
