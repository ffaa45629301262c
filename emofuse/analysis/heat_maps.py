"""Where image backbones see what raises a score, drawn on the picture (Grad-CAM).

Source: Selvaraju et al., *Grad-CAM: visual explanations from deep networks via gradient-based localization*, ICCV 2017.

The cached vector of a backbone is the mean of its last map over the picture. So the gradient of a score by the cached
value of channel k, through standardisation and fusion head, is the weight of map k:

    heat(y, x) = max(0, sum over k of d score / d pooled_k * map_k(y, x))

Backbones whose pooled vector is not the mean of their last map, such as transformers, have no such heat. The map of a
network that sees the aligned face lies on the square that alignment has cut out of the picture. The inverse of that
alignment brings its heat back to the picture.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from emofuse.analysis.photographs import Photograph
from emofuse.errors import StreamError
from emofuse.specs.streams import StreamSpecBase
from emofuse.streams import make_stream
from emofuse.streams.backbones import BackboneSpec, BackboneStream
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.faces.alignment import crop_face, crop_matrix

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
_NEAR = 2e-2
"""The largest relative distance of a cached vector from the mean of its map: the cache holds float16."""
_GAP_PX = 6
_LONGEST_PX = 448
"""The longest side at which a picture is drawn under the heat of its face."""


def is_picture_backbone(stream: StreamSpecBase) -> TypeGuard[BackboneSpec]:
    """Return whether a stream is the pooled vector of a network of pictures, of the whole picture or of the face."""
    return isinstance(stream, BackboneSpec) and stream.input == "image" and stream.output == "pooled"


def draw_heat(
    photograph: Photograph, spec: BackboneSpec, pooled: npt.NDArray[np.floating[Any]], slope: Floats
) -> Image.Image:
    """Return the picture of a sample beside the same under the heat of a backbone.

    Args:
        photograph: the picture.
        spec: the backbone.
        pooled: its cached vector, (D,).
        slope: d score / d cached value, (D,).

    Raises:
        StreamError: the backbone has no heat, or no face is found for one that sees faces.
        WeightsError: its weights are missing.
    """
    sees_face = spec.region == "face"
    face = photograph.find_crop() if sees_face else None
    crop = None if face is None else crop_face(photograph.image, face, photograph.spec.face)
    batch = SampleBatch([Sample(image=photograph.image, crop=crop)])
    stream = make_stream(spec.model_copy(update={"output": "map"}))
    try:
        if not isinstance(stream, BackboneStream):
            raise StreamError("it is no network of pictures")
        maps = stream.extract(batch).features[0].astype(np.float32)
        seen = None if sees_face else stream.preset.cut_all(batch, torch.device("cpu"))[0].permute(1, 2, 0).numpy()
    finally:
        stream.close()
    if not _is_mean(maps, pooled):
        raise StreamError("its vector is not the mean of its last map, so that it has no heat map")
    heat = heat_of(maps, slope)
    if face is None or crop is None or seen is not None:
        return overlay(photograph.image if seen is None else seen, heat)
    return overlay_of_face(photograph.image, crop, heat, crop_matrix(face, photograph.spec.face))


def _is_mean(maps: npt.NDArray[np.float32], pooled: npt.NDArray[np.floating[Any]]) -> bool:
    """Return whether a cached vector (D,) is the mean of a map (C, y, x) over the picture."""
    if maps.ndim != 3 or maps.shape[0] != pooled.shape[0]:
        return False
    distance = np.linalg.norm(maps.mean(axis=(1, 2)) - pooled)
    return bool(distance <= _NEAR * max(float(np.linalg.norm(pooled)), 1e-6))


def heat_of(maps: npt.NDArray[np.float32], slope: Floats) -> Floats:
    """Return the heat (y, x), from 0 to 1, of maps (C, y, x) and the slopes (C,) of the score."""
    heat = np.maximum(np.tensordot(slope, maps.astype(np.float64), axes=1), 0)
    return heat / heat.max() if heat.max() > 0 else heat


def overlay(picture: Pixels, heat: Floats) -> Image.Image:
    """Return a picture (h, w, 3) and, to its right, the same under its heat (y, x), which is enlarged smoothly."""
    return _side_by_side([picture, _under_heat(picture, _enlarged(heat, picture.shape[1], picture.shape[0]))])


def overlay_of_face(picture: Pixels, crop: Pixels, heat: Floats, matrix: Floats) -> Image.Image:
    """Return a picture, the same under the heat of its aligned face, and the aligned face under its heat.

    A frame shows what the network sees of the picture.

    Args:
        picture: the picture, (H, W, 3) uint8.
        crop: the aligned face, (side, side, 3) uint8.
        heat: the heat on the aligned face, (y, x).
        matrix: the map from places in the picture to places in the aligned face, (3, 3).
    """
    shrink = min(1.0, _LONGEST_PX / max(picture.shape[:2]))
    height, width = (max(1, round(side * shrink)) for side in picture.shape[:2])
    small = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    matrix = matrix @ np.diag([picture.shape[1] / width, picture.shape[0] / height, 1.0])
    side = crop.shape[0]
    on_crop = _enlarged(heat, side, side)
    on_picture = heat_on_picture(on_crop, matrix, (height, width))
    framed = Image.fromarray(_under_heat(small, on_picture))
    corners = np.linalg.inv(matrix) @ np.array([[0, side, side, 0, 0], [0, 0, side, side, 0], [1.0] * 5])
    ImageDraw.Draw(framed).line([(float(x), float(y)) for x, y in corners[:2].T], fill=(255, 255, 255), width=2)
    aligned = Image.fromarray(_under_heat(crop, on_crop)).resize((height, height), Image.Resampling.BICUBIC)
    return _side_by_side([small, np.asarray(framed), np.asarray(aligned)])


def heat_on_picture(heat: Floats, matrix: Floats, shape: tuple[int, int]) -> Floats:
    """Return the heat of an aligned face (side, side) at every pixel of its picture (H, W); 0 beyond the aligned face.

    Args:
        heat: the heat of every pixel of the aligned face.
        matrix: the map from places in the picture to places in the aligned face, (3, 3); see
            `emofuse.streams.faces.alignment.crop_matrix`.
        shape: the height and width of the picture.
    """
    import cv2

    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # from numbers of pixels to their middles
    of_pixels = np.linalg.inv(half) @ matrix @ half
    moved = cv2.warpAffine(
        heat.astype(np.float32),
        of_pixels[:2],
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0.0,),
    )
    return np.asarray(moved, dtype=np.float64)


def _enlarged(heat: Floats, width: int, height: int) -> Floats:
    small = Image.fromarray((255 * heat).astype(np.uint8))
    large: Floats = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64) / 255
    return large


def _under_heat(picture: Pixels, heat: Floats) -> Pixels:
    """Return a picture (h, w, 3) in grey under its heat (h, w)."""
    from matplotlib import colormaps

    colours = 255 * colormaps["inferno"](heat)[..., :3]
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    share = 0.15 + 0.6 * heat[..., None]
    mixed: Pixels = (share * colours + (1 - share) * grey).clip(0, 255).astype(np.uint8)
    return mixed


def _side_by_side(pictures: list[Pixels]) -> Image.Image:
    """Return pictures of one height beside each other, with white gaps."""
    gap = np.full((pictures[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return Image.fromarray(np.concatenate(parts[1:], axis=1))
