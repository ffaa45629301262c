"""Augmented views of an image: seeded draws of the paper's augmentation, one draw for all streams of a view.

View 0 is the image itself. Every other view is the image, mirrored or not, turned by a few degrees and shifted, in one
resampling; the shift equals a random crop of the padded image. Networks take their own centre crop of a view. Faces are
found in the view itself, so that landmarks and boxes fit to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from emofuse.checksum import seed_of
from emofuse.specs import AugmentSpec

VERSION = 1
"""The version of views, part of the digest of augmented views. It rises when the same draw gives other pixels."""


@dataclass(frozen=True)
class View:
    """One draw of the augmentation.

    Attributes:
        mirrored: whether left and right are exchanged.
        angle_deg: the angle by which the image is turned counter-clockwise about its centre.
        shift: the shift (x, y) to the right and down, as shares of width and height.
    """

    mirrored: bool
    angle_deg: float
    shift: tuple[float, float]


def draw_view(spec: AugmentSpec, sample_id: str, view: int) -> View:
    """Return the draw of a sample's view. It depends only on the spec, the sample's id and the number of the view.

    Args:
        spec: the strength of the augmentation, and its seed.
        sample_id: the id of the sample in the manifest.
        view: the number of the view, 1 or more.
    """
    entropy = seed_of(spec.seed, view, sample_id)
    # NumPy promises the raw words of PCG64 for all its versions, unlike the draws of a Generator.
    flip, angle, x, y = (np.random.PCG64(entropy).random_raw(4) / 2.0**64).tolist()
    return View(
        mirrored=flip < spec.flip,
        angle_deg=(2 * angle - 1) * spec.rotation_deg,
        shift=((2 * x - 1) * spec.padding, (2 * y - 1) * spec.padding),
    )


def apply_view(image: npt.NDArray[np.uint8], view: View) -> npt.NDArray[np.uint8]:
    """Return the image as the view shows it: bilinear, of the same size, with mirrored content beyond its border.

    Args:
        image: the image, uint8 (H, W, 3).
        view: the draw.

    Returns:
        (H, W, 3) uint8, contiguous.
    """
    height, width = image.shape[:2]
    turned: npt.NDArray[np.uint8] = np.empty_like(image)
    cv2.warpAffine(
        image,
        view_matrix(view, width, height)[:2],
        (width, height),
        dst=turned,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return turned


def box_of_view(box: npt.NDArray[np.float32], view: View, width: int, height: int) -> npt.NDArray[np.float32]:
    """Return the upright box around a box (left, top, right, bottom) of the image as the view shows it."""
    left, top, right, bottom = box - np.float32(0.5)  # of the places of pixels, whose first is at 0
    corners = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]], dtype=np.float64)
    shown = corners @ view_matrix(view, width, height)[:2].T + 0.5
    return np.asarray(np.concatenate([shown.min(axis=0), shown.max(axis=0)]), dtype=np.float32)


def view_matrix(view: View, width: int, height: int) -> npt.NDArray[np.float64]:
    """Return the matrix (3, 3) from pixels of the image to pixels of the view: mirror, turn about the centre, shift."""
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = np.vstack([cv2.getRotationMatrix2D(centre, view.angle_deg, 1.0), [0, 0, 1]])
    mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]]) if view.mirrored else np.eye(3)
    shift = np.array([[1.0, 0, view.shift[0] * width], [0, 1, view.shift[1] * height], [0, 0, 1]])
    matrix: npt.NDArray[np.float64] = shift @ turn @ mirror
    return matrix
