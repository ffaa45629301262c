"""The conformance check for streams: every stream of emofuse passes it, and so should one of your own.

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status
from emofuse.streams.base import Rows
from emofuse.testing import check_stream


class MeanColour:
    \"\"\"Mean red, green and blue, 0 to 1.\"\"\"

    dim = 3
    dtype = np.dtype(np.float32)
    needs_face = False
    flag_names = ()
    columns = ("red", "green", "blue")

    def extract(self, samples):
        rows = Rows.empty(len(samples), self.dim, self.dtype, Status.OK)
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
from collections.abc import Sequence
from contextlib import closing
from importlib import resources

import numpy as np
import numpy.typing as npt

from emofuse.specs import StreamSpec, digest
from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.streams import make_stream
from emofuse.streams.base import Face, Rows, Sample, Stream

_LEGAL = (Status.OK, Status.NO_DETECTION, Status.FAILED)


def check_stream(
    target: Stream | StreamSpec,
    *,
    samples: Sequence[Sample] | None = None,
    device: str = "cpu",
    tolerance: float = 1e-4,
) -> None:
    """Checks that a stream keeps the contract of `emofuse.streams.base.Stream`.

    What must hold: shape, dtype and statuses; zeros where a row is not OK, finite values where it is, also in the
    stored dtype; an empty block and a block without any face; the same bytes for the same block twice; the same values
    for every block size and order; known flags; as many columns as values; a spec that can be pickled.

    Args:
        target: a spec, whose stream is made and closed here, or a stream, which is left open.
        samples: pictures to try it on instead of `example_samples()`; at least two.
        device: where a spec's stream runs.
        tolerance: how much values may differ between block sizes and orders, as a share of the largest magnitude among
            all features (a convolution rounds differently for another batch size).

    Raises:
        AssertionError: names every fault found.
    """
    tried = list(example_samples() if samples is None else samples)
    if isinstance(target, StreamSpecBase):
        with closing(make_stream(target, device=device)) as stream:
            faults = _spec_faults(target) + _stream_faults(stream, tried, tolerance, stored=np.dtype(target.dtype))
        name = type(target).__name__
    else:
        faults = _stream_faults(target, tried, tolerance, stored=np.dtype(target.dtype))
        name = type(target).__name__
    if faults:
        noun = "fault" if len(faults) == 1 else "faults"
        raise AssertionError(f"{name} breaks the contract of a stream, {len(faults)} {noun}: " + " | ".join(faults))


def example_samples() -> list[Sample]:
    """Eight small seeded pictures of several shapes, five with a face: one tiny, one reaching over the edge."""
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
    """A face as MediaPipe Face Mesh finds it: of the astronaut photograph (NASA, public domain) in scikit-image."""
    table = resources.files("emofuse").joinpath("testing_face.csv").read_text(encoding="utf-8")
    return Face(np.array([line.split(",") for line in table.split()], dtype=np.float32))


def _sample(height: int, width: int, *, seed: int, face_px: int | None) -> Sample:
    """Coarse coloured patches under fine noise, with a face `face_px` high in the middle, turned by the seed."""
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


def _spec_faults(spec: StreamSpecBase) -> list[str]:
    faults = []
    try:
        copy = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own bytes
    except Exception as error:  # noqa: BLE001 - whatever pickling raises is the finding
        return [f"the spec cannot be pickled, so no worker can receive it ({error}): define its class in a module"]
    if copy != spec or digest(copy) != digest(spec):
        faults.append("the spec is another one after pickling")
    if type(spec).version < 1:
        faults.append(f"version must be >= 1, got {type(spec).version}")
    return faults


def _stream_faults(stream: Stream, samples: list[Sample], tolerance: float, stored: np.dtype[np.generic]) -> list[str]:
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
    if not (isinstance(stream.dim, int) and stream.dim >= 1):
        faults.append(f"dim must be an int >= 1, got {stream.dim!r}")
    if not (isinstance(stream.dtype, np.dtype) and stream.dtype.kind == "f"):
        faults.append(f"dtype must be a floating np.dtype, got {stream.dtype!r}")
    if len(stream.flag_names) > 8:
        faults.append(f"flag_names: a uint8 holds at most 8 flags, got {len(stream.flag_names)}")
    if stream.columns and len(stream.columns) != stream.dim:
        faults.append(f"columns must be empty or name all {stream.dim} values, got {len(stream.columns)} names")
    if len(set(stream.columns)) != len(stream.columns):
        faults.append("columns: a name is used twice")
    return faults


def _block_faults(stream: Stream, block: list[Sample], what: str, stored: np.dtype[np.generic]) -> list[str]:
    """Faults of one block's rows, seen alone."""
    try:
        rows = stream.extract(block)
    except Exception as error:  # noqa: BLE001 - whatever it raises is the finding
        return [f"extract raised {type(error).__name__} on {what}: {error}"]
    count = len(block)
    faults = []
    for field, array, shape, dtype in (
        ("features", rows.features, (count, stream.dim), stream.dtype),
        ("status", rows.status, (count,), np.dtype(np.uint8)),
        ("flags", rows.flags, (count,), np.dtype(np.uint8)),
    ):
        if array.shape != shape or array.dtype != dtype:
            found = f"{array.shape} {array.dtype}"
            faults.append(f"{field} of {what} must be {shape} {dtype}, got {found}")
    return faults or [f"{fault} in {what}" for fault in _value_faults(stream, rows, stored)]


