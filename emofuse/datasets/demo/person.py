"""The person of the demo: a random look for each image, and the drawing of the person in front of a place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from emofuse.datasets.demo.face import (
    FACE_CENTRE,
    FACE_PX,
    PLATE_SCALE,
    Floats,
    add_relief,
    plate,
    vary_shape,
    warp_expression,
)
from emofuse.datasets.demo.scenes import in_each_channel, less_than

# Distances from the centre of the face: up to the top of the hair, down to the neck, down to where the suit is widest.
HAIR_PX, NECK_PX, SUIT_PX = 112.0, 100.0, 270.0

# Ranges of `amount` in `warp_expression`; the gap between the two is wider than either.
SMILE = (0.04, 0.14)
FROWN = (-0.19, -0.09)
SHAPE = (0.0125, 0.0375)  # `amount` of `vary_shape`
SKEW = 0.05  # at most, in each entry of the affine map that stretches and shears the person
# Strength of the skin's relief in grey levels, and its size on the plate. All skin has blotches; grain is the cue, and
# its size survives JPEG and the resize of the face's box to 128 px.
BLOTCHES, BLOTCH_SIGMA_PX = (4.0, 7.0), (2.0, 3.5)
GRAIN, GRAIN_SIGMA_PX = (4.0, 6.0), (0.8, 1.1)
# Radii of the glow behind the head, in sides of the face's box: full inside the first, none outside the second.
GLOW_RADII = (0.6, 1.1)


@dataclass(frozen=True)
class PersonLook:
    """The look of the person in one image.

    Attributes:
        expression: the `amount` of `warp_expression`.
        shape: the `amount` of `vary_shape`.
        blotches: the strength and size of the coarse relief of the skin, in grey levels and pixels of the plate.
        grain: the strength and size of its fine relief; None for smooth skin.
        face_px: the side of the box around the face, in pixels of the image.
        centre: x and y of the centre of that box, in pixels of the image.
        angle_deg: the rotation in degrees, counter-clockwise.
        mirrored: whether left and right are exchanged.
        exposure: the factor of the brightness.
        gamma: the exponent of the brightness.
        side_light: the change of brightness from the centre of the image to its right edge, as a factor minus 1.
        stretch: the affine map (2, 2) about the centre of the face, near the identity.
        glow: the RGB of the light behind the head, 0..255.
    """

    expression: float
    shape: float
    blotches: tuple[float, float]
    grain: tuple[float, float] | None
    face_px: float
    centre: tuple[float, float]
    angle_deg: float
    mirrored: bool
    exposure: float
    gamma: float
    side_light: float
    stretch: tuple[tuple[float, float], tuple[float, float]]
    glow: tuple[float, float, float]


def draw_look(rng: np.random.Generator, height: int, width: int, *, frown: bool, grain: bool) -> PersonLook:
    """Draw a random look with two cues, placed so that the head is inside and the suit reaches the lower edge."""
    face_px = rng.uniform(132.0, max(132.0, 0.46 * min(height, width)))
    scale = face_px / FACE_PX
    margin = min(75 * scale, width / 2)
    top = max(HAIR_PX * scale, height - SUIT_PX * scale)
    bottom = max(top, height - NECK_PX * scale)
    brightness, tint = rng.uniform(60, 200), rng.uniform(-0.25, 0.25)
    skew = rng.uniform(-SKEW, SKEW, size=3)
    return PersonLook(
        expression=float(rng.uniform(*(FROWN if frown else SMILE))),
        shape=float(rng.uniform(*SHAPE)),
        blotches=(float(rng.uniform(*BLOTCHES)), float(rng.uniform(*BLOTCH_SIGMA_PX))),
        grain=(float(rng.uniform(*GRAIN)), float(rng.uniform(*GRAIN_SIGMA_PX))) if grain else None,
        face_px=float(face_px),
        centre=(float(rng.uniform(margin, width - margin)), float(rng.uniform(top, bottom))),
        angle_deg=float(rng.uniform(-9, 9)),
        mirrored=bool(rng.random() < 0.5),
        exposure=float(rng.uniform(0.8, 1.05)),
        gamma=float(rng.uniform(0.85, 1.2)),
        side_light=float(rng.uniform(-0.2, 0.2)),
        stretch=((1 + float(skew[0]), float(skew[1])), (0.0, 1 + float(skew[2]))),
        glow=(float(brightness * (1 + tint)), float(brightness), float(brightness * (1 - tint))),
    )


def draw_glow(background: Floats, look: PersonLook) -> Floats:
    """Draw light of a random colour behind the head.

    It hides the place in the face's box and around it, where a face detector and LBP would see it.

    Args:
        background: the picture, float32 RGB (H, W, 3), 0..255.
        look: the look of the person.

    Returns:
        The picture with the light, float32 RGB (H, W, 3), 0..255.
    """
    height, width = background.shape[:2]
    x = (np.arange(width, dtype=np.float32) - look.centre[0])[None, :] / look.face_px
    y = (np.arange(height, dtype=np.float32) - look.centre[1])[:, None] / look.face_px
    inner, outer = GLOW_RADII
    columns, rows = _span(np.abs(x[0]) < outer), _span(np.abs((y[:, 0] + 0.1) / 1.1) < outer)  # there is none outside
    inside = np.clip((outer - np.hypot(x[:, columns], (y[rows] + 0.1) / 1.1)) / (outer - inner), 0, 1)
    change = less_than(np.asarray(look.glow), background[rows, columns])  # float64
    change *= in_each_channel(inside**2 * (3 - 2 * inside))
    lit = background.copy()
    lit[rows, columns] += change
    return lit


def _span(holds: npt.NDArray[np.bool_]) -> slice:
    """Return the slice of the places (n,) that hold, which follow each other."""
    places = np.flatnonzero(holds)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def draw_person(background: Floats, look: PersonLook, rng: np.random.Generator) -> Floats:
    """Draw the person in front of a background.

    Args:
        background: the picture, float32 RGB (H, W, 3), 0..255.
        look: the look of the person.
        rng: the source of shape and skin.

    Returns:
        The picture with the person, float32 RGB (H, W, 3), 0..255.
    """
    size = (background.shape[1], background.shape[0])
    photo, mask = vary_shape(*plate(), look.shape, rng)
    photo = warp_expression(photo, look.expression)
    add_relief(photo, *look.blotches, rng)
    if look.grain is not None:
        add_relief(photo, *look.grain, rng)
    matrix = _placement(look)
    person = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = np.asarray(cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR), dtype=np.float32)
    tones = 255 * look.exposure * (np.arange(256) / 255) ** look.gamma
    light = 1 + look.side_light * np.linspace(-1, 1, size[0], dtype=np.float32)
    lit: Floats = cv2.LUT(person, tones.astype(np.float32))  # type: ignore[assignment]
    rows = lit.reshape(size[1], -1)
    rows *= np.repeat(light, 3)
    np.clip(lit, 0, 255, out=lit)
    lit -= background
    lit *= in_each_channel(cover)
    lit += background
    return lit


def _placement(look: PersonLook) -> npt.NDArray[np.float64]:
    """Return the affine map (2, 3) from the plate to the image."""
    scale = look.face_px / FACE_PX / PLATE_SCALE
    angle = np.deg2rad(look.angle_deg)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if look.mirrored:
        turn = turn @ np.diag([-1.0, 1.0])
    turn = np.asarray(look.stretch) @ turn
    shift = np.asarray(look.centre) - turn @ (np.asarray(FACE_CENTRE) * PLATE_SCALE)
    return np.column_stack([turn, shift])
