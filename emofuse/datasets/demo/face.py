"""The face of the demo: scikit-image's astronaut with another expression, another shape and another skin.

The photograph (NASA, public domain, bundled with scikit-image) has 512 x 512 pixels. All coordinates are in its pixels
unless a name says otherwise; D is its inter-ocular distance.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from emofuse.errors import DatasetError

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

PHOTO_PX = 512
PLATE_SCALE = 2  # the photograph is worked on at twice its size

# Where MediaPipe Face Mesh (0.10.21, static images, the photograph enlarged twice) puts these points.
EYES = ((204.3, 102.4), (247.4, 104.7))  # centres of 33 and 133, of 362 and 263
MOUTH_CORNERS = ((201.8, 139.5), (245.9, 142.2))  # 61, 291
INNER_BROWS = ((216.2, 89.4), (236.9, 90.5))  # 107, 336
FACE_CENTRE = (225.4, 123.2)  # of the box around all 468 points
FACE_PX = 104.2  # longer side of that box
FACE_OVAL = (  # every second point of the outline of the face, clockwise from the forehead (10)
    (228, 72), (252, 75), (267, 84), (272, 99), (271, 116), (268, 134), (260, 153), (249, 164), (238, 172), (222, 175),
    (207, 171), (196, 161), (186, 148), (180, 130), (179, 111), (180, 93), (187, 80), (203, 72),
)  # fmt: skip
FACE_WINDOW = (165, 55, 290, 195)  # x0, y0, x1, y1 of the part that expression and skin change
HEAD_WINDOW = (140, 6, 316, 220)  # of the part that the shape changes

# Outline of head, suit and helmet: the 0.55 level of MediaPipe's selfie segmentation, thinned by hand.
PERSON_OUTLINE = (
    (226, 16), (197, 25), (188, 35), (164, 50), (158, 56), (154, 64), (154, 92), (156, 102), (160, 109),
    (177, 125), (183, 138), (184, 151), (160, 155), (143, 162), (136, 169), (130, 181), (121, 185), (114, 204),
    (98, 217), (84, 232), (72, 238), (59, 258), (44, 284), (39, 306), (31, 324), (25, 377), (17, 403),
    (0, 431), (0, 511), (488, 511), (499, 487), (504, 474), (495, 440), (493, 417), (479, 384), (455, 360),
    (425, 348), (385, 344), (368, 347), (358, 310), (347, 274), (339, 260), (317, 240), (303, 230), (299, 217),
    (291, 204), (275, 189), (262, 182), (256, 172), (258, 161), (266, 147), (267, 138), (276, 135), (290, 119),
    (297, 108), (300, 97), (301, 80), (299, 69), (295, 54), (289, 43), (275, 30), (259, 22), (248, 18),
    (235, 15),
)  # fmt: skip

SHAPE_GRID = 6  # bumps of a random shape across the head
SHAPE_FADE_PX = 15  # over which a random shape fades out towards the edge of HEAD_WINDOW
SKIN_SIGMA_PX = 1.5  # of the blur of the skin on the plate, which removes the grain of the photograph


def warp_expression(photo: Image, amount: float) -> Image:
    """Bend the mouth of scikit-image's astronaut: corners up (a smile) or, for a negative amount, down (a frown).

    The mouth is bent like a parabola: its corners move up by about half the amount and its middle down by as much. Its
    corners also move outwards, and the inner ends of the brows up, by a fifth of the amount. All movement fades out
    before the cheeks and the base of the nose. The face looks natural for amounts from -0.3 to 0.3.

    Args:
        photo: the whole of `skimage.data.astronaut()` at any size, uint8 RGB (H, H, 3).
        amount: the amount in inter-ocular distances.

    Returns:
        A copy of the photograph with another expression.

    Raises:
        ValueError: the picture is not square, so it is not that photograph.
    """
    if photo.shape[0] != photo.shape[1]:
        raise ValueError(f"photo has shape {photo.shape}, expected the whole astronaut photograph, which is square")
    scale = photo.shape[0] / PHOTO_PX
    x0, y0, x1, y1 = (round(edge * scale) for edge in FACE_WINDOW)
    x, y = _window_points(scale)
    move_x, move_y = _displacement(scale, amount)
    source_x, source_y = (((at + 0.5) * scale - 0.5).astype(np.float32) for at in (x - move_x, y - move_y))
    warped = photo.copy()
    warped[y0:y1, x0:x1] = cv2.remap(photo, source_x, source_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return warped


def vary_shape(photo: Image, mask: Floats, amount: float, rng: np.random.Generator) -> tuple[Image, Floats]:
    """Give the head the proportions of another person by moving it by smooth random amounts.

    Otherwise all faces would be the same face, and the small dependence of a detector's points on skin and surroundings
    would reveal these cues to streams that should not see them.

    Args:
        photo: the plate, uint8 (1024, 1024, 3).
        mask: the mask of the person on the plate, float32 (1024, 1024).
        amount: the standard deviation of the movement, in inter-ocular distances.
        rng: the source of the movement.

    Returns:
        Copies of both, with the head changed in the same way.
    """
    x0, y0, x1, y1 = (edge * PLATE_SCALE for edge in HEAD_WINDOW)
    width, height = x1 - x0, y1 - y0
    fades = [np.minimum(np.arange(n), np.arange(n)[::-1]) / (SHAPE_FADE_PX * PLATE_SCALE) for n in (width, height)]
    fade_x, fade_y = (np.clip(fade, 0, 1).astype(np.float32) for fade in fades)
    reach = fade_y[:, None] * fade_x[None, :] * np.float32(amount * _eye_distance() * PLATE_SCALE)
    bumps = rng.standard_normal((2, SHAPE_GRID + 1, SHAPE_GRID), dtype=np.float32)
    move_x, move_y = (reach * cv2.resize(bump, (width, height), interpolation=cv2.INTER_CUBIC) for bump in bumps)
    source_x = (np.arange(x0, x1, dtype=np.float32)[None, :] + move_x).astype(np.float32)
    source_y = (np.arange(y0, y1, dtype=np.float32)[:, None] + move_y).astype(np.float32)
    photo, mask = photo.copy(), mask.copy()
    photo[y0:y1, x0:x1] = cv2.remap(photo, source_x, source_y, cv2.INTER_LINEAR)
    mask[y0:y1, x0:x1] = cv2.remap(mask, source_x, source_y, cv2.INTER_LINEAR)
    return photo, mask


def add_relief(photo: Image, strength: float, sigma_px: float, rng: np.random.Generator) -> None:
    """Add random relief to the skin of the plate, in place.

    Args:
        photo: the plate, uint8 (1024, 1024, 3).
        strength: the standard deviation in grey levels.
        sigma_px: the size of the bumps in pixels of the plate.
        rng: the source of the relief.
    """
    x0, y0, x1, y1 = (edge * PLATE_SCALE for edge in FACE_WINDOW)
    white = rng.standard_normal((y1 - y0, x1 - x0), dtype=np.float32)
    relief = np.asarray(cv2.GaussianBlur(white, (0, 0), sigma_px), dtype=np.float32)
    relief *= strength / relief.std()
    skin = photo[y0:y1, x0:x1]
    relief *= _skin_mask()
    raised: Floats = cv2.merge([relief, relief, relief])  # type: ignore[assignment]
    raised += skin
    np.clip(np.rint(raised, out=raised), 0, 255, out=raised)
    skin[:] = raised


def _eye_distance() -> float:
    return float(np.linalg.norm(np.subtract(*EYES)))


def _displacement(scale: float, amount: float) -> tuple[Doubles, Doubles]:
    """Return how far the points of `FACE_WINDOW` move right and down: two arrays (h, w), in pixels.

    Args:
        scale: the size of the picture over that of the photograph.
        amount: see `warp_expression`.
    """
    eyes = np.asarray(EYES)
    distance = _eye_distance()
    right, down = (eyes[1] - eyes[0]) / distance
    along, bend, fade, brows = _movement(scale)
    outwards = 0.2 * amount * along * fade
    upwards = amount * bend * fade
    for brow in brows:
        upwards += 0.2 * amount * brow
    return distance * (outwards * right + upwards * down), distance * (outwards * down - upwards * right)


@cache
def _movement(scale: float) -> tuple[Doubles, Doubles, Doubles, tuple[Doubles, ...]]:
    """Return what `_displacement` scales by the amount, over `FACE_WINDOW` at a scale: four arrays (h, w).

    They are how far along the mouth a point is, how much the mouth bends there, how the movement of the mouth fades
    out, and that of the inner end of each brow.
    """
    x, y = _window_points(scale)
    eyes, mouth = np.asarray(EYES), np.asarray(MOUTH_CORNERS)
    distance = _eye_distance()
    right, down = (eyes[1] - eyes[0]) / distance
    origin = mouth.mean(axis=0)
    half_mouth = float(np.linalg.norm(mouth[1] - mouth[0])) / 2 / distance

    # u is the position along the line of the eyes and v down the face, from the middle of the mouth, in units of D.
    u = ((x - origin[0]) * right + (y - origin[1]) * down) / distance
    v = ((y - origin[1]) * right - (x - origin[0]) * down) / distance
    beside = np.clip(np.abs(u) - half_mouth, 0, None)
    # Shorter above the mouth than below it, because the base of the nose must not move.
    fade = np.exp(-((v / np.where(v > 0, 0.30, 0.21)) ** 2 + (beside / 0.185) ** 2) / 2)
    along = np.clip(u / half_mouth, -1, 1)
    bend = np.clip(np.abs(u / half_mouth), 0, 1.4) ** 2 - 0.5
    squared = [((x - brow_x) ** 2 + (y - brow_y) ** 2) / distance**2 for brow_x, brow_y in INNER_BROWS]
    return along, bend, fade, tuple(np.exp(-each / (2 * 0.22**2)) for each in squared)


def _window_points(scale: float) -> tuple[Doubles, Doubles]:
    """Return x (1, w) and y (h, 1) of the pixels of `FACE_WINDOW` in a picture at a scale, in the photograph."""
    x0, y0, x1, y1 = (round(edge * scale) for edge in FACE_WINDOW)
    # Pixel i of the enlarged picture has its centre at (i + 0.5) / scale - 0.5 of the photograph.
    return ((np.arange(x0, x1) + 0.5) / scale - 0.5)[None, :], ((np.arange(y0, y1) + 0.5) / scale - 0.5)[:, None]


def _photograph() -> Image:
    """Return the astronaut photograph, (512, 512, 3) uint8 RGB.

    Raises:
        DatasetError: scikit-image, which brings the photograph, cannot be imported.
    """
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise DatasetError(
            "the demo dataset needs the photograph of a face that comes with scikit-image: "
            f"pip install 'emofuse[demo]' ({type(error).__name__}: {error})"
        ) from None
    photo: Image = astronaut()  # type: ignore[no-untyped-call]
    return photo


@cache
def plate() -> tuple[Image, Floats]:
    """Return the plate, the photograph at twice its size with smooth skin, and the mask 0..1 of the person.

    Returns:
        uint8 RGB (1024, 1024, 3) and float32 (1024, 1024).
    """
    astronaut = _photograph()
    side = PHOTO_PX * PLATE_SCALE
    photo = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_CUBIC)
    skin = _polygon_mask(FACE_OVAL, shrink_px=2, blur_px=6)[..., None]
    # The bilateral filter keeps eyes, brows and lips sharp; the blur after it removes the steps that it leaves.
    smooth = cv2.GaussianBlur(cv2.bilateralFilter(photo, 9, 30, 5), (0, 0), SKIN_SIGMA_PX)
    mixed = photo + skin * (smooth.astype(np.float32) - photo)
    return np.rint(mixed).astype(np.uint8), _polygon_mask(PERSON_OUTLINE, shrink_px=2, blur_px=1.6)


def _polygon_mask(points: tuple[tuple[int, int], ...], *, shrink_px: int, blur_px: float) -> Floats:
    """Return the mask 0..1 of a polygon on the plate with a soft edge, float32 (1024, 1024)."""
    mask = np.zeros((PHOTO_PX * PLATE_SCALE,) * 2, dtype=np.float32)
    cv2.fillPoly(mask, [np.asarray(points, dtype=np.int32) * PLATE_SCALE], (1.0,))
    mask = np.asarray(cv2.erode(mask, np.ones((3, 3), dtype=np.uint8), iterations=shrink_px), dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur_px), dtype=np.float32)


@cache
def _skin_mask() -> Floats:
    """Return the mask of the face, to which grain is added, float32 (h, w) over FACE_WINDOW of the plate."""
    x0, y0, x1, y1 = (edge * PLATE_SCALE for edge in FACE_WINDOW)
    return _polygon_mask(FACE_OVAL, shrink_px=2, blur_px=5)[y0:y1, x0:x1]
