"""Where the units of FACS act on the face, as polygons of points of the face mesh, and contributions by region."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = Mapping[int, tuple[float, float]]
"""Number of a point of the mesh -> its place, x to the right and y down."""

_MEAN_FACE = """
    0:0.01,0.22 2:0.00,0.07 4:-0.00,-0.10 5:-0.00,-0.24 6:-0.00,-0.58 7:-0.69,-0.65 8:-0.01,-0.83 9:-0.01,-0.96
    10:-0.02,-1.43 13:0.01,0.28 14:0.01,0.40 17:0.02,0.53 21:-1.02,-1.01 22:-0.40,-0.56 23:-0.49,-0.55
    24:-0.59,-0.56 25:-0.72,-0.61 26:-0.32,-0.58 27:-0.56,-0.80 28:-0.45,-0.79 29:-0.65,-0.79 30:-0.71,-0.75
    33:-0.73,-0.67 36:-0.50,-0.17 37:-0.14,0.20 39:-0.28,0.20 40:-0.37,0.21 43:-0.47,0.36 44:-0.08,-0.00
    46:-0.85,-0.85 48:-0.31,-0.08 49:-0.32,-0.14 52:-0.64,-0.94 53:-0.77,-0.92 54:-0.94,-1.17 55:-0.22,-0.85
    56:-0.35,-0.76 58:-0.95,0.27 61:-0.48,0.24 63:-0.82,-0.98 64:-0.32,-0.06 65:-0.46,-0.93 66:-0.48,-1.01
    67:-0.58,-1.38 70:-0.91,-0.89 78:-0.41,0.25 80:-0.29,0.24 81:-0.21,0.26 82:-0.11,0.27 84:-0.12,0.52
    87:-0.11,0.39 88:-0.29,0.34 91:-0.34,0.39 92:-0.44,0.14 93:-1.05,-0.20 95:-0.35,0.31 97:-0.13,0.05
    98:-0.29,-0.01 101:-0.56,-0.30 103:-0.80,-1.30 105:-0.68,-1.02 107:-0.25,-0.98 109:-0.32,-1.42 110:-0.67,-0.58
    112:-0.27,-0.60 115:-0.25,-0.09 117:-0.83,-0.43 118:-0.71,-0.40 123:-0.99,-0.24 127:-1.08,-0.62 129:-0.35,-0.11
    131:-0.25,-0.17 132:-1.02,0.03 133:-0.28,-0.63 134:-0.17,-0.21 136:-0.74,0.63 140:-0.36,0.88 144:-0.59,-0.61
    145:-0.50,-0.60 146:-0.42,0.32 148:-0.18,1.03 149:-0.47,0.87 150:-0.59,0.77 152:0.03,1.05 153:-0.42,-0.61
    154:-0.34,-0.62 155:-0.30,-0.62 157:-0.37,-0.71 158:-0.46,-0.75 159:-0.55,-0.76 160:-0.63,-0.74 161:-0.68,-0.71
    162:-1.07,-0.84 163:-0.65,-0.63 165:-0.35,0.11 168:-0.00,-0.71 171:-0.18,0.96 172:-0.85,0.47 173:-0.31,-0.66
    174:-0.16,-0.40 175:0.02,0.98 176:-0.33,0.96 178:-0.21,0.37 181:-0.24,0.47 185:-0.44,0.22 186:-0.52,0.18
    187:-0.88,-0.00 190:-0.27,-0.68 191:-0.36,0.24 195:-0.00,-0.36 197:-0.00,-0.46 198:-0.23,-0.26 199:0.02,0.88
    200:0.02,0.75 201:-0.15,0.73 202:-0.53,0.41 203:-0.43,-0.05 205:-0.67,-0.07 206:-0.53,0.03 208:-0.17,0.85
    209:-0.28,-0.22 212:-0.63,0.28 216:-0.61,0.12 220:-0.18,-0.10 234:-1.06,-0.42 246:-0.71,-0.69 247:-0.76,-0.72
    249:0.70,-0.65 251:1.03,-1.01 252:0.40,-0.56 253:0.50,-0.55 254:0.60,-0.56 255:0.73,-0.62 256:0.32,-0.58
    257:0.55,-0.81 258:0.44,-0.80 259:0.65,-0.79 260:0.72,-0.76 263:0.74,-0.67 266:0.51,-0.17 267:0.16,0.20
    269:0.31,0.21 270:0.40,0.22 273:0.51,0.36 274:0.08,-0.00 276:0.85,-0.85 278:0.32,-0.08 279:0.32,-0.14
    282:0.63,-0.95 283:0.76,-0.92 284:0.94,-1.17 285:0.20,-0.85 286:0.35,-0.76 288:0.99,0.28 291:0.52,0.25
    293:0.82,-0.99 294:0.33,-0.05 295:0.45,-0.94 296:0.47,-1.01 297:0.55,-1.39 300:0.91,-0.90 308:0.45,0.26
    310:0.32,0.25 311:0.24,0.26 312:0.14,0.27 314:0.16,0.52 317:0.14,0.39 318:0.33,0.34 321:0.38,0.40 322:0.47,0.14
    323:1.08,-0.20 324:0.38,0.31 326:0.14,0.06 327:0.31,-0.00 330:0.57,-0.30 332:0.79,-1.30 334:0.67,-1.03
    336:0.24,-0.98 338:0.29,-1.42 339:0.68,-0.58 341:0.27,-0.60 344:0.25,-0.09 346:0.84,-0.43 347:0.72,-0.40
    352:1.01,-0.24 356:1.10,-0.62 358:0.36,-0.11 360:0.26,-0.17 361:1.06,0.03 362:0.28,-0.63 363:0.17,-0.21
    365:0.79,0.63 369:0.41,0.88 373:0.59,-0.61 374:0.50,-0.60 375:0.46,0.32 377:0.23,1.03 378:0.52,0.87
    379:0.65,0.77 380:0.42,-0.61 381:0.34,-0.62 382:0.30,-0.62 384:0.37,-0.71 385:0.46,-0.75 386:0.54,-0.76
    387:0.63,-0.75 388:0.69,-0.72 389:1.08,-0.84 390:0.65,-0.63 391:0.37,0.11 396:0.23,0.96 397:0.90,0.48
    398:0.31,-0.66 399:0.16,-0.40 400:0.39,0.96 402:0.24,0.37 405:0.28,0.47 409:0.48,0.23 410:0.56,0.19
    411:0.90,0.00 414:0.26,-0.68 415:0.39,0.24 420:0.23,-0.26 421:0.19,0.73 422:0.58,0.42 423:0.45,-0.05
    425:0.69,-0.07 426:0.55,0.04 428:0.22,0.85 429:0.29,-0.22 432:0.67,0.29 436:0.64,0.13 440:0.18,-0.10
    454:1.09,-0.41 466:0.72,-0.69 467:0.76,-0.72
