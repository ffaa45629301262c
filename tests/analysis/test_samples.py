"""Single samples: contributions, the run that did not learn them, and heat maps through the fusion head."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emofuse.analysis.explain import ExplainOptions, explain_samples
from emofuse.analysis.face_regions import mean_face
from emofuse.analysis.samples import _face_of, heat_of, overlay
from emofuse.analysis.sources import open_source
from emofuse.cache.reader import open_cache
from emofuse.cli import app
from emofuse.errors import ResultsError
from emofuse.specs import RunSpec, parse_spec
from emofuse.streams.action_units import ActionUnitsStream
from emofuse.training.runs import train_runs


def test_a_sample_is_explained_by_the_run_that_did_not_learn_it(planted, tmp_path):
    (each,) = explain_samples(planted.folder, ExplainOptions(configuration="network", out=tmp_path), ["s0007"])
    plain = json.loads((tmp_path / "samples" / "s0007" / "explanation.json").read_text())
    source = open_source(planted.folder, configuration="network")
    (tested_in,) = [
        run
        for run in source.chosen.runs
        if "s0007" in np.load(source.runs / run.digest[:16] / "predictions.npz")["sample_id"]
    ]
    assert plain["run"] == tested_in.digest
    assert plain["label"] == planted.cache.classes[planted.truth[7]]
    assert sum(each.probs.values()) == pytest.approx(1, abs=1e-5)
    assert each.explained == next(iter(each.probs))
    assert set(each.streams) == {"a", "b", "noise"}
    assert each.notes[0].startswith("no heat is drawn, its streams cannot be extracted again")


def test_another_class_can_be_explained(planted, tmp_path):
    options = ExplainOptions(configuration="network", out=tmp_path)
    (each,) = explain_samples(planted.folder, options, ["s0007"], explained="calm")
    assert each.explained == "calm"


@pytest.mark.parametrize(
    ("sample", "explained", "message"),
    [
        ("s7", None, r"has no sample 's7'"),
        ("s0007", "joyy", r"no class 'joyy', did you mean 'joy'.*there are: joy, fear"),
    ],
)
def test_an_unknown_sample_or_class_is_named(planted, tmp_path, sample, explained, message):
    options = ExplainOptions(configuration="network", out=tmp_path)
    with pytest.raises(ResultsError, match=message):
        list(explain_samples(planted.folder, options, [sample], explained=explained))


def test_action_units_of_a_sample_are_drawn_on_its_own_face(write_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("emofuse.analysis.samples.names_of", lambda *_: ActionUnitsStream.columns)
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    faces = np.zeros((60, 468, 3))
    for number, place in mean_face().items():
        faces[:, number, :2] = place
    faces[9, 4] = (0.4, 0.1, 0.0)  # a bent nose
    units = rng.normal(size=(60, 30)) + 2 * labels[:, None] * (np.arange(30) == 0)
    streams = {
        "action_units": ("action_units", units, np.ones(60, np.uint8)),
        "landmarks": ("landmarks", faces.reshape(60, -1), np.ones(60, np.uint8)),
    }
    streams = {name: (kind, array.astype(np.float32), status) for name, (kind, array, status) in streams.items()}
    path = write_cache(tmp_path / "features.zarr", ("joy", "fear"), labels, ["train", "val", "test"] * 20, streams)
    plain = {
        "name": "ridge",
        "features": {"streams": ["action_units"], "variants": {"action_units": {"count": 30}}},
        "head": {"kind": "kernel_ridge"},
    }
    spec = parse_spec(RunSpec, {**plain, "split": {"kind": "official"}}, "test")
    train_runs(open_cache(path), [spec], tmp_path / "runs", device="cpu")
    (each,) = explain_samples(tmp_path, ExplainOptions(), ["s0008"])
    assert [file.name for file in each.files] == ["face_of_action_units.png"]
    assert Image.open(each.files[0]).size[0] > 300
    assert _face_of(open_cache(path), 9)[4] == pytest.approx((0.4, 0.1))


def test_heat_is_where_channels_that_raise_the_score_are_active():
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 0], maps[1, 1, 1], maps[0, 1, 0] = 4, 8, 2
    heat = heat_of(maps, np.array([1.0, -1.0]))
    assert heat.tolist() == [[1.0, 0.0], [0.5, 0.0]]
    assert heat_of(maps, np.array([0.0, -1.0])).max() == 0


def test_the_overlay_shows_the_picture_and_its_heat_side_by_side():
    picture = np.full((8, 10, 3), 100, np.uint8)
    image = np.asarray(overlay(picture, np.array([[0.0, 1.0], [0.0, 0.0]])))
    assert image.shape == (8, 26, 3)
    assert (image[:, :10] == 100).all()
    assert image[0, -1].sum() > image[-1, 16].sum()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures whose class is a bright square to the left or to the right, and runs of a small network on them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = ["image,label,split"]
    for number in range(48):
        side = number % 2
        pixels = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        pixels[16:48, 36 * side : 36 * side + 28] = rng.integers(180, 255, (32, 28, 3))
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / f"p{number:02d}.png")
        lines.append(
            f"p{number:02d}.png,{('left', 'right')[side]},{('train', 'train', 'val', 'test')[number // 2 % 4]}"
        )
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    pipeline = folder / "small.yaml"
    pipeline.write_text(
        "dataset: {kind: csv, table: labels.csv, path_column: image, label_column: label, split_column: split, "
        "image_dir: images}\n"
        "cache: {streams: [{kind: backbone, model: squeezenet1_1, weights: {kind: random, seed: 0}}]}\n"
        "references: off\n"
        "runs: [{name: net, features: {streams: [squeezenet1_1]}, head: {kind: concat, embed_dim: 8, width: 8}, "
        "train: {epochs: 5}}]\n"
    )
    out = folder / "out"
    result = CliRunner().invoke(app, ["run", str(pipeline), "--data", str(folder), "--out", str(out), "--workers", "0"])
    assert result.exit_code == 0, result.output
    return folder, out


@pytest.mark.slow
def test_the_heat_of_a_backbone_is_drawn_on_the_picture_of_the_cached_row(pictures):
    _, out = pictures
    sample = open_cache(out / "features.zarr").sample_ids[7]
    result = CliRunner().invoke(app, ["explain", str(out), "--sample", str(sample)])
    assert result.exit_code == 0, result.output
    (drawn,) = (out / "analysis" / "samples").glob("*/squeezenet1_1.png")
    image = np.asarray(Image.open(drawn))
    assert image.shape == (224, 224 * 2 + 6, 3)
    assert str(drawn) in result.output


@pytest.mark.slow
def test_without_its_picture_a_sample_is_explained_without_heat(pictures, tmp_path):
    _, out = pictures
    sample = str(open_cache(out / "features.zarr").sample_ids[7])
    (each,) = explain_samples(out, ExplainOptions(out=tmp_path), [sample], image_root=tmp_path)
    assert each.files == ()
    assert "no picture at" in each.notes[0]
    assert "--image-root" in each.notes[0]
