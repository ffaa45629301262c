"""The action units of FACS (Ekman, Friesen and Hager, 2002) behind measurements of the mesh and blendshapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

MEASURED: Mapping[str, str] = {
    "lip_corner_lift": "12",
    "lips_part": "25",
    "inner_brow_raise": "1",
    "brow_lid_gap": "4",
    "eye_openness": "5/43",
    "mouth_width": "12/20/18",
    "outer_brow_raise": "2",
    "jaw_drop": "26",
    "lip_corner_droop": "15",
    "upper_lip_raise": "10",
    "upper_lid_raise": "5",
    "lower_lid_raise": "7",
    "eye_to_lip_corner": "6+12",
    "lip_thickness": "23/24",
    "brow_gap": "4",
    "mouth_to_nose_width": "12/20/18",
    "mouth_aspect": "27/22",
    "nose_wing_lift": "9",
    "chin_boss": "17",
    "brow_obliquity": "1+4",
    "lip_corner_asymmetry": "12/14/15, one side",
    "eye_openness_asymmetry": "46",
    "brow_asymmetry": "1+2, one side",
    "wing_to_lip_corner": "11/12",
    "lower_lip_drop": "16",
    "nostril_width": "38/39",
    "upper_lip_thickness": "28",
    "lip_corner_angle": "13/12",
    "lip_protrusion": "18/22",
    "jaw_sideways": "30",
}
"""Measurement of the stream `action_units` -> the action units that move it."""

BLENDSHAPES: Mapping[str, str] = {
    "browInnerUp": "1",
    "browDown": "4",
    "browOuterUp": "2",
    "cheekPuff": "34",
    "cheekSquint": "6",
    "eyeBlink": "45",
    "eyeSquint": "7",
    "eyeWide": "5",
    "jawOpen": "26",
    "jawLeft": "30",
    "jawRight": "30",
    "mouthDimple": "14",
    "mouthFrown": "15",
    "mouthFunnel": "22",
    "mouthLowerDown": "16",
    "mouthPress": "24",
    "mouthPucker": "18",
    "mouthRollLower": "28",
    "mouthRollUpper": "28",
    "mouthShrugLower": "17",
    "mouthSmile": "12",
    "mouthStretch": "20",
    "mouthUpperUp": "10",
    "noseSneer": "9",
}
"""Blendshape without its side -> its action unit."""


def facs_name(column: str) -> str:
    """Return a column with its action units, such as `lip_corner_lift (AU 12)`; others as they are."""
    units = MEASURED.get(column) or BLENDSHAPES.get(column) or BLENDSHAPES.get(re.sub(r"(Left|Right)$", "", column))
    return f"{column} (AU {units})" if units else column
