"""Conformance checks of streams, heads, datasets and metrics. The kinds of emofuse pass them, and yours should too.

from typing import Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status
from emofuse.streams.base import Rows
from emofuse.testing import check_stream


class MeanColour:
    \"\"\"Mean red, green and blue, 0 to 1.\"\"\"

    shape = (3,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs_face = False
    flag_names = ()
    columns = ("red", "green", "blue")

    def extract(self, samples):
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        for index, sample in enumerate(samples):
            rows.features[index] = sample.image.mean(axis=(0, 1)) / 255
        return rows

    def close(self):
        pass


class MeanColourSpec(CustomStreamSpec):
    kind: Literal["mean_colour"] = "mean_colour"

    def make(self, device):
        return MeanColour()


def test_mean_colour_is_a_stream():
    check_stream(MeanColourSpec())
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from contextlib import closing
from importlib import resources

import numpy as np
import numpy.typing as npt

from emofuse.metrics import Metric
from emofuse.specs import Spec, StreamSpec, digest
from emofuse.specs.datasets import DatasetSpecBase
from emofuse.specs.heads import HeadSpecBase
from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status, Step
from emofuse.streams import make_stream
from emofuse.streams.base import Face, Rows, Sample, Stream, is_sequence

_LEGAL = (Status.OK, Status.NO_DETECTION, Status.FAILED)


def check_stream(
    target: Stream | StreamSpec,
    *,
    samples: Sequence[Sample] | None = None,
    device: str = "cpu",
    tolerance: float = 1e-4,
) -> None:
    """Check that a stream fulfils the contract of `emofuse.streams.base.Stream`.

    The check covers shape, dtype and statuses; zeros where a row is not OK and finite values where it is, also in the
    stored dtype; an empty block and a block without any face; equal bytes for the same block twice; equal values for
    every block size and order; the bits of the flags; the number of columns; and a spec that can be pickled, declares
    the shape of its stream and derives its variants.

    Args:
        target: a spec, whose stream is made and closed here, or a stream, which stays open.
        samples: at least two pictures to use instead of `example_samples()`.
        device: the device of a spec's stream.
        tolerance: the largest allowed difference of values between block sizes and orders, as a share of the largest
            magnitude among all features (a convolution rounds differently for another batch size).

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    pictures = list(example_samples() if samples is None else samples)
    if isinstance(target, StreamSpecBase):
        with closing(make_stream(target, device=device)) as stream:
            faults = _spec_faults(target) + _kind_faults(target, stream)
            faults += _stream_faults(stream, pictures, tolerance, stored=np.dtype(target.dtype))
    else:
        faults = _stream_faults(target, pictures, tolerance, stored=np.dtype(target.dtype))
    _raise_faults(type(target).__name__, "a stream", faults)


def example_samples() -> list[Sample]:
    """Return eight small seeded pictures of several shapes, five of them with a face: one tiny, one beyond the edge."""
    return [
        _sample(160, 120, seed=0, face_px=70),
        _sample(96, 200, seed=1, face_px=80),
        _sample(64, 64, seed=2, face_px=None),
        _sample(240, 320, seed=3, face_px=24),
        _sample(100, 100, seed=4, face_px=180),
        Sample(np.full((48, 64, 3), 127, dtype=np.uint8)),
        _sample(33, 57, seed=5, face_px=None),
        _sample(224, 224, seed=6, face_px=130),
    ]


def example_face() -> Face:
    """Return the face that MediaPipe Face Mesh finds in scikit-image's astronaut photograph (NASA, public domain)."""
    table = resources.files("emofuse").joinpath("testing_face.csv").read_text(encoding="utf-8")
    return Face(np.array([line.split(",") for line in table.split()], dtype=np.float32))