"""

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10,
)  # fmt: skip
_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
OUTLINES: tuple[tuple[int, ...], ...] = (
    (*_RIGHT_EYE, 33),
    (*_LEFT_EYE, 263),
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 70),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276, 300),
    (*_LIPS, 61),
    (*_MOUTH, 78),
    (168, 6, 197, 195, 5, 4),
    (48, 64, 98, 97, 2, 326, 327, 294, 278),
)
"""Lines that make the points a face: eyes, brows, lips and nose."""

REGIONS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "inner brows": ((107, 66, 65, 55), (336, 296, 295, 285)),
    "outer brows": ((70, 63, 105, 52, 53, 46), (300, 293, 334, 282, 283, 276)),
    "between brows": ((107, 9, 336, 285, 8, 55),),
    "below the brows": ((46, 53, 52, 65, 55, 56, 28, 27, 29, 30), (276, 283, 282, 295, 285, 286, 258, 257, 259, 260)),
    "upper lids": (
        (33, 246, 161, 160, 159, 158, 157, 173, 133, 190, 56, 28, 27, 29, 30, 247),
        (263, 466, 388, 387, 386, 385, 384, 398, 362, 414, 286, 258, 257, 259, 260, 467),
    ),
    "eyes": (_RIGHT_EYE, _LEFT_EYE),
    "lower lids": (
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 112, 26, 22, 23, 24, 110, 25),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 341, 256, 252, 253, 254, 339, 255),
    ),
    "cheeks": ((117, 118, 101, 36, 205, 187, 123), (346, 347, 330, 266, 425, 411, 352)),
    "sides of the nose": ((174, 198, 209, 49, 131, 134), (399, 420, 429, 279, 360, 363)),
    "nostrils": ((48, 115, 220, 44, 97, 98, 64), (278, 344, 440, 274, 326, 327, 294)),
    "nasolabial folds": ((203, 206, 216, 186, 92, 165, 98, 129), (423, 426, 436, 410, 322, 391, 327, 358)),
    "above the lip": ((98, 97, 2, 326, 327, 391, 269, 267, 0, 37, 39, 165),),
    "upper lip": ((61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78),),
    "lower lip": (
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 78),
    ),
    "mouth": (_MOUTH,),
    "lip corners": ((216, 186, 61, 43, 202, 212), (436, 410, 291, 273, 422, 432)),
    "chin": ((201, 200, 421, 428, 199, 208),),
    "jaw": ((140, 171, 175, 396, 369, 400, 377, 152, 148, 176),),
}
"""Region -> its polygons: of the subject's right and left side, or one across the middle."""

