"""A folder as somebody outside of emofuse has it: pictures, plugin files, and a pipeline that names them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parent))  # command_line.py

STREAM = '''
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec, Variant
from emofuse.streams.base import Rows


class GridStream:
    """Means of red, green and blue in the quarters of a picture, those of the whole picture first."""

    shape = (12,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = frozenset({"image"})
    flag_names = ()
    columns = ()

    def extract(self, samples):
        rows = np.zeros((len(samples), 12), np.float32)
        for index, sample in enumerate(samples):
            quarters = [part for half in np.array_split(sample.image, 2) for part in np.array_split(half, 2, axis=1)]
            rows[index] = np.concatenate([quarter.mean(axis=(0, 1)) for quarter in quarters]) / 255
        return Rows.ok(rows)

    def close(self):
        pass


class GridSpec(CustomStreamSpec):
    version = 1
    uses_gpu: ClassVar[bool] = False
    variants: ClassVar[tuple[Variant, ...]] = (Variant("quarters", (1, 2, 4), 4),)
    kind: Literal["grid"] = "grid"

    def make(self, device):
        return GridStream()

    @classmethod
    def derive(cls, stored, choice):
        return stored[:, : 3 * choice["quarters"]]
'''

HEAD = """
from typing import Literal

from torch import nn

from emofuse.heads.members import Members, key_of
from emofuse.heads.layers import Projection
from emofuse.specs import CustomHeadSpec


class SumHead(nn.Module):
    def __init__(self, group, dims, classes):
        super().__init__()
        self.members_of = {stream: Members(group, stream) for stream in dims}
        self.embeddings = nn.ModuleDict(
            {key_of(stream): Projection(members, dims[stream], classes) for stream, members in self.members_of.items()}
        )
        self.everyone = Members(group)

    def forward(self, batch, noise=None):
        parts = {stream: self.embeddings[key_of(stream)](rows) for stream, rows in batch.features.items()}
        first = next(iter(parts.values()))
        total = first.new_zeros(len(self.everyone), *first.shape[1:])
        for stream, part in parts.items():
            total = self.members_of[stream].add(total, part)
        return total


class SumSpec(CustomHeadSpec):
    kind: Literal["sum"] = "sum"

    def make(self, group, dims, classes):
        return SumHead(group, dims, classes)
"""

DATASET = '''
from pathlib import Path
from typing import Literal

import polars as pl

from emofuse.datasets.rows import ListedRows, check_root, check_rows, open_files
from emofuse.specs import CustomDatasetSpec


class ListedSpec(CustomDatasetSpec):
    """`root/list.txt`: a split, a label and a path a line."""

    kind: Literal["listed"] = "listed"
    table: Path = Path("list.txt")

    def read(self):
        root = check_root(self.root, self.kind)
        lines = [line.split() for line in (root / self.table).read_text().splitlines()]
        table = pl.DataFrame(
            {
                "file": [str(self.table)] * len(lines),
                "row": range(1, len(lines) + 1),
                "sample_id": [path for _, _, path in lines],
                "path": [path for _, _, path in lines],
                "split": [split for split, _, _ in lines],
                "label": [label for _, label, _ in lines],
            }
        )
        found = ListedRows(table, sorted(set(table["label"])), "listed pictures", self.kind)
        return check_rows(found, root, self.split, open_files(root, follow_links=self.follow_links))
'''

METRIC = """
from emofuse.metrics import Metric


def share_of_sure_answers(labels, probs):
    return float((probs.max(axis=1) > 0.5).mean())


SURE = Metric("sure", "Sure answers", share_of_sure_answers, needs="probs")
"""

PIPELINE = """
title: Kinds of one's own
plugins: [kinds/grid.py, kinds/sum_head.py, kinds/listed.py, kinds/sure.py]
metrics: [sure, balanced_accuracy, roc_auc]
dataset: {kind: listed, root: pictures}
cache: {block_rows: 8, streams: [{kind: grid}, {kind: grid, name: again}]}
defaults:
  train: {epochs: 3, batch_size: 8}
runs:
  - {name: own head, features: {streams: {grid: {quarters: 2}, again: {}}}, head: {kind: sum}}
  - {name: package's head, features: {streams: [grid]}, head: {kind: linear}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, which is also the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    kinds, pictures = tmp_path / "kinds", tmp_path / "pictures"
    kinds.mkdir()
    pictures.mkdir()
    for name, text in (("grid", STREAM), ("sum_head", HEAD), ("listed", DATASET), ("sure", METRIC)):
        (kinds / f"{name}.py").write_text(text)
    (tmp_path / "mine.yaml").write_text(PIPELINE)
    rng = np.random.default_rng(0)
    lines = []
    for index in range(30):
        label = ("warm", "cold")[index % 2]
        image = rng.integers(0, 120, (20, 24, 3), dtype=np.uint8)
        image[:, :, 0 if label == "warm" else 2] += 120
        Image.fromarray(image).save(pictures / f"{index:02d}.png")
        lines.append(f"{('train', 'train', 'train', 'val', 'test')[index // 2 % 5]} {label} {index:02d}.png")
    (pictures / "list.txt").write_text("\n".join(lines))
    return tmp_path
