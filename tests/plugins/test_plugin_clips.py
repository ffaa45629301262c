"""Clips go from a table to a report and to predictions: image streams over time, and a stream of sounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from media_files import write_clip
from PIL import Image
from typer.testing import CliRunner

from emofuse.cache.reader import open_cache
from emofuse.cli import app
from emofuse.datasets.sources import Source
from emofuse.predict import Predictor
from emofuse.results import list_runs, read_predictions
from emofuse.specs import load_plugins
from emofuse.status import Step

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

STREAM_FILE = '''
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.streams.base import NEEDS_AUDIO, Rows


class LoudnessStream:
    """The loudness of the four quarters of a sound."""

    shape = (4,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = NEEDS_AUDIO
    flag_names = ()
    columns = ()

    def extract(self, samples):
        rows = [
            [np.sqrt(np.mean(part**2)) for part in np.array_split(sample.sound.at(16000).samples, 4)]
            for sample in samples
        ]
        return Rows.ok(np.array(rows, np.float32).reshape(-1, 4))

    def close(self):
        pass


class LoudnessSpec(CustomStreamSpec):
    uses_gpu: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = NEEDS_AUDIO
    kind: Literal["loudness"] = "loudness"

    def make(self, device):
        return LoudnessStream()
'''

PIPELINE = """
plugins: [loudness.py]
dataset: {{kind: clips, root: data, split: {{kind: stratified, train: 0.5, val: 0.25, test: 0.25}}}}
cache:
  block_rows: 8
  clip: {{frames: 4}}
  face: {{detector: {detector}}}
  streams: [{{kind: lbp}}, {{kind: action_units}}, {{kind: loudness}}]
defaults:
  head: {{embed_dim: 8, depth: 1, width: 8}}
  train: {{epochs: 3, batch_size: 8, learning_rate: 1.0e-2}}
runs:
  - {{name: units, features: {{streams: [action_units]}}, head: {{temporal: lstm, stem_width: 8}}}}
  - {{name: texture, features: {{streams: {{lbp: {{bins: 128}}}}}}}}
  - {{name: all, features: {{streams: [lbp, action_units, loudness]}}, head: {{temporal: lstm, stem_width: 8}}}}
"""


@pytest.fixture(scope="module")
def face_picture():
    from skimage import data

    return np.asarray(Image.fromarray(data.astronaut()[:384, :512]).resize((256, 192)))


@pytest.fixture
def folder(tmp_path, monkeypatch, face, face_picture) -> Path:
    """Clips of six speakers that grow brighter or darker; clip 3 has no sound, and clip 4 is cut off."""
    (tmp_path / "data").mkdir()
    lines = ["path,label,group"]
    for index in range(24):
        direction = 1 if index % 2 else -1

        def picture(number, width, height, direction=direction, index=index):
            light = 0.75 + direction * 0.05 * (number - 4) + 0.01 * (index % 5)
            return (face_picture * light).clip(0, 255).astype(np.uint8)

        path = tmp_path / "data" / f"{index:02}.mp4"
        write_clip(path, frames=9, size=(256, 192), sound=None if index == 3 else "aac", picture=picture)
        lines.append(f"{path.name},{('darker', 'brighter')[index % 2]},s{index // 4}")
    broken = tmp_path / "data" / "04.mp4"
    broken.write_bytes(broken.read_bytes()[:2000])
    (tmp_path / "data" / "clips.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "loudness.py").write_text(STREAM_FILE)
    (tmp_path / "mine.yaml").write_text(PIPELINE.format(detector=face["detector"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOFUSE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


def test_clips_are_cached_trained_reported_and_predicted(folder):
    call("run", "mine.yaml", "--device", "cpu")
    out = folder / "emofuse-runs/mine"
    cache = open_cache(out / "features.zarr")
    assert cache.streams["lbp"].shape == (4, 512)
    assert cache.streams["action_units"].dimensions == ("time", "feature")
    assert cache.streams["loudness"].shape == (4,)
    assert (cache.streams["action_units"].read_mask()[0] == Step.OK).all()
    assert (out / "report" / "index.html").is_file()
    for group in set(cache.manifest.groups):
        assert cache.manifest.table.filter(cache.manifest.table["group"] == group)["split"].n_unique() == 1

    load_plugins([folder / "loudness.py"])
    data = folder / "data"
    runs = {record.name: out / "runs" / record.digest[:16] for record in list_runs(out / "runs")}
    for name in ("units", "texture", "all"):
        saved = read_predictions(runs[name])
        with Predictor(runs[name]) as predictor:
            assert {str(kind) for kind in predictor.kinds} == {"clip"}
            predictions = list(predictor.predict([data / f"{sample}.mp4" for sample in saved.sample_id.tolist()]))
        for prediction, probs in zip(predictions, saved.probs, strict=True):
            np.testing.assert_allclose([prediction.probs[label] for label in cache.classes], probs, atol=2e-5)
    with Predictor(runs["all"]) as predictor:
        first, silent, broken, span = predictor.predict(
            [data / "00.mp4", data / "03.mp4", data / "04.mp4", Source(data / "00.mp4", start_s=0.1, end_s=0.3)]
        )
    assert first.face is True
    assert len(first.action_units) == 30
    assert first.missing == {}
    assert silent.missing == {"loudness": "unreadable"}
    assert silent.problem is None
    assert broken.problem == "no clip or sound of a known format, or damaged or cut off"
    assert span.problem is None

    printed = CliRunner().invoke(app, ["predict", "data", "--run", str(runs["all"]), "--json"])
    assert printed.exit_code == 1  # clip 4 cannot be read
    lines = [json.loads(line) for line in printed.stdout.splitlines() if line.startswith("{")]
    assert [Path(line["path"]).name for line in lines] == [f"{index:02}.mp4" for index in range(24)]