_MEASURED: Mapping[str, str] = {
    "lip_corner_lift": "lip corners",
    "lips_part": "mouth",
    "inner_brow_raise": "inner brows",
    "brow_lid_gap": "below the brows",
    "eye_openness": "eyes",
    "mouth_width": "lip corners",
    "outer_brow_raise": "outer brows",
    "jaw_drop": "jaw",
    "lip_corner_droop": "lip corners",
    "upper_lip_raise": "above the lip",
    "upper_lid_raise": "upper lids",
    "lower_lid_raise": "lower lids",
    "eye_to_lip_corner": "cheeks",
    "lip_thickness": "lower lip",
    "brow_gap": "between brows",
    "mouth_to_nose_width": "lip corners",
    "mouth_aspect": "mouth",
    "nose_wing_lift": "sides of the nose",
    "chin_boss": "chin",
    "brow_obliquity": "inner brows",
    "lip_corner_asymmetry": "lip corners",
    "eye_openness_asymmetry": "eyes",
    "brow_asymmetry": "outer brows",
    "wing_to_lip_corner": "nasolabial folds",
    "lower_lip_drop": "lower lip",
    "nostril_width": "nostrils",
    "upper_lip_thickness": "upper lip",
    "lip_corner_angle": "lip corners",
    "lip_protrusion": "upper lip",
    "jaw_sideways": "jaw",
}
_BLENDSHAPES: Mapping[str, str] = {
    "browInnerUp": "inner brows",
    "browDown": "below the brows",
    "browOuterUp": "outer brows",
    "cheekPuff": "cheeks",
    "cheekSquint": "cheeks",
    "eyeBlink": "eyes",
    "eyeLook": "eyes",
    "eyeSquint": "lower lids",
    "eyeWide": "upper lids",
    "jaw": "jaw",
    "mouthClose": "mouth",
    "mouthDimple": "lip corners",
    "mouthFrown": "lip corners",
    "mouthFunnel": "mouth",
    "mouthLowerDown": "lower lip",
    "mouthPress": "lower lip",
    "mouthPucker": "upper lip",
    "mouthRollLower": "lower lip",
    "mouthRollUpper": "upper lip",
    "mouthShrugLower": "chin",
    "mouthShrugUpper": "upper lip",
    "mouthSmile": "lip corners",
    "mouthStretch": "lip corners",
    "mouthUpperUp": "above the lip",
    "mouth": "mouth",  # mouthLeft, mouthRight
    "noseSneer": "sides of the nose",
    "tongueOut": "mouth",
}
_SHARE_WITH_REGION = 0.8


def mean_face() -> Points:
    """Return the places of the points that are drawn: the mean aligned mesh of the demo's faces."""
    points = {}
    for word in _MEAN_FACE.split():
        number, place = word.split(":")
        x, y = place.split(",")
        points[int(number)] = (float(x), float(y))
    return points


def points_of(mesh: npt.NDArray[np.floating]) -> Points:  # type: ignore[type-arg]
    """Return the points of an aligned mesh, (468, 3) or flat (1404,)."""
    return {number: (float(x), float(y)) for number, (x, y, _) in enumerate(mesh.reshape(-1, 3))}


def region_of(column: str) -> tuple[str, str] | None:
    """Return the region of a measurement or blendshape and its side, `right`, `left` or `both`; None without a region.

    Args:
        column: its name, which may be followed by its units, such as `mouthSmileLeft (AU 12)`.
    """
    name = column.partition(" (")[0]
    if name in _MEASURED:
        return _MEASURED[name], "both"
    for stem in sorted(_BLENDSHAPES, key=len, reverse=True):
        if re.fullmatch(rf"{stem}([A-Z][A-Za-z]*)?", name):
            side = next((side for side in ("left", "right") if name.endswith(side.capitalize())), "both")
            sided = stem not in {"jaw", "mouth"} and len(REGIONS[_BLENDSHAPES[stem]]) > 1
            return _BLENDSHAPES[stem], side if sided else "both"
    return None


def is_of_face(columns: Sequence[str]) -> bool:
    """Return whether the values of a stream can be drawn on the face."""
    return bool(columns) and sum(region_of(name) is not None for name in columns) >= _SHARE_WITH_REGION * len(columns)


@dataclass(frozen=True)
class RegionShare:
    """The contributions in one region of the face.

    Attributes:
        region: its name, of `REGIONS`.
        right: the sum of the contributions of values of both sides and of the subject's right side.
        left: that of both sides and of the left side.
        strongest: the name of the value that contributes most.
    """

    region: str
    right: float
    left: float
    strongest: str

    @property
    def strength(self) -> float:
        """The larger size of its two sides."""
        return max(abs(self.right), abs(self.left))


def by_region(columns: Sequence[str], values: Sequence[float]) -> list[RegionShare]:
    """Sum the contributions of values by region of the face, the strongest region first."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    for column, value in zip(columns, values, strict=True):
        place = region_of(column)
        if place is not None:
            found.setdefault(place[0], []).append((column, place[1], float(value)))
    shares = [
        RegionShare(
            region,
            sum(value for _, side, value in parts if side != "left"),
            sum(value for _, side, value in parts if side != "right"),
            max(parts, key=lambda part: abs(part[2]))[0],
        )
        for region, parts in found.items()
    ]
    return sorted(shares, key=lambda share: -share.strength)