def _sample(height: int, width: int, *, seed: int, face_px: int | None) -> Sample:
    """Draw coarse coloured patches with fine noise, and a face `face_px` high in the middle, turned by the seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3))
    patches = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    image = (patches + rng.integers(0, 56, patches.shape)).astype(np.uint8)
    if face_px is None:
        return Sample(image)
    points = example_face().points
    points = (points - points.mean(axis=0)) * (face_px / np.ptp(points[:, 1]))
    angle = 0.1 * seed
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    middle = np.array([width / 2, height / 2, 0])
    return Sample(image, Face((points @ turn + middle).astype(np.float32)))


def _spec_faults(spec: Spec) -> list[str]:
    faults = []
    try:
        copy = pickle.loads(pickle.dumps(spec))  # noqa: S301 - bytes of this process
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        return [f"the spec cannot be pickled, so no worker can receive it ({error}): define its class in a module"]
    if copy != spec or digest(copy) != digest(spec):
        faults.append("the spec changes when it is pickled")
    if isinstance(spec, StreamSpecBase) and type(spec).version < 1:
        faults.append(f"version must be >= 1, got {type(spec).version}")
    return faults


def _kind_faults(spec: StreamSpecBase, stream: Stream) -> list[str]:
    """Return the faults of what a spec declares of its stream's shape and variants."""
    faults = []
    if spec.stored_shape is not None:
        declared = (spec.stored_shape, spec.stored_dimensions)
        if declared != (stream.shape, stream.dimensions):
            faults.append(f"the spec declares {declared}, its stream {(stream.shape, stream.dimensions)}")
    stored = np.zeros((2, *stream.shape), dtype=spec.dtype)
    for variant in spec.variants:
        if variant.check(variant.default):
            faults.append(f"variant {variant.name}: the default {variant.default!r} is not among its values")
        for value in variant.values:
            choice = {each.name: value if each is variant else each.default for each in spec.variants}
            try:
                derived = spec.derive(stored, choice)
            except Exception as error:  # noqa: BLE001 - any exception is a fault to report
                faults.append(f"variant {variant.name}: derive raised {type(error).__name__} for {value!r}: {error}")
                continue
            if len(derived) != len(stored):
                faults.append(f"variant {variant.name}: derive returned {len(derived)} rows for {len(stored)}")
    return faults


def _stream_faults(stream: Stream, samples: list[Sample], tolerance: float, stored: np.dtype[np.generic]) -> list[str]:
    shape_faults = _shape_faults(stream)
    if shape_faults:
        return shape_faults  # no block of rows can be checked against it
    faults = _attribute_faults(stream)
    blocks = {
        "the block of all samples": samples,
        "an empty block": [],
        "a block without any face": [Sample(sample.image) for sample in samples],
    }
    for what, block in blocks.items():
        faults += _block_faults(stream, block, what, stored)
    return faults or _repeat_faults(stream, samples, tolerance)


def _attribute_faults(stream: Stream) -> list[str]:
    faults = []
    if not (isinstance(stream.dtype, np.dtype) and stream.dtype.kind == "f"):
        faults.append(f"dtype must be a floating np.dtype, got {stream.dtype!r}")
    if len(stream.flag_names) > 8:
        faults.append(f"flag_names: a uint8 holds at most 8 flags, got {len(stream.flag_names)}")
    if stream.columns and len(stream.columns) != stream.shape[-1]:
        faults.append(f"columns must be empty or name all {stream.shape[-1]} values, got {len(stream.columns)} names")
    if len(set(stream.columns)) != len(stream.columns):
        faults.append("columns: a name is used twice")
    return faults


def _shape_faults(stream: Stream) -> list[str]:
    """Return the faults of a stream's `shape` and `dimensions`."""
    shape, dimensions = (getattr(stream, name, None) for name in ("shape", "dimensions"))
    if not isinstance(shape, tuple) or not isinstance(dimensions, tuple):
        return [f"shape and dimensions must be tuples, got {shape!r} and {dimensions!r}"]
    faults = []
    if not shape or not all(isinstance(size, int) and size >= 1 for size in shape):
        faults.append(f"shape must be one or more ints >= 1, got {shape!r}")
    if len(dimensions) != len(shape) or len(set(dimensions)) != len(dimensions):
        faults.append(f"dimensions must name each of the {len(shape)} axes of shape differently, got {dimensions!r}")
    taken = {"sample", "view"} & set(dimensions)
    if taken:
        faults.append(f"dimensions: {min(taken)!r} is an axis that the cache adds itself")
    if is_sequence(dimensions) and len(dimensions) < 2:
        faults.append("dimensions: a sequence needs an axis behind 'time'")
    return faults


