"""Score trained runs on all their rows, once, after everything is chosen; the test rows are among them.

    features, a span of rows at a time -> probabilities of every run -> metrics, predictions, record

No code that chooses imports this module, since it sees all labels.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

import emofuse
from emofuse.datasets.splits import SPLITS
from emofuse.features import ACTION_UNITS
from emofuse.heads import load_head_weights
from emofuse.metrics import METRICS
from emofuse.metrics.classification import classification_metrics
from emofuse.results import Predictions, RunRecord
from emofuse.scaling import LEAST_ROWS, Scaling
from emofuse.specs import RunSpec
from emofuse.specs.plugins import plugins_with, recorded
from emofuse.status import Status
from emofuse.streams.action_units import MEASUREMENTS
from emofuse.training.data import TrainingData
from emofuse.training.notes import FarValues, run_notes
from emofuse.training.together import Trained
from emofuse.training.trained import head_probs
from emofuse.training.validation import EVAL_ROWS
from emofuse.training.variants import FeatureVariant

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

Rows = Mapping[str, npt.NDArray[np.int64]]
"""Split -> its labelled rows, ascending."""

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


def run_rows(cache: Cache, data: TrainingData, spec: RunSpec) -> dict[str, npt.NDArray[np.int64]]:
    """Return split -> the rows of a run: those that train and choose in its fold, and the labelled test rows."""
    fold = data.folds(spec)[spec.fold.index if spec.fold else 0]
    return {"train": fold.train, "val": fold.val, "test": split_rows(cache, data, spec, "test")}


def split_rows(cache: Cache, data: TrainingData, spec: RunSpec, split: str) -> npt.NDArray[np.int64]:
    """Return (n,) the labelled rows of a split whose pictures the run can read, ascending."""
    return np.flatnonzero((data.splits == split) & (cache.labels >= 0) & ~data.unreadable(spec))


def score_together(
    cache: Cache, data: TrainingData, trained_runs: Sequence[Trained], digests: Sequence[str], device: torch.device
) -> Iterator[ScoredRun]:
    """Score trained runs on all their rows, and yield them in their order.

    Args:
        cache: the cache, with all labels.
        data: of the runs' split.
        trained_runs: the runs, none of which diverged.
        digests: the digests of the runs, with all labels.
        device: the device of the heads.
    """
    rows = [run_rows(cache, data, trained.spec) for trained in trained_runs]
    probs, far = _probs(data, trained_runs, rows, device)
    for trained, rows_of_run, probs_of_run, identity in zip(trained_runs, rows, probs, digests, strict=True):
        yield ScoredRun(
            record=_record(
                cache, data, trained, rows_of_run, probs=probs_of_run, far=far, identity=identity, device=device
            ),
            predictions=Predictions(
                cache.sample_ids[rows_of_run["test"]], cache.labels[rows_of_run["test"]], probs_of_run["test"]
            ),
            arrays=_arrays(trained, _action_unit_baseline(data, trained.spec)),
        )


def _probs(
    data: TrainingData, trained_runs: Sequence[Trained], rows: Sequence[Rows], device: torch.device
) -> tuple[list[dict[str, npt.NDArray[np.float32]]], Far]:
    """Return split -> (n, C) for each run, and the values that were limited.

    Features are read once for all runs, a span of rows at a time.
    """
    heads = [
        load_head_weights(
            trained.spec.head,
            {variant.stream: variant.shape for variant in data.features.of(trained.spec.features)},
            len(data.classes),
            trained.result.weights,
        ).to(device)
        for trained in trained_runs
    ]
    variants = data.all_variants([trained.spec for trained in trained_runs])
    parts: list[dict[str, list[npt.NDArray[np.float32]]]] = [{split: [] for split in SPLITS} for _ in trained_runs]
    far: Far = {}
    for span in data.features.spans(EVAL_ROWS):
        looked_at = set()
        features = {variant: data.features.take(variant, np.arange(span.start, span.stop)) for variant in variants}
        for trained, head, rows_of_run, parts_of_run in zip(trained_runs, heads, rows, parts, strict=True):
            for split in SPLITS:
                of_split = rows_of_run[split]
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
                    parts_of_run[split].append(head_probs(head, scaled, valid, steps))
    return [{split: np.concatenate(of_split) for split, of_split in of_run.items()} for of_run in parts], far


def _record(
    cache: Cache,
    data: TrainingData,
    trained: Trained,
    rows: Rows,
    *,
    probs: Mapping[str, npt.NDArray[np.float32]],
    far: Far,
    identity: str,
    device: torch.device,
) -> RunRecord:
    spec = trained.spec
    metrics = {
        split: classification_metrics(cache.labels[of_split], probs[split], cache.classes)
        for split, of_split in rows.items()
    }
    variants = data.features.of(spec.features)
    far_of_run = {variant: far[variant, id(trained.scaling[variant.stream])] for variant in variants}
    return RunRecord(
        digest=identity,
        name=spec.name,
        spec={**spec.model_dump(mode="json"), "head": recorded(spec.head)},
        cache_spec=_cache_spec(cache, spec),
        classes=list(cache.classes),
        dataset=dict(cache.manifest.info),
        streams=_streams(cache, data, trained),
        rows={split: {"rows": len(part), "missing": _missing(data, spec, part)} for split, part in rows.items()},
        metrics=metrics,
        history=trained.result.history,
        best_epoch=trained.result.best_epoch,
        parameters=trained.parameters,
        versions=_versions(),
        machine={"platform": platform.platform(), "device": _device_name(device)},
        seconds=trained.seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=run_notes(cache, data, trained, rows, metrics=metrics, far=far_of_run),
        plugins=[plugin.model_dump(mode="json") for plugin in plugins_with(METRICS)],
    )


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
    return {"name": cache.path.stem, "decode": cache.decode, "face": cache.face, "streams": streams}


def _streams(cache: Cache, data: TrainingData, trained: Trained) -> dict[str, Any]:
    streams = {}
    for variant in data.features.of(trained.spec.features):
        stream = cache.streams[variant.stream]
        streams[variant.stream] = {
            "kind": stream.kind,
            "digest": stream.digest,
            "dim": stream.dim,
            "used_dim": variant.dim,
            **({"used_shape": list(variant.shape)} if len(variant.shape) > 1 else {}),
            "weights": stream.weights,
            "fitted": trained.scaling[variant.stream].fitted,
        }
    return streams


def _action_unit_baseline(data: TrainingData, spec: RunSpec) -> Scaling | None:
    """Return the scaling of all action units over the training faces, which `predict` describes a face against.

    It is that of the run's stream of action units, or else of the first complete one of the cache.
    """
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


def _arrays(trained: Trained, baseline: Scaling | None) -> dict[str, npt.NDArray[np.float32]]:
    """Return all arrays of a run under the names by which they are saved (see `emofuse.results`)."""
    arrays = {f"head.{name}": array for name, array in trained.result.weights.items()}
    fitted = {f"scaling.{name}": values for name, values in trained.scaling.items()}
    if baseline is not None:
        fitted["baseline"] = baseline
    for name, values in fitted.items():
        arrays |= {f"{name}.center": values.center, f"{name}.scale": values.scale}
        if values.limit is not None:
            arrays[f"{name}.limit"] = values.limit
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
