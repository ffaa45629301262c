"""The conformance check of streams."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from emofuse.specs import StreamSpec
from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status, Step
from emofuse.streams import make_stream
from emofuse.streams.base import Rows, Sample, Stream, is_sequence
from emofuse.testing.faults import raise_faults, spec_faults
from emofuse.testing.samples import example_samples

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
    stored dtype; an empty block, a block without any face and one without any sound; equal bytes for the same block
    twice; equal values for every block size and order; the bits of the flags; the number of columns; and a spec that
    can be pickled, declares the shape of its stream and derives its variants.

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
            faults = spec_faults(target) + _kind_faults(target, stream)
            faults += _stream_faults(stream, pictures, tolerance, stored=np.dtype(target.dtype))
    else:
        faults = _stream_faults(target, pictures, tolerance, stored=np.dtype(target.dtype))
    raise_faults(type(target).__name__, "a stream", faults)


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
        "a block without any face": [replace(sample, face=None, crop=None, faces=()) for sample in samples],
        "a block without any sound": [replace(sample, sound=None) for sample in samples],
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