def _block_faults(stream: Stream, block: list[Sample], what: str, stored: np.dtype[np.generic]) -> list[str]:
    """Return the faults of the rows of one block."""
    try:
        rows = stream.extract(block)
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        return [f"extract raised {type(error).__name__} on {what}: {error}"]
    count = len(block)
    faults = []
    for field, array, shape, dtype in (
        ("features", rows.features, (count, *stream.shape), stream.dtype),
        ("status", rows.status, (count,), np.dtype(np.uint8)),
        ("flags", rows.flags, (count,), np.dtype(np.uint8)),
    ):
        if array.shape != shape or array.dtype != dtype:
            faults.append(f"{field} of {what} must be {shape} {dtype}, got {array.shape} {array.dtype}")
    if is_sequence(stream.dimensions):
        expected = (count, stream.shape[0])
        if rows.mask is None or rows.mask.shape != expected or rows.mask.dtype != np.uint8:
            returned = "None" if rows.mask is None else f"{rows.mask.shape} {rows.mask.dtype}"
            faults.append(f"mask of {what} must be {expected} uint8, got {returned}")
    elif rows.mask is not None:
        faults.append(f"mask of {what} must be None, because the first dimension is not 'time'")
    return faults or [f"{fault} in {what}" for fault in _value_faults(stream, rows, stored)]


def _value_faults(stream: Stream, rows: Rows, stored: np.dtype[np.generic]) -> list[str]:
    faults = []
    illegal = sorted(set(rows.status.tolist()) - set(_LEGAL))
    if illegal:
        faults.append(f"status {illegal[0]}: a stream may return OK 1, NO_DETECTION 2 or FAILED 4")
    ok = rows.status == Status.OK
    if rows.features[~ok].any():
        faults.append("features are not zero where the status is not OK")
    if not np.isfinite(rows.features[ok]).all():
        faults.append("features are not finite where the status is OK")
    else:
        with np.errstate(over="ignore"):
            fits = np.isfinite(rows.features[ok].astype(stored)).all()
        if not fits:
            faults.append(f"features do not fit into the stored {stored}")
    if rows.mask is not None:
        faults += _mask_faults(rows, rows.mask)
    if (rows.flags >> len(stream.flag_names)).any():
        faults.append(f"flags has bits beyond the {len(stream.flag_names)} of flag_names")
    return faults


def _mask_faults(rows: Rows, mask: npt.NDArray[np.uint8]) -> list[str]:
    faults = []
    unknown = sorted(set(np.unique(mask).tolist()) - set(Step))
    if unknown:
        faults.append(f"step {unknown[0]} is unknown: a mask may hold PADDING 0, OK 1 or NO_DETECTION 2")
    if ((rows.status == Status.OK) != (mask == Step.OK).any(axis=1)).any():
        faults.append("a row is OK without an OK step, or has an OK step and is not OK")
    if rows.features[mask != Step.OK].any():
        faults.append("features are not zero at steps that are not OK")
    return faults


def _repeat_faults(stream: Stream, samples: list[Sample], tolerance: float) -> list[str]:
    """Return the faults that appear when the samples are extracted again: twice, in other blocks, in another order."""
    first = stream.extract(samples)
    kept = Rows.joined([first])  # a copy
    again = stream.extract(samples)
    faults = []
    if not all(np.array_equal(_part(kept, part), _part(again, part)) for part in _PARTS):
        faults.append("the same block gives other bytes the second time")
    backwards = stream.extract(samples[::-1])
    if not all(np.array_equal(_part(kept, part), _part(first, part)) for part in _PARTS):
        faults.append("a later call changed the arrays that an earlier one returned")
    others = {
        "one by one": Rows.joined([stream.extract([sample]) for sample in samples]),
        "in blocks of 3": Rows.joined(
            [stream.extract(samples[start : start + 3]) for start in range(0, len(samples), 3)]
        ),
        "backwards": Rows(
            backwards.features[::-1],
            backwards.status[::-1],
            backwards.flags[::-1],
            None if backwards.mask is None else backwards.mask[::-1],
        ),
    }
    largest = float(np.abs(kept.features).max(initial=0.0))
    for how, rows in others.items():
        if not all(np.array_equal(_part(rows, part), _part(kept, part)) for part in ("status", "flags", "mask")):
            faults.append(f"statuses, flags or masks differ when the samples are extracted {how}")
        apart = float(np.abs(rows.features - kept.features).max(initial=0.0))
        if apart > tolerance * largest:
            allowed = f"allowed {tolerance * largest:.3g}"
            faults.append(f"features differ by {apart:.3g} when the samples are extracted {how}, {allowed}")
    return faults


