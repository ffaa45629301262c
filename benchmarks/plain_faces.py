"""Describe faces without emofuse: one script, a process for each core, each picture decoded and its mesh found once.

What a user would write for five light features: MediaPipe's own Face Mesh, scikit-image's LBP, OpenCV's HOG and
solvePnP, and one distance for action units. No status of failed images, no resuming. `benchmarks.extraction` runs it in
a process of its own.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BINS = 256
POSE_POINTS = (1, 152, 33, 263, 61, 291)
_of_process: dict[str, Any] = {}


def open_mesh() -> None:
    import cv2
    from mediapipe.python.solutions.face_mesh import FaceMesh

    cv2.setNumThreads(1)
    _of_process["mesh"] = FaceMesh(static_image_mode=True, max_num_faces=1)


def describe(path: Path) -> np.ndarray | None:
    """Return all features of a picture after each other; None without a face."""
    import cv2
    from skimage.feature import local_binary_pattern

    image = np.asarray(Image.open(path).convert("RGB"))
    height, width = image.shape[:2]
    faces = _of_process["mesh"].process(image).multi_face_landmarks
    if not faces:
        return None
    points = np.array([(p.x * width, p.y * height, p.z * width) for p in faces[0].landmark])
    (left, top), (right, bottom) = points[:, :2].min(0).clip(0).astype(int), points[:, :2].max(0).astype(int)
    face = cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    square = cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA)
    codes = [local_binary_pattern(square, P=8, R=radius).astype(int) for radius in (1, 2)]
    hog = cv2.HOGDescriptor().compute(cv2.resize(face, (64, 128), interpolation=cv2.INTER_AREA))
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=np.float64)
    places = points[list(POSE_POINTS)]
    _, turn, _ = cv2.solvePnP(places, places[:, :2].copy(), camera, None, flags=cv2.SOLVEPNP_SQPNP)
    unit = [np.linalg.norm(points[13] - points[14])]
    histograms = [np.bincount(code.ravel(), minlength=BINS)[:BINS] for code in codes]
    return np.concatenate([*histograms, points.ravel(), np.ravel(hog), np.ravel(turn), unit])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    paths = sorted(arguments.images.rglob("*.jpg"))
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn"), initializer=open_mesh) as pool:
        rows = [row for row in pool.map(describe, paths, chunksize=16) if row is not None]
    np.save(arguments.out / "faces.npy", np.stack(rows))


if __name__ == "__main__":
    main()
