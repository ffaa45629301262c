"""Whole profiles of small pipelines, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from emofuse.errors import CacheError, DatasetError, DeviceError, ProfileError, SpecError
from emofuse.profile import ProfileOptions, Repeats, profile_pipeline, stand_in_weights
from emofuse.specs import CacheSpec, PipelineSpec, RandomWeights, RegistryWeights, parse_spec

QUICK = Repeats(most=3, least=2, seconds=0.2, warm_up=1)
RUNS = [
    {"name": "LBP", "features": {"streams": ["lbp"]}, "head": {"embed_dim": 16, "width": 16}},
    {"name": "LBP, 128 bins", "features": {"streams": ["lbp"], "lbp_bins": 128}, "head": {"kind": "linear"}},
]


def pipeline(face, **changes) -> PipelineSpec:
    cache = {"face": face, "streams": [{"kind": "lbp"}]}
    data = {"name": "small", "dataset": {"kind": "demo"}, "cache": cache, "runs": RUNS, **changes}
    return parse_spec(PipelineSpec, data, "small.yaml")


def options(**changes) -> ProfileOptions:
    return ProfileOptions(**{"images": 4, "rows": 30, "batches": (1, 6), "repeats": QUICK, "device": "cpu", **changes})


@pytest.fixture(scope="module")
def measured(session_face):
    lines: list[str] = []
    return profile_pipeline(pipeline(session_face), options(threads=1), say=lines.append), lines


def test_every_configuration_is_measured_extraction_and_head_apart(measured):
    profile, lines = measured
    assert [figures.name for figures in profile.configurations] == ["LBP", "LBP, 128 bins"]
    assert lines[:2] == ["configuration 1/2: LBP, images to probabilities", "configuration 1/2: LBP, head"]
    for figures, dim in zip(profile.configurations, (256, 128), strict=True):
        path = figures.path
        assert path.dims == {"lbp": dim}
        for timings in (path.extraction, path.head, path.whole, figures.head.latency):
            assert [timing.batch for timing in timings] == [1, 6]
            assert all(0 < timing.median_ms <= timing.p95_ms for timing in timings)
        for extraction, head, whole in zip(path.extraction, path.head, path.whole, strict=True):
            assert max(extraction.median_ms, head.median_ms) < whole.median_ms
        assert 0 < path.start.rss_bytes < path.peaks[0].rss_bytes <= path.peaks[1].rss_bytes
    linear = profile.configurations[1].head.cost
    assert (linear.parameters, linear.flops) == (128 * 8 + 8 + 8, 2 * 128 * 8)


def test_a_profile_says_what_it_depends_on(measured):
    profile, _ = measured
    assert profile.conditions["threads"] == 1
    assert profile.conditions["device"] == "cpu"
    assert profile.conditions["images"] == {"source": "drawn, as in the demo dataset", "count": 4}
    assert {"emofuse", "python", "torch", "numpy"} <= set(profile.conditions["versions"])
    assert profile.notes == ("Heads train on 30 synthetic rows with 8 labels, not on a cache.",)


def test_streams_without_operations_that_can_be_counted_have_none_and_not_zero(measured):
    profile, _ = measured
    figures = profile.configurations[0]
    assert figures.flops is None
    assert figures.not_counted[0] == "lbp"
    assert figures.parameters == 0
    assert figures.model_bytes > 1e6  # the face detector's


def test_weights_that_are_not_here_are_stood_in_for_and_told():
    streams = [
        {"kind": "lbp"},
        {"kind": "places365"},
        {"kind": "objects"},
        {"kind": "backbone", "model": "resnet18", "weights": {"kind": "random", "seed": 3}},
        {"kind": "backbone", "model": "resnet50", "weights": {"kind": "file", "path": "nowhere.pth"}},
    ]
    spec, notes = stand_in_weights(parse_spec(CacheSpec, {"streams": streams}, "test"))
    assert [stream.name for stream in spec.streams] == ["lbp", "places365", "objects", "resnet18", "resnet50"]
    assert [spec.streams[index].weights for index in (1, 2, 4)] == [RandomWeights()] * 3
    assert spec.streams[3].weights == RandomWeights(seed=3)
    assert len(notes) == 4
    assert notes[0].startswith("places365: RANDOM WEIGHTS stand in, because the weights 'places365' are not on this")
    assert notes[1].endswith("emofuse weights fetch yolov5nu")
    assert notes[2] == "resnet18: RANDOM WEIGHTS, as the pipeline says."
    assert notes[3].startswith("resnet50: RANDOM WEIGHTS stand in, because no file of weights at ")
    assert str(Path("nowhere.pth").absolute()) in notes[3]


def test_weights_that_are_here_are_used(shared_data):
    from emofuse.weights import import_weights

    import_weights(shared_data / "models" / "squeezenet1_1.pth")
    stream = {
        "kind": "backbone",
        "model": "squeezenet1_1",
        "weights": {"kind": "registry", "name": "squeezenet1_1-onnx"},
    }
    spec, notes = stand_in_weights(parse_spec(CacheSpec, {"streams": [stream]}, "test"))
    assert notes == []
    assert spec.streams[0].weights == RegistryWeights(name="squeezenet1_1-onnx")


def test_a_network_is_measured_with_stand_in_weights(tmp_path, face):
    from emofuse.profile.images import draw_images

    draw_images(tmp_path, 3)
    cache = {"face": face, "streams": [{"kind": "backbone", "model": "resnet18"}]}
    runs = [{"name": "ResNet-18", "features": {"streams": ["resnet18"]}}]
    profile = profile_pipeline(pipeline(face, cache=cache, runs=runs), options(data=tmp_path))
    (figures,) = profile.configurations
    assert profile.notes[0].startswith("resnet18: RANDOM WEIGHTS stand in")
    assert profile.conditions["images"] == {"source": str(tmp_path), "count": 3}
    assert figures.not_counted == ()
    assert figures.flops / 2e9 == pytest.approx(1.814, abs=2e-3)
    assert figures.path.missing == {"resnet18": 0}
    assert figures.path.peaks[0].rss_bytes - figures.path.start.rss_bytes > figures.model_bytes // 2


def test_a_wrong_path_of_images_is_told_before_anything_is_measured(tmp_path, face):
    with pytest.raises(DatasetError, match="no such image or folder"):
        profile_pipeline(pipeline(face), options(data=tmp_path / "nowhere"))


def test_a_cache_that_does_not_serve_is_told_before_anything_is_measured(tmp_path, face, write_cache):
    import numpy as np

    with pytest.raises(CacheError, match="nowhere"):
        profile_pipeline(pipeline(face), options(cache=tmp_path / "nowhere.zarr"))
    other = {"resnet50": ("backbone", np.ones((4, 3), np.float32), np.ones(4, np.uint8))}
    path = write_cache(tmp_path / "features.zarr", ("joy", "fear"), np.zeros(4, np.int64), ["train"] * 4, other)
    with pytest.raises(SpecError, match=r"'lbp' is not in the cache \(there are: resnet50\)"):
        profile_pipeline(pipeline(face), options(cache=path))


def test_a_configuration_that_cannot_run_here_is_named(face):
    cache = {"face": face, "streams": [{"kind": "backbone", "model": "resnet99", "weights": {"kind": "random"}}]}
    runs = [{"name": "Deep", "features": {"streams": ["resnet99"]}}]
    with pytest.raises(ProfileError, match=r"^Deep: .*'resnet99' is no classification model of torchvision"):
        profile_pipeline(pipeline(face, cache=cache, runs=runs), options())


def test_a_device_that_is_not_there_is_told(face):
    with pytest.raises(DeviceError, match="device 'tpu' is unknown"):
        profile_pipeline(pipeline(face), options(device="tpu"))


@pytest.mark.gpu
def test_on_a_gpu_its_peak_stands_beside_the_process_s(face):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cache = {"face": face, "streams": [{"kind": "backbone", "model": "resnet18", "weights": {"kind": "random"}}]}
    runs = [{"name": "ResNet-18", "features": {"streams": ["resnet18"]}}]
    (figures,) = profile_pipeline(pipeline(face, cache=cache, runs=runs), options(device="cuda")).configurations
    assert figures.path.peaks[0].cuda_bytes > figures.model_bytes
    assert figures.head.training.cuda_bytes > figures.head.inference.cuda_bytes > 0
