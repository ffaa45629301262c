"""Small datasets made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

LABELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")


def write_image(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path


@pytest.fixture
def image_at() -> Callable[..., Path]:
    """Writes a small image to a path."""
    return write_image


class EmoSetMaker:
    """An EmoSet with two rows a split; tests change what they need before it is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        label2idx = {label: index for index, label in enumerate(LABELS)}
        self.info: Any = {"label2idx": label2idx, "idx2label": {str(i): label for label, i in label2idx.items()}}
        self.annotations: dict[str, Any] = {}
        names = {"train": ("awe_00007", "fear_00103"), "val": ("awe_00012", "anger_00001"), "test": ("fear_00090",)}
        self.rows: dict[str, list[Any]] = {split: [self.row(name) for name in names[split]] for split in names}

    def row(self, name: str) -> list[str]:
        label = name.partition("_")[0]
        return [label, f"image/{label}/{name}.jpg", f"annotation/{label}/{name}.json"]

    def write(self) -> Path:
        (self.root / "info.json").write_text(json.dumps(self.info))
        for split, rows in self.rows.items():
            (self.root / f"{split}.json").write_text(json.dumps(rows))
            for row in rows:
                if (
                    isinstance(row, list)
                    and set(map(type, row)) == {str}
                    and len(row) in {3, 4}
                    and ".." not in row[-2]
                ):
                    write_image(self.root / row[-2])
                    self.annotate(row[-1], {"emotion": row[0], "brightness": 0.5, "colorfulness": 0.25})
        for path, data in self.annotations.items():
            self.annotate(path, data)
        return self.root

    def annotate(self, path: str, data: Any) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(data))


@pytest.fixture
def emoset(tmp_path: Path) -> EmoSetMaker:
    """An EmoSet that is not written yet."""
    root = tmp_path / "emoset"
    root.mkdir()
    return EmoSetMaker(root)