_PARTS = ("features", "status", "flags", "mask")


def _part(rows: Rows, part: str) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] | None = getattr(rows, part)
    return np.empty(0, np.uint8) if array is None else array


def check_metric(metric: Metric) -> None:
    """Check that a metric fulfils the contract of `emofuse.metrics.Metric`.

    The check covers a name that YAML and tables can hold; a number for any rows of any number of classes, also where a
    class has no row; the same number for rows in another order; better numbers for better answers, in its direction;
    and, for a metric of confusion matrices, the same scores for many matrices at once as for each alone.

    Args:
        metric: the metric to check.

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    faults = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", metric.kind):
        faults.append(f"kind must be a name of small letters, digits and _, got {metric.kind!r}")
    if metric.needs not in {"confusion", "probs"}:
        faults.append(f"needs must be confusion or probs, got {metric.needs!r}")
    if metric.resamples < 0:
        faults.append(f"resamples must be >= 0, got {metric.resamples}")
    try:
        faults += faults or _metric_faults(metric)
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        faults.append(f"its formula raised {type(error).__name__}: {error}")
    _raise_faults(metric.kind, "a metric", faults)


def _metric_faults(metric: Metric) -> list[str]:
    faults = []
    for seed, classes in ((0, 2), (1, 3), (2, 8)):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, 80)
        noise = rng.random((80, classes))
        scores = {}
        for what, answers in (("good", labels), ("poor", (labels + 1) % classes)):  # both confident, one wrong
            probs = noise + 30 * np.eye(classes)[answers]
            probs /= probs.sum(axis=1, keepdims=True)
            scores[what] = metric.score(labels, probs)
            order = rng.permutation(80)
            reordered = metric.score(labels[order], probs[order])
            if not np.isclose(scores[what], reordered, rtol=1e-9, atol=1e-12):
                faults.append(f"rows in another order have the score {reordered:.6g} instead of {scores[what]:.6g}")
        if not np.isfinite(list(scores.values())).all():
            faults.append(f"a score of {classes} classes is not finite: {scores}")
        elif (scores["good"] < scores["poor"]) if metric.larger_is_better else (scores["good"] > scores["poor"]):
            values = f"good answers have {scores['good']:.4g}, poor ones {scores['poor']:.4g}"
            faults.append(f"larger_is_better must be {not metric.larger_is_better}: {values}")

        metric.score(labels[labels == labels[0]], probs[labels == labels[0]])  # a resample may miss classes
    if metric.needs == "confusion":
        counts = np.random.default_rng(3).integers(1, 9, (5, 4, 4)).astype(np.float64)
        together, alone = np.asarray(metric.formula(counts)), np.array([metric.formula(each) for each in counts])
        if together.shape != alone.shape or not np.allclose(together, alone, equal_nan=True):
            faults.append("the score of a matrix alone differs from its score among several at once")
    return list(dict.fromkeys(faults))


def check_dataset(spec: DatasetSpecBase) -> None:
    """Check that a dataset fulfils the contract of a kind of datasets, on your own data.

    The check covers the same rows in the same order twice; a unique id for every row; labels among the classes; splits
    that emofuse knows; and a spec that can be pickled and whose `kind` is that of the manifest.

    Args:
        spec: the spec of a dataset with at least one row.

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    from emofuse.datasets.splits import SPLITS

    faults = _spec_faults(spec)
    try:
        listing, again = spec.read(), spec.read()
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        _raise_faults(type(spec).__name__, "a dataset", [*faults, f"read() raised {type(error).__name__}: {error}"])
        return
    manifest = listing.manifest
    if not manifest.table.equals(again.manifest.table) or manifest.classes != again.manifest.classes:
        faults.append("read() returns other rows, or another order, the second time")
    if manifest.table["sample_id"].n_unique() != len(manifest):
        faults.append("sample ids are used twice")
    unknown_splits = sorted(set(manifest.table["split"].drop_nulls().to_list()) - set(SPLITS))
    if unknown_splits:
        faults.append(f"splits must be {', '.join(SPLITS)} or null, got {', '.join(map(repr, unknown_splits))}")
    if len(set(manifest.classes)) != len(manifest.classes):
        faults.append("two classes have one name")
    unknown = sorted(set(manifest.table["label"].drop_nulls().to_list()) - set(manifest.classes))
    if unknown:
        faults.append(f"labels that are not among the classes: {', '.join(map(repr, unknown))}")
    if manifest.info.get("kind") != spec.kind:
        faults.append(f"the manifest has the kind {manifest.info.get('kind')!r}, the spec {spec.kind!r}")
    _raise_faults(type(spec).__name__, "a dataset", faults)


