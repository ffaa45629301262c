"""The samples that an ONNX file is checked on: their features, or the pictures that backbones see."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import Source
from emofuse.errors import ResultsError
from emofuse.onnx_export.graph import StreamInput
from emofuse.specs import CacheSpec
from emofuse.status import Status, Step
from emofuse.streams.base import NEEDS_CROP
from emofuse.streams.extractor import Extractor


def features_of(
    spec: CacheSpec, inputs: Sequence[StreamInput], paths: Sequence[Path | Source]
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an ONNX file for samples, whose features are extracted as for a prediction."""
    extractor = Extractor(spec.streams, spec, device="cpu")
    try:
        rows = extractor.extract(list(paths)).rows
    finally:
        extractor.close()
    arrays: dict[str, npt.NDArray[Any]] = {}
    for each in inputs:
        of_stream = rows[each.name]
        arrays[each.names[0]] = np.asarray(of_stream.features, np.float32)
        arrays[each.names[1]] = of_stream.status == Status.OK
        if each.is_sequence:
            mask = of_stream.mask
            there = np.ones(of_stream.features.shape[:2], np.bool_) if mask is None else mask == Step.OK
            arrays[each.names[2]] = there
    return arrays


def read_images(
    spec: CacheSpec, paths: Sequence[Path | Source], region: str
) -> tuple[list[Path | Source], list[npt.NDArray[np.uint8]]]:
    """Return the files and their pictures (h, w, 3) uint8 RGB, or for `region: face` those with a face and this face.

    Raises:
        DecodeError: a file is no picture.
        ResultsError: no picture has a face.
    """
    from emofuse.media.decode import read_image
    from emofuse.streams.faces import crop_face, make_face_detector

    pictures = [read_image(path, spec.decode) for path in paths]
    if region != "face":
        return list(paths), pictures
    with closing(make_face_detector(spec.face, NEEDS_CROP)) as detector:
        faces = [detector.detect(picture) for picture in pictures]
    found = [
        (path, crop_face(picture, face, spec.face))
        for path, picture, face in zip(paths, pictures, faces, strict=True)
        if face is not None
    ]
    if not found:
        raise ResultsError(f"--samples: none of {len(paths)} pictures has a face; name pictures of faces")
    return [path for path, _ in found], [crop for _, crop in found]
