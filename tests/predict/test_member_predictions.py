"""Members of archives and tables are predicted as their cached rows were."""

from __future__ import annotations

import io

import numpy as np
import pytest
from member_files import images, write_parquet, write_zip
from PIL import Image

from emofuse.cache.reader import open_cache
from emofuse.extraction import BuildOptions
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.predict import Predictor, find_images
from emofuse.results import ResultPaths, read_predictions
from emofuse.specs import PipelineSpec, parse_spec

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

LABELS = ("happy", "sad")
COUNT = {"train": 8, "val": 4, "test": 4}


def draw(label, number):
    """A bar that lies or stands, in noise of its own."""
    pixels = np.random.default_rng([label, number]).integers(0, 90, (48, 48), dtype=np.uint8)
    bar = np.s_[20:28, :] if label else np.s_[:, 20:28]
    pixels[bar] += 150
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def as_zip(root):
    names = {
        f"{split}/{name}/{split}{number}.png": draw(label, 10 * place + number)
        for place, (split, count) in enumerate(COUNT.items())
        for label, name in enumerate(LABELS)
        for number in range(count)
    }
    return {"kind": "folder", "root": str(write_zip(root / "bars.zip", names))}


def as_parquet(root):
    for place, (split, count) in enumerate(COUNT.items()):
        rows = [(label, number) for number in range(count) for label in range(2)]
        cells = images(*(draw(label, 10 * place + number) for label, number in rows))
        write_parquet(root / f"{split}-00000-of-00001.parquet", {"image": cells, "label": [label for label, _ in rows]})
    return {"kind": "parquet", "root": str(root)}


@pytest.mark.slow
@pytest.mark.parametrize("make", [as_zip, as_parquet])
def test_members_are_predicted_as_their_cached_rows(tmp_path, make):
    (tmp_path / "data").mkdir()
    spec = {
        "name": "bars",
        "dataset": make(tmp_path / "data"),
        "cache": {"block_rows": 8, "streams": [{"kind": "hog", "region": "image"}]},
        "runs": [{"name": "hog", "features": {"streams": ["hog"]}, "head": {"kind": "linear"}, "train": {"epochs": 2}}],
    }
    build = BuildOptions(workers=0, device="cpu")
    options = PipelineOptions(out=tmp_path / "out", build=build)
    summary = run_pipeline(parse_spec(PipelineSpec, spec, "test"), options, say=lambda _: None)
    paths = ResultPaths(tmp_path / "out")
    folder = paths.runs / summary.records[0].digest[:16]
    saved = read_predictions(folder)
    table = open_cache(paths.cache).manifest.table.filter(split="test")
    file = tmp_path / "data" / table["path"][0]
    with Predictor(folder) as predictor:
        predictions = list(predictor.predict(find_images(file / "test" if file.suffix == ".zip" else file)))
    assert [str(each.path) for each in predictions] == [f"{file}/{member}" for member in table["member"]]
    assert saved.sample_id.tolist() == table["sample_id"].to_list()
    ours = [[each.probs[label] for label in open_cache(paths.cache).classes] for each in predictions]
    np.testing.assert_allclose(ours, saved.probs, atol=1e-5)