def _value_faults(stream: Stream, rows: Rows, stored: np.dtype[np.generic]) -> list[str]:
    faults = []
    illegal = sorted(set(rows.status.tolist()) - set(_LEGAL))
    if illegal:
        faults.append(f"status {illegal[0]} is not a stream's to give (OK 1, NO_DETECTION 2, FAILED 4)")
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
    if (rows.flags >> len(stream.flag_names)).any():
        faults.append(f"flags has bits beyond the {len(stream.flag_names)} of flag_names")
    return faults


def _repeat_faults(stream: Stream, samples: list[Sample], tolerance: float) -> list[str]:
    """Faults that show when the same samples are extracted again: twice, in other blocks, in another order."""
    first = stream.extract(samples)
    kept = Rows(first.features.copy(), first.status.copy(), first.flags.copy())
    again = stream.extract(samples)
    faults = []
    if not all(np.array_equal(_part(kept, part), _part(again, part)) for part in _PARTS):
        faults.append("the same block gives other bytes the second time")
    backwards = stream.extract(samples[::-1])
    if not all(np.array_equal(_part(kept, part), _part(first, part)) for part in _PARTS):
        faults.append("a later call changed the arrays that an earlier one returned")
    others = {
        "one by one": _joined([stream.extract([sample]) for sample in samples]),
        "in blocks of 3": _joined([stream.extract(samples[start : start + 3]) for start in range(0, len(samples), 3)]),
        "backwards": Rows(backwards.features[::-1], backwards.status[::-1], backwards.flags[::-1]),
    }
    largest = float(np.abs(kept.features).max(initial=0.0))
    for how, rows in others.items():
        if not (np.array_equal(rows.status, kept.status) and np.array_equal(rows.flags, kept.flags)):
            faults.append(f"statuses or flags differ when the samples are extracted {how}")
        apart = float(np.abs(rows.features - kept.features).max(initial=0.0))
        if apart > tolerance * largest:
            allowed = f"allowed {tolerance * largest:.3g}"
            faults.append(f"features differ by {apart:.3g} when the samples are extracted {how}, {allowed}")
    return faults


_PARTS = ("features", "status", "flags")


def _part(rows: Rows, part: str) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] = getattr(rows, part)
    return array


def _joined(blocks: list[Rows]) -> Rows:
    features, status, flags = (np.concatenate([_part(rows, part) for rows in blocks]) for part in _PARTS)
    return Rows(features, status, flags)
