"""The study of frozen networks on faces: its weights are known, its split is the paper's, and it runs to its table."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emofuse.datasets import read_dataset
from emofuse.datasets.demo.face import plate, vary_shape
from emofuse.extraction import BuildOptions
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.specs import PipelineSpec, read_cache_spec, read_pipeline_spec
from emofuse.training.data import TrainingData
from emofuse.weights import default_weights
from emofuse.weights.registry import find_entry

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

SPECS = ("backbone_study", "backbone_study_cropped")
PIPELINES = ("backbone_study", "backbone_study_rafdb", "backbone_study_fer2013")
NETWORKS = (
    *("vgg16", "resnet18", "densenet121", "efficientnet_v2_s", "inception_v3", "vit_b_16", "vit_b_32"),
    *("mobilenet_v2", "mobilenet_v2_map"),
)
COUNTS = {"train": {"happy": 40, "sad": 20, "fear": 20}, "test": {"happy": 6, "sad": 6, "fear": 6}}
FEW = {"train": {"happy": 6, "sad": 4}, "test": {"happy": 1, "sad": 1}}


@pytest.mark.parametrize("name", SPECS)
def test_the_weights_of_all_networks_are_in_the_registry_with_address_hash_and_licence(name):
    networks = [stream for stream in read_cache_spec(name).streams if stream.kind == "backbone"]
    assert tuple(stream.name for stream in networks) == NETWORKS
    for stream in networks:
        entry = find_entry(default_weights(stream.model).name)
        assert entry.url.startswith("https://download.pytorch.org/models/")
        assert len(entry.sha256) >= 8
        assert entry.licence == "BSD-3-Clause"


def test_the_two_cache_specs_differ_in_what_the_networks_see_alone():
    faces, cropped = (read_cache_spec(name) for name in SPECS)
    assert {stream.region for stream in faces.streams} == {"face"}
    assert {stream.region for stream in cropped.streams} == {"image"}
    changed = [stream.model_copy(update={"region": "image"}) for stream in faces.streams]
    assert changed == list(cropped.streams)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_run_has_a_partner_with_minority_classes_from_augmented_views(name):
    spec = read_pipeline_spec(name)
    pairs = list(zip(spec.runs[::2], spec.runs[1::2], strict=True))
    assert len(pairs) == len(spec.compare) == 10
    for plain, augmented in pairs:
        assert augmented.name == f"{plain.name}, augmented"
        assert augmented.train == plain.train.model_copy(update={"balance": "views", "views": spec.cache.views})
        assert augmented.model_copy(update={"name": "", "train": plain.train}) == plain.model_copy(update={"name": ""})
    (cnn,) = (run for run in spec.runs if run.name == "CNN from scratch")
    assert (cnn.train.optimizer, cnn.train.learning_rate, cnn.train.epochs) == ("rmsprop", 1e-3, 40)
    assert (cnn.head.spatial, cnn.head.stem_norm) == ("cnn", "batch")
    assert (cnn.head.stem_dropout, cnn.head.dropout) == (0.25, 0.5)
    assert spec.test is None or spec.test.folds == 5


def draw_faces(root, counts):
    """Draw small faces into a folder with train and test, where some labels are rare."""
    rng = np.random.default_rng(0)
    photo, mask = plate()
    for split, of_labels in counts.items():
        for place, (label, count) in enumerate(of_labels.items()):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                face, _ = vary_shape(photo, mask, 0.05, rng)
                grey = np.clip(np.asarray(face, dtype=np.float64).mean(axis=2) * (0.6 + 0.3 * place), 0, 255)
                image = Image.fromarray(grey.astype(np.uint8)).convert("RGB").resize((64, 64))
                image.save(folder / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return draw_faces(tmp_path_factory.mktemp("faces"), COUNTS)


def tiny(faces, networks) -> PipelineSpec:
    """The study on these faces with some of its networks, on random weights, with small heads and few epochs."""
    spec = read_pipeline_spec("backbone_study_fer2013")
    cropped = spec.cache
    streams = [
        stream.model_copy(update={"weights": random_weights(index)} if stream.kind == "backbone" else {})
        for index, stream in enumerate(cropped.streams)
        if stream.name in networks
    ]
    runs = [
        run.model_copy(
            update={
                "head": run.head.model_copy(update={"embed_dim": 8, "width": 8, "stem_width": 8}),
                "train": run.train.model_copy(update={"epochs": 2, "views": min(2, run.train.views), "batch_size": 16}),
            }
        )
        for run in spec.runs
        if set(run.features.streams) <= set(networks)
    ]
    data = spec.model_dump(mode="json") | {
        "dataset": {"kind": "folder", "root": str(faces)},
        "cache": cropped.model_copy(update={"streams": tuple(streams), "views": 2}).model_dump(mode="json"),
        "runs": [run.model_dump(mode="json") for run in runs],
        "compare": [],
        "baseline": runs[0].name,
        "references": "off",
    }
    return PipelineSpec.model_validate(data)


def random_weights(seed):
    from emofuse.specs.weights import RandomWeights

    return RandomWeights(seed=seed)


def test_official_test_rows_are_kept_and_15_percent_of_all_others_validate(faces, tmp_path, write_cache):
    from emofuse.cache.reader import open_cache
    from emofuse.specs import RunSpec, parse_spec

    (split,) = {run.split for run in read_pipeline_spec("backbone_study").runs}
    assert (split.kind, split.val) == ("holdout", 0.15)
    manifest = read_dataset(read_pipeline_spec("backbone_study").dataset.model_copy(update={"root": faces}))
    labels = manifest.table["label"].to_list()
    names = sorted(set(labels))
    x = np.zeros((len(labels), 3), np.float32)
    path = write_cache(
        tmp_path / "c.zarr",
        names,
        np.array([names.index(label) for label in labels]),
        [each or "" for each in manifest.table["split"].to_list()],
        {"x": ("backbone", x, np.ones(len(labels), np.uint8))},
    )
    spec = parse_spec(RunSpec, {"name": "a", "features": {"streams": ["x"]}, "split": split.model_dump()}, "test")
    splits = TrainingData.of_run(open_cache(path), spec).splits
    official = np.array(manifest.table["split"].to_list())
    assert np.array_equal(splits == "test", official == "test")
    assert int((splits == "val").sum()) == round(0.15 * int((official != "test").sum()))


def check_study(out, spec, counts):
    options = PipelineOptions(out=out, build=BuildOptions(workers=0), device="cpu")
    summary = run_pipeline(spec, options, say=lambda _: None)
    assert {record.name for record in summary.records} == {run.name for run in spec.runs}
    page = summary.report.page.read_text(encoding="utf-8")
    assert "ran with random instead of pretrained weights" in page
    assert "Training rows are drawn so that classes are even" in page
    for record in summary.records:
        assert record.rows["test"]["rows"] == sum(counts["test"].values())
        assert record.rows["val"]["rows"] == round(0.15 * sum(counts["train"].values()))
    return summary


def test_the_study_runs_to_its_table_with_a_map_and_a_cnn_from_scratch(faces, tmp_path):
    summary = check_study(tmp_path, tiny(faces, ("mobilenet_v2", "mobilenet_v2_map", "pixels")), COUNTS)
    assert len(summary.records) == 6
    by_name = {record.name: record for record in summary.records}
    assert by_name["CNN from scratch"].spec["train"]["optimizer"] == "rmsprop"
    plain, augmented = by_name["MobileNetV2"], by_name["MobileNetV2, augmented"]
    assert plain.history[0]["train_loss"] != augmented.history[0]["train_loss"]


@pytest.mark.slow
def test_the_study_runs_with_all_its_networks(tmp_path):
    spec = tiny(draw_faces(tmp_path / "faces", FEW), (*NETWORKS, "pixels"))
    assert len(check_study(tmp_path / "out", spec, FEW).records) == 20
