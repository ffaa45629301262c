"""What a stream is: the protocol, the samples it is given and the rows it gives.

A stream turns samples (decoded pictures with the face found in them) into one feature vector each. It never reads
files, finds faces or writes arrays: `emofuse.streams.extractor` decodes and detects once for all streams of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from emofuse.status import Status

Made = TypeVar("Made")


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
        features: (n, D), the stream's dtype; zeros where the status is not OK.
        status: (n,) uint8 of `Status`; never PENDING.
        flags: (n,) uint8, bit b set where the stream's `flag_names[b]` holds; zeros for streams without flags.
    """

    features: npt.NDArray[np.floating[Any]]
    status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]

    @classmethod
    def ok(cls, features: npt.NDArray[np.floating[Any]]) -> Rows:
        """Features (n, D) of which every row is OK and without a flag."""
        count = len(features)
        return cls(features, np.full(count, Status.OK, dtype=np.uint8), np.zeros(count, dtype=np.uint8))

    @classmethod
    def empty(cls, count: int, dim: int, dtype: npt.DTypeLike, status: Status) -> Rows:
        """`count` rows of zeros, all of one status."""
        return cls(
            features=np.zeros((count, dim), dtype=dtype),
            status=np.full(count, status, dtype=np.uint8),
            flags=np.zeros(count, dtype=np.uint8),
        )


class Stream(Protocol):
    """One frozen extractor.

    One instance serves every block of a worker, holds no per-sample state, and gives the same bytes for the same
    samples whatever ran before. An exception from `extract` for one sample alone becomes that row's FAILED.

    Attributes:
        dim: D, the width of a feature vector.
        dtype: of the features it returns.
        needs_face: whether it looks at `Sample.face` (faces are detected only if some stream needs them).
        flag_names: names of the bits of `Rows.flags`, at most eight.
        columns: names of the D values, or () when they have none.
    """

    dim: int
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
