"""A sequence stream and a map stream of one's own go from a pipeline to predictions, in stems that see their order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from PIL import Image

from emofuse.cache.reader import open_cache
from emofuse.errors import TrainingError
from emofuse.results import list_runs, read_predictions
from emofuse.specs import load_plugins
from emofuse.specs.streams import STREAMS
from emofuse.status import Step
from emofuse.testing import check_stream

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

STREAMS_FILE = '''
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status, Step
from emofuse.streams.base import Rows


class StripsStream:
    """Mean colour of the horizontal strips of a picture, top to bottom, 16 pixels each; at most six of them."""

    shape = (6, 3)
    dimensions = ("time", "feature")
    dtype = np.dtype(np.float32)
    needs = frozenset({"image"})
    flag_names = ()
    columns = ()

    def extract(self, samples):
        features = np.zeros((len(samples), 6, 3), np.float32)
        mask = np.full((len(samples), 6), Step.PADDING, np.uint8)
        for index, sample in enumerate(samples):
            for step in range(min(6, max(1, sample.image.shape[0] // 16))):
                features[index, step] = sample.image[16 * step : 16 * step + 16].mean(axis=(0, 1)) / 255
                mask[index, step] = Step.OK
        return Rows.ok(features, mask)

    def close(self):
        pass


class ThumbStream:
    """A grey thumbnail of 8 x 8 pixels."""

    shape = (1, 8, 8)
    dimensions = ("channel", "y", "x")
    dtype = np.dtype(np.float32)
    needs = frozenset({"image"})
    flag_names = ()
    columns = ()

    def extract(self, samples):
        features = np.zeros((len(samples), 1, 8, 8), np.float32)
        for index, sample in enumerate(samples):
            grey = sample.image.mean(axis=2) / 255
            rows = np.array_split(grey, 8)
            for y, row in enumerate(rows):
                parts = np.array_split(row, 8, axis=1)
                features[index, 0, y] = [part.mean() if part.size else 0 for part in parts]
        return Rows.ok(features)

    def close(self):
        pass


class StripsSpec(CustomStreamSpec):
    version = 1
    uses_gpu: ClassVar[bool] = False
    kind: Literal["strips"] = "strips"

    def make(self, device):
        return StripsStream()


class ThumbSpec(CustomStreamSpec):
    version = 1
    uses_gpu: ClassVar[bool] = False
    kind: Literal["thumb"] = "thumb"

    def make(self, device):
        return ThumbStream()
'''

HEAD_FILE = """
from typing import Literal

from torch import nn

from emofuse.heads import stems_of
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import HiddenLayers, Join
from emofuse.heads.members import Members
from emofuse.specs import NetworkHeadSpec


class OwnHead(nn.Module):
    def __init__(self, group, dims, classes, spec):
        super().__init__()
        members = {stream: Members(group, stream) for stream in dims}
        widths = [*[spec.width] * spec.depth, classes]
        self.embeddings = Embeddings(members, dims, spec.embed_dim, stems_of(spec))
        self.join = Join(Members(group), members, spec.embed_dim, widths[0])
        self.hidden = HiddenLayers(Members(group), widths, "hidden")

    def forward(self, batch, noise=None):
        return self.hidden(self.join(self.embeddings(batch, noise)), noise)


class OwnSpec(NetworkHeadSpec):
    kind: Literal["own"] = "own"
    embed_dim: int = 8
    depth: int = 1
    width: int = 8
    dropout: float = 0.0

    def make(self, group, dims, classes):
        return OwnHead(group, dims, classes, self)
"""

PIPELINE = """
plugins: [shapes.py, own_head.py]
dataset: {kind: folder, root: pictures, split: {kind: stratified, train: 0.5, val: 0.25, test: 0.25}}
cache: {block_rows: 16, streams: [{kind: strips}, {kind: thumb}]}
defaults:
  head: {embed_dim: 8, depth: 1, width: 8}
  train: {epochs: 60, batch_size: 16, learning_rate: 1.0e-2, select: loss}
