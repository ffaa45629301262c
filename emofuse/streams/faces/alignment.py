"""The aligned face as a square picture: by five points, by the mesh, or by the box.

`five_point` is the similarity (turn, one scale, shift) that brings eyes, nose tip and corners of the mouth nearest to
fixed places, in the sense of least squares (Umeyama, "Least-squares estimation of transformation parameters between two
point patterns", TPAMI 1991). The places are those of the 112 x 112 pictures of ArcFace (Deng et al., CVPR 2019), which
most networks of faces were trained on, scaled to the side of the crop.

`mesh` turns the picture until the line between the eyes is horizontal, and cuts the square around the mesh.

`box` cuts the square around the box of the detector. It turns nothing but quarter turns of a face that was found in a
turned picture (`FaceSpec.turned`).

Content beyond the border of the picture is black. A picture is sampled linearly; where it shrinks to less than half, it
is averaged over areas first, so that fine detail leaves no false patterns.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from emofuse.specs import FaceSpec
from emofuse.streams.base import Face

VERSION = 1
"""Increase it whenever the same face gives another crop. It is part of the digest of streams that see crops."""

TEMPLATE_PX = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""The places of the subject's right and left eye, the nose tip, and the corners of the mouth in ArcFace's pictures."""

Matrix = npt.NDArray[np.float64]


def crop_face(
    image: npt.NDArray[np.uint8], face: Face, spec: FaceSpec, view: Matrix | None = None
) -> npt.NDArray[np.uint8]:
    """Return the aligned face, (size_px, size_px, 3) uint8 RGB.

    Args:
        image: the picture in which the face was found, (H, W, 3) uint8 RGB.
        face: the face; with a mesh for `align: mesh`.
        spec: the alignment, the side and the margin.
        view: the matrix (3, 3) of an augmented view, from pixels of the crop to pixels of the view; None for the crop
            itself. The picture is sampled once, so that a view shows what lies beside the face and not a border.

    Raises:
        ValueError: the points of the face lie on one place, or it has no mesh and the alignment needs one.
    """
    matrix = crop_matrix(face, spec)
    if view is not None:
        matrix = _of_places(view) @ matrix
    return _sampled(image, matrix, spec.size_px)


def crop_matrix(face: Face, spec: FaceSpec) -> Matrix:
    """Return the matrix (3, 3) from places in the picture to places in the crop.

    A place is a point of the plane in which pixel (0, 0) covers the square from (0, 0) to (1, 1).

    Raises:
        ValueError: as `crop_face`.
    """
    size, margin = spec.size_px, spec.crop_margin
    match spec.align:
        case "five_point":
            scale = size / (TEMPLATE_PX * (1 + 2 * margin))
            middle = TEMPLATE_PX / 2
            target = (TEMPLATE - middle) * scale + size / 2
            return similarity(face.five.astype(np.float64), target)
        case "mesh":
            right, left = face.five[:2].astype(np.float64)
            angle = math.atan2(left[1] - right[1], left[0] - right[0])
            points = face.mesh[:, :2].astype(np.float64) @ _turn(-angle).T
            return _square(_turn(-angle), points.min(axis=0), points.max(axis=0), margin, size)
        case "box":
            turn = _turn(-face.turns * math.pi / 2).round()
            corners = face.box.astype(np.float64).reshape(2, 2) @ turn.T
            return _square(turn, corners.min(axis=0), corners.max(axis=0), margin, size)


def similarity(points: Matrix, targets: Matrix) -> Matrix:
    """Return the similarity (3, 3) that brings points (n, 2) nearest to their targets (n, 2).

    Raises:
        ValueError: all points lie on one place.
    """
    middle, target_middle = points.mean(axis=0), targets.mean(axis=0)
    centred, target = points - middle, targets - target_middle
    spread = float((centred**2).sum())
    if not spread > 1e-6:
        raise ValueError("the five points of the face lie on one place: it cannot be aligned")
    # In the plane, the best turn and scale are one complex number: the regression of targets on points.
    along = float((centred * target).sum()) / spread
    across = float((centred[:, 0] * target[:, 1] - centred[:, 1] * target[:, 0]).sum()) / spread
    linear = np.array([[along, -across], [across, along]])
    return _matrix(linear, target_middle - linear @ middle)


def _turn(angle: float) -> Matrix:
    """Return the rotation matrix (2, 2) of an angle in radians, clockwise in a picture, whose y points down."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _square(turn: Matrix, low: Matrix, high: Matrix, margin: float, size: int) -> Matrix:
    """Return the map to a square around a box of the turned picture, with a margin on each side of the longer side."""
    side = max(float((high - low).max()) * (1 + 2 * margin), 1.0)
    scale = size / side
    middle = (low + high) / 2
    return _matrix(scale * turn, size / 2 - scale * middle)


def _matrix(linear: Matrix, shift: Matrix) -> Matrix:
    return np.vstack([np.column_stack([linear, shift]), [0.0, 0.0, 1.0]])


def _of_places(of_pixels: Matrix) -> Matrix:
    """Return the map of places from a map of pixels, whose number is the place of their left top corner."""
    half = _matrix(np.eye(2), np.array([0.5, 0.5]))
    moved: Matrix = half @ of_pixels @ np.linalg.inv(half)
    return moved


def _sampled(image: npt.NDArray[np.uint8], matrix: Matrix, size: int) -> npt.NDArray[np.uint8]:
    """Return the square of a picture that a map of places shows."""
    import cv2

    scale = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    if scale < 0.5:
        image, to_small = _shrunk(image, matrix, size, scale)
        matrix = matrix @ np.linalg.inv(to_small)
    half = _matrix(np.eye(2), np.array([0.5, 0.5]))
    matrix = np.asarray(np.linalg.inv(half) @ matrix @ half, dtype=np.float64)
    crop = cv2.warpAffine(
        image, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0)
    )
    return np.asarray(crop, dtype=np.uint8)


def _shrunk(
    image: npt.NDArray[np.uint8], matrix: Matrix, size: int, scale: float
) -> tuple[npt.NDArray[np.uint8], Matrix]:
    """Return the part of a picture that a crop shows, averaged over areas, and the map of places into that part."""
    import cv2

    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]], dtype=np.float64)
    shown = (np.linalg.inv(matrix) @ corners.T)[:2]
    height, width = image.shape[:2]
    factor = int(1 / scale)  # whole, so that each new pixel is the mean of whole pixels
    left, top = (max(0, math.floor(value) - 2 * factor) for value in shown.min(axis=1))
    right, bottom = (math.ceil(value) + 2 * factor for value in shown.max(axis=1))
    right, bottom = min(width, right), min(height, bottom)
    if right - left < factor or bottom - top < factor:  # hardly any of the picture is in the crop
        return image, np.eye(3)
    columns, rows = (right - left) // factor, (bottom - top) // factor
    part = image[top : top + rows * factor, left : left + columns * factor]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    to_small = np.diag([1 / factor, 1 / factor, 1.0]) @ _matrix(np.eye(2), np.array([-left, -top], dtype=np.float64))
    return np.asarray(small, dtype=np.uint8), to_small
