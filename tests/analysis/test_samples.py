"""Single samples: contributions, the run that did not learn them, and heat maps through the fusion head."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emofuse.analysis.explain import ExplainOptions, explain_samples
from emofuse.analysis.face_plot import plot_photograph
from emofuse.analysis.face_regions import REGIONS, RegionShare, mean_face, points_of
from emofuse.analysis.photographs import Photograph
from emofuse.analysis.samples import _landmarks_of
from emofuse.analysis.sources import open_source
from emofuse.cache.reader import open_cache
from emofuse.cli import app
from emofuse.errors import ResultsError
from emofuse.specs import CacheSpec, RunSpec, parse_spec
from emofuse.streams.action_units import ActionUnitsStream
from emofuse.streams.landmarks import align
from emofuse.testing import example_face
from emofuse.training.runs import train_runs

SPEC = parse_spec(CacheSpec, {"streams": [{"kind": "landmarks"}]}, "test")


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
    assert sum(each.outputs.values()) == pytest.approx(1, abs=1e-5)
    assert each.explained == next(iter(each.outputs))
    assert set(each.streams) == {"a", "b", "noise"}
    assert each.notes[0].startswith("nothing is drawn on the picture, its streams cannot be extracted again")


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
    assert points_of(_landmarks_of(open_cache(path), 9))[4] == pytest.approx((0.4, 0.1))


@pytest.mark.parametrize("degrees", [0, 40])
def test_regions_are_drawn_over_the_photograph_at_the_landmarks_of_its_face(degrees):
    """The lip corners of a face that is turned in its picture are blue, and nothing else is."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = {number: tuple(60 * (turn @ place) + 120) for number, place in mean_face().items()}
    photograph = np.full((240, 240, 3), 128, np.uint8)
    figure = plot_photograph("joy", [RegionShare("lip corners", 1.0, 1.0, "mouth_width (AU 12)")], points, photograph)
    before, after = figure.axes[:2]
    assert before.patches[:] == []
    polygons = [patch.get_xy() for patch in after.patches]
    expected = [np.array([points[number] for number in polygon]) for polygon in REGIONS["lip corners"]]
    assert len(polygons) == 2
    for polygon, corners in zip(sorted(polygons, key=lambda xy: xy[0, 0]), expected, strict=True):
        assert polygon[:-1] == pytest.approx(corners)
    red, _, blue, opacity = after.patches[0].get_facecolor()
    assert blue > red
    assert opacity == pytest.approx(0.75)


def test_the_mesh_of_a_photograph_is_that_of_the_cached_landmarks_or_none(monkeypatch):
    face = example_face()
    finder = SimpleNamespace(detect=lambda *_: face, close=lambda: None)
    monkeypatch.setattr("emofuse.analysis.photographs.make_face_detector", lambda *_: finder)
    photograph = Photograph(np.zeros((9, 9, 3), np.uint8), SPEC, (1, 2, 3, 4))
    cached = align(face.points)
    assert photograph.find_mesh(cached.ravel()) is face.points
    assert photograph.find_mesh() is face.points
    cached[:, 0] += np.linspace(0, 0.4, len(cached))
    assert photograph.find_mesh(cached.ravel()) is None


def test_action_units_are_drawn_on_the_photograph_of_the_sample_unless_pictures_are_left_out(
    planted, tmp_path, monkeypatch
):
    face = example_face()
    finder = SimpleNamespace(detect=lambda *_: face, close=lambda: None)
    photograph = Photograph(np.full((480, 480, 3), 90, np.uint8), SPEC)
    names = ("lip_corner_lift", "lips_part", "jaw_drop", "brow_gap", "nostril_width", "lip_thickness")
    monkeypatch.setattr("emofuse.analysis.photographs.make_face_detector", lambda *_: finder)
    monkeypatch.setattr("emofuse.analysis.samples._photograph_of", lambda *_: (photograph, []))
    monkeypatch.setattr("emofuse.analysis.samples.names_of", lambda _, __, stream: names if stream == "a" else ())
    drawn = []
    monkeypatch.setattr("emofuse.analysis.samples._draw_face", lambda *given: drawn.append(given))
    options = ExplainOptions(configuration="network", out=tmp_path)
    (each,) = explain_samples(planted.folder, options, ["s0007"])
    assert [file.name for file in each.files] == ["face_of_a.png"]
    ((_, _, _, points, picture),) = drawn
    assert picture is photograph.image
    assert points[1] == pytest.approx(tuple(face.points[1, :2]))
    (tmp_path / "samples" / "s0007" / "net.png").write_bytes(b"a picture of a former call")
    list(explain_samples(planted.folder, options, ["s0007"], images=False))
    assert not (tmp_path / "samples" / "s0007" / "net.png").exists()
    assert len(drawn[1]) == 4  # without a photograph


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
