"""The protocol of a stream, the samples that it receives and the rows that it returns.

A stream computes one array of features for each sample: a vector, a sequence of steps, a map, or a sequence of maps. A
sample is a decoded picture with the face in it, or a clip with its frames and its sound; it holds what the stream
needs. A stream reads no file, finds no face and writes no array: `emofuse.streams.extractor` decodes a file and finds
its faces once for all streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from emofuse.media.clip import Clip
from emofuse.media.sound import Sound
from emofuse.specs.streams import NEEDS_AUDIO, NEEDS_BLENDSHAPES, NEEDS_CROP, NEEDS_FACE, NEEDS_FACES, NEEDS_IMAGE
from emofuse.status import Status, Step

__all__ = [
    "NEEDS_AUDIO",
    "NEEDS_BLENDSHAPES",
    "NEEDS_CROP",
    "NEEDS_FACE",
    "NEEDS_FACES",
    "NEEDS_IMAGE",
    "TIME",
    "VECTOR",
    "Clip",
    "Face",
    "Rows",
    "Sample",
    "SampleBatch",
    "Sound",
    "Stream",
    "is_sequence",
    "needs_of",
]

Result = TypeVar("Result")

TIME = "time"
"""The name of the first dimension of a sequence."""
VECTOR = ("feature",)
"""The names of the dimensions of a vector."""


_FROM_MESH = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Face:
    """A face of a picture. All places are in pixels of the picture: x right, y down, the left top corner at (0, 0).

    Box and five points are computed from the mesh where the detector gives none.

    Attributes:
        points: the mesh, (468, 3) float32, MediaPipe Face Mesh topology. z is in pixels of about x's scale, smaller is
            nearer. None of a face of which only box and five points are known; `Sample.face` always has a mesh.
        box: the left, top, right and bottom, (4,) float32.
        five: the right and left eye and the nose tip of the subject, and the right and left corner of the mouth,
            (5, 2) float32. In an upright picture, the right eye of the subject is the left one in the picture.
        confidence: the confidence of the detector, from 0 to 1; NaN if it gives none.
        blendshapes: the 52 expression coefficients of the landmarker, from 0 to 1, (52,) float32; None unless needed.
        transform: the map from the landmarker's canonical face to its camera, (4, 4) float32: x right, y up and z to
            the viewer of the picture as it is; None unless needed.
        turns: the number of counter-clockwise quarter turns of the picture in which the face was found.
    """

    points: npt.NDArray[np.float32] | None = None
    box: npt.NDArray[np.float32] = field(default_factory=lambda: _FROM_MESH)
    five: npt.NDArray[np.float32] = field(default_factory=lambda: _FROM_MESH)
    confidence: float = math.nan
    blendshapes: npt.NDArray[np.float32] | None = None
    transform: npt.NDArray[np.float32] | None = None
    turns: int = 0

    def __post_init__(self) -> None:
        if not self.box.size:
            object.__setattr__(self, "box", _box_of(self.mesh))
        if not self.five.size:
            object.__setattr__(self, "five", _five_of(self.mesh))

    @property
    def mesh(self) -> npt.NDArray[np.float32]:
        """The points of a face that has them.

        Raises:
            ValueError: only box and five points of the face are known.
        """
        if self.points is None:
            raise ValueError("the face has no mesh: its detector gives a box and five points, and no stream needs more")
        return self.points

    @property
    def area(self) -> float:
        """The area of the box, in pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


# The subject's right and left eye (outer and inner corner), the nose tip, the right and left corner of the mouth.
_FIVE = ((33, 133), (263, 362), (1,), (61,), (291,))


def _box_of(mesh: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)])


def _five_of(mesh: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return five points of a mesh. The middle of the corners of an eye stays where it is when the eye closes."""
    if len(mesh) <= max(map(max, _FIVE)):
        return np.full((5, 2), np.nan, dtype=np.float32)
    return np.array([mesh[list(indices), :2].mean(axis=0) for indices in _FIVE], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded picture, or the parts of one clip.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright: a picture, or one frame of a clip. (0, 0, 3) for a stream that needs none.
        face: the face in it, with its mesh; None where no face was found or no stream needs one.
        crop: the aligned face, (size_px, size_px, 3) uint8 RGB, for streams that need `crop`; None where no face was
            found or no stream needs it. Streams must not write to it, because they share it.
        faces: all faces in it, for streams that need `faces`; a mesh only where the detector itself gives one.
        sound: the sound of the clip, for streams that need `audio`; None for others.
        clip: the chosen frames of the clip at once, for streams that need `frames`; None for others.
    """

    image: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 3), dtype=np.uint8))
    face: Face | None = None
    sound: Sound | None = None
    clip: Clip | None = None
    crop: npt.NDArray[np.uint8] | None = None
    faces: tuple[Face, ...] = ()


