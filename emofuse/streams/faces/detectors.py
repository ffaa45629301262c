"""What all face detectors share: their protocol, the reduction of huge pictures, and the muting of native logs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from emofuse.errors import StreamError
from emofuse.streams.base import Face

MAX_FACES = 4
"""The number of faces among which the largest one is chosen."""
MAX_FACES_OF_ALL = 32
"""The number of faces of a picture where the spec asks for more than the largest one."""
MAX_SIDE_PX = 1280

_OF_MEDIAPIPE = (ImportError, OSError, RuntimeError, ValueError, AttributeError)
_MUTE = threading.Lock()  # two threads that mute stderr at once would leave it muted


class FaceDetector(Protocol):
    """A detector of all faces of a picture. Two threads must not use it at once."""

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an (H, W, 3) uint8 RGB picture of any size."""
        ...

    def close(self) -> None:
        """Release native graphs and threads. The detector is not used afterwards; a second call does nothing."""
        ...


class FollowingDetector(FaceDetector, Protocol):
    """A detector that also looks for faces where they were in the picture before, for frames of a clip."""

    def forget(self) -> None:
        """Forget the faces of the picture before."""
        ...


def overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the intersection of two boxes (left, top, right, bottom) as a share of their union."""
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    both = float(np.prod(sides))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return both / (areas - both) if areas > both else 0.0


def bounded(
    image: npt.NDArray[np.uint8], max_side_px: int = MAX_SIDE_PX, *, averages: bool = False
) -> npt.NDArray[np.uint8]:
    """Return the picture with a long side of at most `max_side_px`, contiguous.

    It is sampled linearly, as MediaPipe samples its input, where averaging over areas costs more than it saves; with
    `averages` it is averaged, for networks that see the picture itself.
    """
    height, width = image.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    import cv2

    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA if averages else cv2.INTER_LINEAR), dtype=np.uint8
    )


@contextmanager
def start_errors(detector: str, *others: type[BaseException]) -> Iterator[None]:
    """Name the detector in the errors that a library raises when it cannot be imported or started."""
    try:
        yield
    except _OF_MEDIAPIPE + others as error:
        text = " ".join(str(error).split())
        raise StreamError(f"the face detector {detector!r} cannot start: {text}") from error


@contextmanager
def native_log_muted() -> Iterator[None]:
    """Redirect the process's stderr to the null device inside the context.

    MediaPipe's native code writes useless lines (delegates, feedback tensors) straight to the file descriptor when a
    graph starts and when it sees its first face, and it ignores log levels. Its errors still become Python exceptions.
    """
    with _MUTE:
        try:
            kept = os.dup(2)
        except OSError:  # a service has closed its stderr: there is nothing to mute
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
