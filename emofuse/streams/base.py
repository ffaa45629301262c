"""What a stream is: the protocol, the samples it is given and the rows it gives.

A stream turns samples (decoded pictures with the face found in them) into one array of features each: a vector, a
sequence of steps, a map, or a sequence of maps. It never reads files, finds faces or writes arrays:
`emofuse.streams.extractor` decodes and detects once for all streams of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from emofuse.status import Status, Step

Made = TypeVar("Made")

TIME = "time"
"""Name of the first dimension of a sequence."""
VECTOR = ("feature",)
"""Names of the dimensions of a vector."""


@dataclass(frozen=True, slots=True)
class Face:
    """The most prominent face of a picture.

    Attributes:
        points: (468, 3) float32, MediaPipe Face Mesh topology. x right and y down in pixels of the picture; z in
            pixels of about x's scale, smaller is nearer.
    """

    points: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded picture.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        face: the face found in it, None when none was found or no stream asked for it.
    """

    image: npt.NDArray[np.uint8]
    face: Face | None = None


class Batch(Sequence[Sample]):
    """Samples that go through all streams together, and what one stream made of them and another needs as well."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = tuple(samples)
        self._made: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Batch:
        """The samples as a batch, which they may be already."""
        return samples if isinstance(samples, Batch) else cls(samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self._samples[index]

    def __len__(self) -> int:
        return len(self._samples)

    def once(self, how: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives; made by the first stream that asks for it, under a key that says how it is made."""
        if how not in self._made:
            self._made[how] = make()
        return cast("Made", self._made[how])


@dataclass(frozen=True, slots=True)
class Rows:
    """What a stream gives for n samples.

    Attributes:
        features: (n, *shape), the stream's dtype; zeros where the status, or a step of a sequence, is not OK.
        status: (n,) uint8 of `Status`; never PENDING.
        flags: (n,) uint8, bit b set where the stream's `flag_names[b]` holds; zeros for streams without flags.
        mask: (n, T) uint8 of `Step` for sequences, None for all else. A row is OK exactly if one of its steps is.
    """

    features: npt.NDArray[np.floating[Any]]
    status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None

    @classmethod
    def ok(cls, features: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.uint8] | None = None) -> Rows:
        """Features (n, *shape) of which every row is OK and without a flag; sequences come with their mask."""
        count = len(features)
        return cls(features, np.full(count, Status.OK, dtype=np.uint8), np.zeros(count, dtype=np.uint8), mask)

    @classmethod
    def empty(
        cls,
        count: int,
        shape: int | tuple[int, ...],
        dtype: npt.DTypeLike,
        status: Status,
        *,
        dimensions: tuple[str, ...] = VECTOR,
    ) -> Rows:
        """`count` rows of zeros, all of one status; the steps of sequences are all padding."""
        shape = (shape,) if isinstance(shape, int) else shape
        return cls(
            features=np.zeros((count, *shape), dtype=dtype),
            status=np.full(count, status, dtype=np.uint8),
            flags=np.zeros(count, dtype=np.uint8),
            mask=np.full((count, shape[0]), Step.PADDING, dtype=np.uint8) if is_sequence(dimensions) else None,
        )

    @classmethod
    def empty_of(cls, stream: Stream, count: int, status: Status, dtype: npt.DTypeLike | None = None) -> Rows:
        """`count` rows of zeros of a stream, all of one status, in its own type or another one."""
        shape, dimensions = shape_of(stream), dimensions_of(stream)
        return cls.empty(count, shape, stream.dtype if dtype is None else dtype, status, dimensions=dimensions)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of one part after another; at least one part."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(
            features=np.concatenate([part.features for part in parts]),
            status=np.concatenate([part.status for part in parts]),
            flags=np.concatenate([part.flags for part in parts]),
            mask=np.concatenate(masks) if masks else None,
        )

    def put(self, rows: Sequence[int], given: Rows) -> None:
        """Writes other rows into these, at these places."""
        self.features[rows], self.status[rows], self.flags[rows] = given.features, given.status, given.flags
        if self.mask is not None:
            self.mask[rows] = given.mask


class Stream(Protocol):
    """One frozen extractor.

    One instance serves every block of a worker, holds no per-sample state, and gives the same bytes for the same
    samples whatever ran before. An exception from `extract` for one sample alone becomes that row's FAILED.

    Attributes:
        shape: of the features of one row: (D,) for vectors, (T, D) for sequences, (C, Y, X) for maps. A stream of
            vectors may have `dim: int` instead (see `shape_of`).
        dimensions: names of the axes of `shape`: ("feature",), ("time", "feature"), ("channel", "y", "x") and the like.
            A stream whose first dimension is "time" is a sequence. Vectors may leave them out.
        dtype: of the features it returns.
        needs_face: whether it looks at `Sample.face` (faces are detected only if some stream needs them).
        flag_names: names of the bits of `Rows.flags`, at most eight.
        columns: names of the values of a vector, or of those along the last axis; () when they have none.
    """

    dtype: np.dtype[np.floating[Any]]
    needs_face: bool
    flag_names: tuple[str, ...]
    columns: tuple[str, ...]

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Features of n samples, n >= 0, in their order."""
        ...

    def close(self) -> None:
        """Releases native resources; the stream is not used afterwards."""
        ...


def shape_of(stream: Stream) -> tuple[int, ...]:
    """Shape of the features of one row: what the stream declares as `shape`, or (dim,)."""
    shape = getattr(stream, "shape", None)
    return (cast("Any", stream).dim,) if shape is None else tuple(shape)


def dimensions_of(stream: Stream) -> tuple[str, ...]:
    """Names of the axes of `shape_of`; those of a vector where the stream declares none."""
    return tuple(getattr(stream, "dimensions", VECTOR))


def is_sequence(dimensions: Sequence[str]) -> bool:
    """Whether these are the dimensions of a sequence, whose rows come with a mask of their steps."""
    return bool(dimensions) and dimensions[0] == TIME
