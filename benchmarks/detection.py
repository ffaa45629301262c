"""Measure how many real faces the detectors find in small pictures, and whether they see how a picture is turned.

    python -m benchmarks.detection

The folder `../shared/data` (`--data`) holds `faces48/fer2013_part.npz` (FER2013 with the votes of FER+), `faces/images`
(photographs of upright faces), and YuNet and RetinaFace (MobileNet-0.25) in `models`. Small pictures are of 48 x 48
pixels in which no rater of FER+ saw no face; they are looked at as they are, and enlarged to 192 pixels. Photographs
are shown upright and turned by 90, 180 and 270 degrees to detectors that look at all turns. The numbers are no times.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.faces import SHARED
from benchmarks.results_file import RESULTS, write_result
from emofuse.media.decode import decode_image
from emofuse.specs import DecodeSpec, FaceSpec, FileWeights
from emofuse.streams.faces import make_face_detector

SMALL, PHOTOGRAPHS, ENLARGED_PX = 400, 60, 192
WEIGHTS = {"yunet": "face_detection_yunet_2026may.onnx", "retinaface": "retinaface_mobilenet0.25.pth"}
NO_FACE = 9
"""The column of the votes of FER+ that say there is no face."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write `results/detection.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    small, photographs = small_pictures(chosen.data, SMALL), upright_photographs(chosen.data, PHOTOGRAPHS)
    numbers: dict[str, Any] = {"small_pictures": len(small), "enlarged_px": ENLARGED_PX, "found": {}}
    for name in WEIGHTS:
        numbers["found"][name] = {
            "as_they_are": share_found(spec_of(name, chosen.data), small),
            "enlarged": share_found(spec_of(name, chosen.data, upscale_below_px=ENLARGED_PX), small),
        }
        print(name, numbers["found"][name], flush=True)
    numbers |= {"photographs": len(photographs), "turns": 4 * len(photographs), "right_turn": {}}
    for name in ("face_mesh", *WEIGHTS):
        numbers["right_turn"][name] = share_of_right_turns(spec_of(name, chosen.data, turned=True), photographs)
        print(name, numbers["right_turn"][name], flush=True)
        path = write_result("detection", numbers, folder=chosen.out)
    print(path)


def spec_of(detector: str, data: Path, **options: Any) -> FaceSpec:
    """Return a detector with the weights of the folder."""
    if detector in WEIGHTS:
        options["weights"] = FileWeights(path=data / "models" / WEIGHTS[detector])
    return FaceSpec(detector=detector, **options)  # type: ignore[arg-type]  # a name of the table above


def small_pictures(data: Path, count: int) -> list[npt.NDArray[np.uint8]]:
    """Return pictures of 48 x 48 pixels, in an order drawn with a fixed seed, as RGB."""
    with np.load(data / "faces48" / "fer2013_part.npz") as part:
        with_a_face = np.flatnonzero(part["ferplus_votes"][:, NO_FACE] == 0)
        rows = np.random.default_rng(0).permutation(with_a_face)[:count]
        return [np.repeat(picture[:, :, None], 3, axis=2) for picture in part["image"][rows]]


def upright_photographs(data: Path, count: int) -> list[npt.NDArray[np.uint8]]:
    """Return photographs, evenly spread over the list of files, as RGB."""
    files = sorted((data / "faces" / "images").glob("*.jpg"))
    return [decode_image(path.read_bytes(), DecodeSpec()) for path in files[:: max(1, len(files) // count)][:count]]


def share_found(spec: FaceSpec, pictures: Sequence[npt.NDArray[np.uint8]]) -> float:
    """Return the share of pictures in which the detector finds a face."""
    finder = make_face_detector(spec, {"crop"})
    found = [finder.detect(picture) is not None for picture in pictures]
    finder.close()
    return round(float(np.mean(found)), 4)


def share_of_right_turns(spec: FaceSpec, pictures: Sequence[npt.NDArray[np.uint8]]) -> float:
    """Return the share of turned pictures, each in all four turns, whose face is found in the turn that it has."""
    finder = make_face_detector(spec, {"crop"})
    right = []
    for picture in pictures:
        for turns in range(4):
            face = finder.detect(np.ascontiguousarray(np.rot90(picture, -turns)))
            right.append(face is not None and face.turns == turns)
    finder.close()
    return round(float(np.mean(right)), 4)


if __name__ == "__main__":
    main()