runs:
  - {name: pooled, features: {streams: [strips]}}
  - {name: lstm, features: {streams: [strips]}, head: {temporal: lstm, stem_width: 8}}
  - {name: own head, features: {streams: [strips]}, head: {kind: own, temporal: lstm, stem_width: 8}}
  - {name: cnn, features: {streams: [thumb]}, head: {spatial: cnn, stem_width: 8}}
  - {name: both, features: {streams: [strips, thumb]}, head: {temporal: attention, spatial: patches, stem_width: 8}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Pictures that grow brighter downwards or upwards: their strips tell them apart by their order alone."""
    rng = np.random.default_rng(0)
    for label in ("down", "up"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(40):
            height = 96 if index % 4 else 48
            ramp = np.linspace(60, 200, height)[:: 1 if label == "down" else -1]
            picture = ramp[:, None, None] + rng.normal(0, 4, (height, 32, 3)) + rng.normal(0, 10)
            pixels = picture.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{index:02}.png")
    (tmp_path / "shapes.py").write_text(STREAMS_FILE)
    (tmp_path / "own_head.py").write_text(HEAD_FILE)
    (tmp_path / "mine.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOFUSE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


def test_sequences_and_maps_are_cached_trained_reported_and_predicted(folder):
    call("run", "mine.yaml", "--device", "cpu")
    out = folder / "emofuse-runs/mine"
    cache = open_cache(out / "features.zarr")
    assert cache.streams["strips"].shape == (6, 3)
    assert cache.streams["thumb"].shape == (1, 8, 8)
    mask = cache.streams["strips"].read_mask()
    assert sorted({tuple(row) for row in mask.tolist()}) == [(Step.OK,) * 3 + (Step.PADDING,) * 3, (Step.OK,) * 6]

    records = {record.name: record for record in list_runs(out / "runs")}
    accuracy = {name: record.metrics["test"]["accuracy"] for name, record in records.items()}
    assert accuracy["pooled"] < 0.8  # their mean says nothing of the order of strips
    assert min(accuracy[name] for name in ("lstm", "own head", "cnn", "both")) >= 0.95
    assert records["lstm"].streams["strips"]["used_shape"] == [6, 3]
    assert (out / "report/index.html").is_file()

    for name in ("lstm", "own head", "cnn", "both"):
        run = out / "runs" / records[name].digest[:16]
        saved = read_predictions(run)
        paths = [folder / "pictures" / f"{sample}.png" for sample in saved.sample_id[:6]]
        output = call("predict", *paths, "--run", run, "--json")
        found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        assert len(found) == len(paths)
        classes = list(records[name].classes)
        for row, one in enumerate(found):
            probs = [one["probs"][label] for label in classes]
            assert np.allclose(probs, saved.probs[row], atol=1e-5)
    assert "5 rows extracted again, all as cached" in call("cache", "verify", out / "features.zarr", "--sample", 5)


def test_the_shapes_pass_the_checks_of_streams(folder):
    load_plugins([folder / "shapes.py"])
    check_stream(STREAMS.find("strips")())
    check_stream(STREAMS.find("thumb")())


def test_a_head_without_stems_refuses_them_with_what_to_do(folder):
    before, _ = (folder / "mine.yaml").read_text().split("defaults:")
    run = "{name: k, head: kernel_ridge, features: {streams: [strips]}}"
    (folder / "mine.yaml").write_text(f"{before}runs: [{run}]\n")
    refused = r"a kernel_ridge head takes vectors alone, got strips \(6, 3\)\. Take a head that is trained"
    with pytest.raises(TrainingError, match=refused):
        call("run", "mine.yaml", "--device", "cpu")


def test_sequences_and_maps_are_profiled_in_their_shapes(folder, tmp_path):
    before, _ = (folder / "mine.yaml").read_text().split("defaults:")
    head = "{kind: linear, temporal: lstm, spatial: attention, stem_width: 8}"
    (folder / "mine.yaml").write_text(
        f"{before}runs: [{{name: both, head: {head}, features: {{streams: [strips, thumb]}}}}]\n"
    )
    out = tmp_path / "profile"
    call("profile", "mine.yaml", "--data", "pictures", "--images", 2, "--rows", 40, "--repeats", 2, "--out", out)
    (figures,) = json.loads((out / "profile.json").read_text())["configurations"]
    assert figures["path"]["dims"] == {"strips": [6, 3], "thumb": [1, 8, 8]}
    strips, thumb = 6 * 4 * (3 * 8 + 8 * 8), 64 * (1 * 8 + 8 + 1)
    assert figures["head"]["cost"]["flops"] == 2 * (strips + thumb + 8 * (8 + 1))