class SampleBatch(Sequence[Sample]):
    """Samples that pass all streams together, with the intermediate results that several streams share."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = tuple(samples)
        self._shared: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> SampleBatch:
        """Return the samples as a batch; a batch is returned itself."""
        return samples if isinstance(samples, SampleBatch) else cls(samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self._samples[index]

    def __len__(self) -> int:
        return len(self._samples)

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the result of `compute`, which runs only for the first stream that asks for this key."""
        if key not in self._shared:
            self._shared[key] = compute()
        return cast("Result", self._shared[key])


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a stream returns for n samples.

    Attributes:
        features: the features (n, *shape) in the stream's dtype; zeros where the row, or a step of a sequence, is not
            OK.
        status: the `Status` of every row, uint8 (n,); never PENDING.
        flags: the flags of every row, uint8 (n,): bit b is set where the stream's `flag_names[b]` holds. Zeros for
            streams without flags.
        mask: the `Step` of every step of a sequence, uint8 (n, T); None for other streams. A row is OK exactly if one
            of its steps is OK.
    """

    features: npt.NDArray[np.floating[Any]]
    status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None

    @classmethod
    def ok(cls, features: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.uint8] | None = None) -> Rows:
        """Return rows with these features (n, *shape), all OK and without flags; a sequence also passes its mask."""
        count = len(features)
        return cls(features, np.full(count, Status.OK, dtype=np.uint8), np.zeros(count, dtype=np.uint8), mask)

    @classmethod
    def empty(
        cls,
        count: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        status: Status,
        *,
        dimensions: tuple[str, ...] = VECTOR,
    ) -> Rows:
        """Return `count` rows of zeros, all of one status; all steps of sequences are padding."""
        return cls(
            features=np.zeros((count, *shape), dtype=dtype),
            status=np.full(count, status, dtype=np.uint8),
            flags=np.zeros(count, dtype=np.uint8),
            mask=np.full((count, shape[0]), Step.PADDING, dtype=np.uint8) if is_sequence(dimensions) else None,
        )

    @classmethod
    def empty_of(cls, stream: Stream, count: int, status: Status, dtype: npt.DTypeLike | None = None) -> Rows:
        """Return `count` rows of zeros for a stream, all of one status, in the stream's dtype or another one."""
        dtype = stream.dtype if dtype is None else dtype
        return cls.empty(count, stream.shape, dtype, status, dimensions=stream.dimensions)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of at least one part, concatenated."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(
            features=np.concatenate([part.features for part in parts]),
            status=np.concatenate([part.status for part in parts]),
            flags=np.concatenate([part.flags for part in parts]),
            mask=np.concatenate(masks) if masks else None,
        )

    def put(self, places: Sequence[int], rows: Rows) -> None:
        """Write other rows into these, at these places."""
        self.features[places], self.status[places], self.flags[places] = rows.features, rows.status, rows.flags
        if self.mask is not None:
            self.mask[places] = rows.mask


class Stream(Protocol):
    """One frozen extractor.

    One instance serves every block of a worker, holds no per-sample state, and returns the same bytes for the same
    samples, independent of earlier calls. An exception that `extract` raises for a single sample makes that row FAILED.

    Attributes:
        shape: the shape of the features of one row: (D,) for vectors, (T, D) for sequences, (C, H, W) for maps and
            (T, C, H, W) for sequences of maps.
        dimensions: the names of the axes of `shape`: ("feature",), ("time", "feature"), ("channel", "y", "x") or
            ("time", "channel", "y", "x"). A stream whose first dimension is "time" is a sequence.
        dtype: the dtype of the features that it returns.
        needs: what it uses of a sample, as its spec declares (see `emofuse.specs.streams.StreamSpecBase`): {"image"},
            {"image", "face"}, {"image", "crop"}, {"image", "face", "blendshapes"}, {"image", "faces"}, {"audio"},
            {"frames"}, or {"frames", "audio"}.
        flag_names: the names of the bits of `Rows.flags`, at most eight.
        columns: the names of the values along the last axis; () if they have none.
    """

    dtype: np.dtype[np.floating[Any]]
    needs: frozenset[str]
    flag_names: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102 - read-only members, so that a class attribute fits

    @property
    def dimensions(self) -> tuple[str, ...]: ...  # noqa: D102

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the features of n >= 0 samples, in their order."""
        ...

    def close(self) -> None:
        """Release native resources. The stream is not used afterwards."""
        ...


def needs_of(stream: Any) -> frozenset[str]:
    """Return what a stream needs; one of a plugin file written before sounds may declare `needs_face` instead."""
    needs = getattr(stream, "needs", None)
    if needs is None:
        return NEEDS_FACE if stream.needs_face else NEEDS_IMAGE
    return frozenset(needs)


def is_sequence(dimensions: Sequence[str]) -> bool:
    """Return whether these are the dimensions of a sequence, whose rows have a mask of their steps."""
    return bool(dimensions) and dimensions[0] == TIME
