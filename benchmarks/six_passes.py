"""Extract six feature sets without emofuse: one script, and for each feature set one pass over the images.

Torchvision and a DataLoader for the two ResNets, MediaPipe's own loop for the mesh, scikit-image for LBP, and
`YOLO.predict`. No status of failed images, no resuming, nothing shared between the passes. `benchmarks.extraction` runs
it in a process of its own, with as many loader processes and threads as the machine has cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models

BATCH = 32
BINS = 256


class Pictures(Dataset[torch.Tensor]):
    """Picture files, prepared by torchvision's preset."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.preset = models.ResNet50_Weights.IMAGENET1K_V1.transforms()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            prepared: torch.Tensor = self.preset(image.convert("RGB"))
        return prepared


def resnet(paths: list[Path], weights: Path, classes: int) -> np.ndarray:
    network = models.resnet50(num_classes=classes)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = torch.nn.Identity()  # type: ignore[assignment]
    network.eval()
    loader = DataLoader(Pictures(paths), batch_size=BATCH, num_workers=os.cpu_count() or 1)
    with torch.inference_mode():
        return np.concatenate([network(batch).numpy() for batch in loader])


def landmarks(paths: list[Path]) -> list[np.ndarray | None]:
    from mediapipe.python.solutions.face_mesh import FaceMesh

    faces: list[np.ndarray | None] = []
    with FaceMesh(static_image_mode=True, max_num_faces=1) as mesh:
        for path in paths:
            image = np.asarray(Image.open(path).convert("RGB"))
            found = mesh.process(image).multi_face_landmarks
            points = found and [(p.x * image.shape[1], p.y * image.shape[0], p.z) for p in found[0].landmark]
            faces.append(np.array(points) if points else None)
    return faces


def action_units(paths: list[Path]) -> list[float | None]:
    """Pass over the mesh a second time, as a separate script would; one distance stands for the thirty."""
    return [None if points is None else float(np.linalg.norm(points[13] - points[14])) for points in landmarks(paths)]


def lbp(paths: list[Path], boxes: list[np.ndarray | None]) -> np.ndarray:
    from skimage.feature import local_binary_pattern
    from skimage.transform import resize

    rows = []
    for path, points in zip(paths, boxes, strict=True):
        image = np.asarray(Image.open(path).convert("L"))
        if points is not None:
            (left, top), (right, bottom) = points[:, :2].min(0).clip(0).astype(int), points[:, :2].max(0).astype(int)
            image = image[top:bottom, left:right]
        face = (resize(image, (128, 128)) * 255).astype(np.uint8)
        codes = [local_binary_pattern(face, P=8, R=radius).astype(int) for radius in (1, 2)]
        rows.append(np.concatenate([np.bincount(code.ravel(), minlength=BINS)[:BINS] for code in codes]))
    return np.stack(rows)


def objects(paths: list[Path]) -> list[np.ndarray]:
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": tempfile.mkdtemp()}
    from ultralytics import YOLO

    network = YOLO("yolov5n.yaml", task="detect", verbose=False)
    return [network.predict(str(path), verbose=False)[0].boxes.data.numpy() for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--resnet50", type=Path, required=True)
    parser.add_argument("--places365", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    paths = sorted(arguments.images.rglob("*.jpg"))
    seconds: dict[str, float] = {}

    def timed(name: str, function: Any, *arguments_of_function: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments_of_function)
        seconds[name] = time.perf_counter() - start
        return result

    mesh = timed("landmarks", landmarks, paths)
    timed("action_units", action_units, paths)
    timed("lbp", lbp, paths, mesh)
    features = timed("resnet50", resnet, paths, arguments.resnet50, 1000)
    timed("places365", resnet, paths, arguments.places365, 365)
    timed("objects", objects, paths)
    np.save(arguments.out / "resnet50.npy", features)
    (arguments.out / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