def check_head(spec: HeadSpecBase, *, tolerance: float = 1e-4) -> None:
    """Check that a head fulfils the contract of a kind of heads: K heads in one module equal K separate heads.

    The check covers finite logits (K, B, C); the same logits in a group as alone with the same seed, also in different
    folds; a gradient and an axis of heads for every parameter; finite logits of a row without any stream; the same
    logits after a group has shrunk to one head; and a spec that can be pickled.

    Args:
        spec: the spec of the head.
        tolerance: the largest allowed difference of logits, as a share of the largest logit.

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    faults = _spec_faults(spec)
    try:
        faults += _head_faults(spec, tolerance)
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        faults.append(f"it raised {type(error).__name__}: {error}")
    _raise_faults(type(spec).__name__, "a head", faults)


_HEAD_DIMS = {"one": 5, "other.stream": 7}


def _head_faults(spec: HeadSpecBase, tolerance: float) -> list[str]:
    import torch

    from emofuse.heads import make_head
    from emofuse.heads.members import HeadBatch, HeadMember, owners, shrink

    one, both = ("one",), tuple(_HEAD_DIMS)
    group = [HeadMember(both, seed=0, fold=0), HeadMember(one, seed=1, fold=0), HeadMember(both, seed=2, fold=1)]
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(2, 6, dim, generator=generator) for name, dim in _HEAD_DIMS.items()}
    valid = {name: torch.ones(2, 6, dtype=torch.bool) for name in _HEAD_DIMS}
    for each in valid.values():
        each[:, 4:] = False  # rows without any stream
    batch = HeadBatch({name: torch.where(valid[name][..., None], rows, 0) for name, rows in features.items()}, valid)
    head = make_head(spec, group, _HEAD_DIMS, 3)
    logits = head(batch)
    if tuple(logits.shape) != (3, 6, 3):
        return [f"logits must be (K, B, C) = (3, 6, 3), got {tuple(logits.shape)}"]
    faults = [] if torch.isfinite(logits).all() else ["logits are not finite"]
    logits.square().sum().backward()
    idle = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    if idle:
        faults.append(f"parameters without a gradient: {', '.join(idle)}")
    lost = sorted(set(head.state_dict()) - set(owners(head)))
    if lost:
        faults.append(f"tensors of no layer with members (an attribute `members`): {', '.join(lost)}")
        return faults
    largest = float(logits.abs().max())
    head.eval()
    together = head(batch).detach()
    for index, member in enumerate(group):
        dims = {name: _HEAD_DIMS[name] for name in member.streams}
        alone = make_head(spec, [HeadMember(member.streams, seed=member.seed)], dims, 3)
        part = HeadBatch(
            {name: batch.features[name][member.fold, None] for name in member.streams},
            {name: batch.valid[name][member.fold, None] for name in member.streams},
        )
        alone.train()
        apart = float((alone(part)[0] - logits[index]).abs().max().detach())
        if apart > tolerance * largest:
            faults.append(f"head {index} of a group differs by {apart:.3g} from the same head alone")
    shrink(head, [1])
    first = HeadBatch({k: v[:1] for k, v in batch.features.items()}, {k: v[:1] for k, v in valid.items()})
    apart = float((head(first)[0] - together[1]).abs().max().detach())
    if apart > tolerance * largest:
        faults.append(f"head 1 differs by {apart:.3g} once its group has shrunk to it")
    return faults


def _raise_faults(name: str, what: str, faults: list[str]) -> None:
    if faults:
        noun = "fault" if len(faults) == 1 else "faults"
        raise AssertionError(f"{name} breaks the contract of {what}, {len(faults)} {noun}: " + " | ".join(faults))
