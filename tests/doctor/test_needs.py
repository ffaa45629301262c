"""What a build of a spec would need."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import pytest
import yaml

from emofuse.doctor.needs import (
    ExaminedSpec,
    cache_bytes,
    count_rows,
    face_findings,
    find_spec,
    rows_findings,
    space_findings,
    weights_findings,
)
from emofuse.doctor.probe import ProbeReply, run_probes
from emofuse.errors import SpecError
from emofuse.specs import CacheSpec, parse_spec

REPLIES = {"dim resnet18": ProbeReply(512)}


def wanted(tmp_path, streams, **cache) -> ExaminedSpec:
    spec = parse_spec(CacheSpec, {"block_rows": 100, "streams": streams, **cache}, "test")
    return ExaminedSpec("mine", spec, None, tmp_path / "out")


def test_a_name_is_a_pipeline_s_a_sweep_s_or_a_cache_spec_s():
    demo = find_spec("demo", None)
    assert demo.dataset is not None
    assert demo.out.as_posix() == "emofuse-runs/demo"
    paper = find_spec("paper", None)
    assert paper.dataset is None
    assert paper.probes == ("face face_mesh", "dim resnet50")


def test_a_file_is_a_pipeline_or_a_cache_spec(tmp_path):
    streams = {"streams": [{"kind": "lbp"}]}
    (tmp_path / "what.yaml").write_text(yaml.safe_dump(streams))
    assert find_spec(str(tmp_path / "what.yaml"), tmp_path).out == tmp_path
    run = {"name": "LBP", "features": {"streams": ["lbp"]}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"dataset": {"kind": "folder"}, "cache": streams, "runs": [run]}))
    found = find_spec(str(tmp_path / "job.yaml"), None)
    assert found.name == "job"
    assert found.dataset is not None


def test_faults_of_a_file_are_those_of_what_it_is(tmp_path):
    (tmp_path / "what.yaml").write_text(yaml.safe_dump({"streams": [{"kind": "lbq"}]}))
    with pytest.raises(SpecError, match=r"what\.yaml, 1 problem: streams\[0\]\.kind: 'lbq' is unknown"):
        find_spec(str(tmp_path / "what.yaml"), None)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"dataset": {"kind": "folder"}, "cache": "paper", "runs": []}))
    with pytest.raises(SpecError, match=r"job\.yaml, 1 problem: runs"):
        find_spec(str(tmp_path / "job.yaml"), None)


def test_an_unknown_name_is_told_with_all_that_there_are():
    with pytest.raises(SpecError, match=r"no pipeline, sweep or cache spec of this name, did you mean 'demo'\?.*paper"):
        find_spec("demoo", None)


def test_a_stream_that_looks_at_faces_needs_mediapipe(tmp_path):
    assert "face" in wanted(tmp_path, [{"kind": "landmarks"}]).kinds
    assert wanted(tmp_path, [{"kind": "objects"}]).kinds == ("objects",)
    assert wanted(tmp_path, [{"kind": "objects"}]).probes == ()


def test_the_kind_of_the_dataset_counts_as_one_that_needs_packages():
    assert "demo" in find_spec("demo", None).kinds
    assert "emoset" in find_spec("emoset118k", None).kinds


def test_the_detector_that_the_spec_names_must_start(tmp_path):
    works, fails = ProbeReply("face.tflite"), ProbeReply(None, "StreamError: no Face Mesh")
    spec = wanted(tmp_path, [{"kind": "lbp"}])
    (found,) = face_findings(spec, {"face face_mesh": fails, "import numpy": works})
    assert (found.state, found.what) == ("fault", "face.detector 'face_mesh': StreamError: no Face Mesh")
    (found,) = face_findings(spec, {"face face_mesh": works})
    assert (found.state, found.what) == ("ok", "face.detector 'face_mesh' starts (face.tflite)")


def test_without_a_spec_either_detector_will_do():
    works, fails = ProbeReply("face.tflite"), ProbeReply(None, "StreamError: no")
    assert [found.state for found in face_findings(None, {"face face_mesh": works, "face landmarker": fails})] == [
        "ok",
        "note",
    ]
    assert [found.state for found in face_findings(None, {"face face_mesh": fails, "face landmarker": fails})] == [
        "fault",
        "fault",
    ]


def test_weights_are_here_random_or_missing_with_how_to_get_them(tmp_path, shared_data):
    from emofuse.weights import import_weights

    import_weights(shared_data / "models" / "squeezenet1_1.pth")
    here = {"kind": "registry", "name": "squeezenet1_1-onnx"}
    streams = [
        {"kind": "lbp"},
        {"kind": "backbone", "model": "squeezenet1_1", "weights": here},
        {"kind": "backbone", "model": "resnet18", "weights": {"kind": "random"}},
        {"kind": "places365"},
    ]
    found = weights_findings(wanted(tmp_path, streams))
    assert [finding.state for finding in found] == ["ok", "note", "fault"]
    assert found[0].what == "squeezenet1_1: weights squeezenet1_1-onnx are here"
    assert "resnet18: RANDOM WEIGHTS, as the spec says" in found[1].what
    assert found[2].what.endswith("Get them: emofuse weights fetch places365")


def test_the_estimate_is_the_size_of_a_cache_that_is_built(tmp_path, face):
    from emofuse.datasets import read_dataset
    from emofuse.extraction import BuildOptions, build_cache
    from emofuse.specs import DemoSpec

    manifest = read_dataset(DemoSpec(root=tmp_path / "dataset", images=24))
    streams = [{"kind": "lbp"}, {"kind": "landmarks"}, {"kind": "action_units", "dtype": "float16"}]
    spec = wanted(tmp_path, streams, block_rows=10, face=face).cache
    build_cache(tmp_path / "features.zarr", manifest, spec, BuildOptions(workers=0))
    files = [path for path in (tmp_path / "features.zarr").rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert cache_bytes(spec, {}, 24) == pytest.approx(sum(path.stat().st_size for path in files), rel=0.01)


def test_the_estimate_knows_the_time_axis_of_clips_and_networks_whose_weights_are_not_here(tmp_path):
    def bytes_of(stream, **cache):
        return cache_bytes(wanted(tmp_path, [stream], block_rows=100, **cache).cache, REPLIES, 100)

    lbp = {"kind": "lbp"}
    assert bytes_of(lbp, clip={"frames": 16}) > 15.9 * bytes_of(lbp)
    assert bytes_of(lbp, clip={"frames": 16, "over_time": "mean"}) == bytes_of(lbp)
    mel = {"kind": "backbone", "model": "squeezenet1_1", "input": "mel"}
    assert bytes_of(mel) == bytes_of(mel, clip={"frames": 16})
    assert bytes_of({**mel, "windows": 8}) == pytest.approx(8 * bytes_of(mel), rel=0.01)
    maps = {"kind": "backbone", "model": "squeezenet1_1", "output": "map"}
    assert bytes_of(maps) == pytest.approx(100 * 512 * 13 * 13 * 2, rel=0.01)


def test_what_is_imported_takes_no_space_of_a_build(tmp_path):
    own = [{"kind": "lbp"}]
    imported = {"kind": "imported", "name": "clip_vit"}
    sizes = [cache_bytes(wanted(tmp_path, streams).cache, {}, 1000) for streams in (own, [*own, imported])]
    assert sizes[0] == sizes[1] > 0


def test_the_widths_are_those_of_the_streams(face_detector):
    from emofuse.specs import ActionUnitsSpec, LandmarksSpec, LbpSpec, ObjectsSpec, Places365Spec, RandomWeights
    from emofuse.streams import make_stream

    random = RandomWeights()
    specs = (LbpSpec(), LandmarksSpec(), ActionUnitsSpec(), Places365Spec(weights=random), ObjectsSpec(weights=random))
    assert all(make_stream(spec).shape == spec.stored_shape for spec in specs)


def test_room_on_the_disk_is_held_against_the_cache(tmp_path, monkeypatch):
    spec = wanted(tmp_path, [{"kind": "lbp"}, {"kind": "backbone", "model": "resnet18"}])
    assert cache_bytes(spec.cache, REPLIES, 150) == 2 * (100 * (512 * 4 + 2 + 512 * 2 + 2) + 24)
    assert cache_bytes(wanted(tmp_path, [{"kind": "lbp"}], views=3).cache, REPLIES, 1) == 3 * (100 * (512 * 4 + 2) + 12)

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000_000))
    (found,) = space_findings(spec, REPLIES, 100_000)
    assert found.state == "ok"
    assert found.what == f"a cache of 100000 rows takes about 0.31 GB; 2.0 GB are free in {tmp_path}"
    (found,) = space_findings(spec, REPLIES, 1_000_000)
    assert (found.state, found.advice) == ("fault", "Free some space, or name a folder on another disk with --out")
    (found,) = space_findings(spec, REPLIES, None)
    assert (found.state, found.what) == ("note", f"3.1 KB of cache per row; 2.0 GB are free in {tmp_path}")
    assert "--data or --rows" in found.advice


def test_what_is_there_of_a_cache_needs_no_more_room(tmp_path, monkeypatch):
    spec = wanted(tmp_path, [{"kind": "lbp"}])
    (tmp_path / "out" / "features.zarr").mkdir(parents=True)
    (tmp_path / "out" / "features.zarr" / "chunk").write_bytes(b"0" * 1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=700_000))
    (found,) = space_findings(spec, {}, 1000)
    assert found.state == "ok"
    assert "takes about 0.00 GB, 0.00 GB of it are there" in found.what
    shutil.rmtree(tmp_path / "out")
    assert space_findings(spec, {}, 1000)[0].state == "fault"


def test_a_folder_that_cannot_be_written_to_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    (found,) = space_findings(wanted(tmp_path, [{"kind": "lbp"}]), {}, 10)
    assert (found.state, found.what) == ("fault", f"{tmp_path} cannot be written to")


def test_the_width_of_a_model_that_cannot_be_made_is_no_guess(tmp_path):
    spec = wanted(tmp_path, [{"kind": "backbone", "model": "resnet18"}])
    with pytest.raises(ValueError, match="resnet18: ImportError: no"):
        cache_bytes(spec.cache, {"dim resnet18": ProbeReply(None, "ImportError: no")}, 10)


def test_rows_are_the_dataset_s(tmp_path):
    import cv2
    import numpy as np

    for number in range(6):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    run = {"name": "LBP", "features": {"streams": ["lbp"]}}
    job = {"dataset": {"kind": "folder", "split": {"kind": "stratified"}}, "cache": {"streams": [{"kind": "lbp"}]}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**job, "runs": [run]}))
    found = find_spec(str(tmp_path / "job.yaml"), tmp_path / "out")
    assert count_rows(found, None) is None
    assert count_rows(found, tmp_path / "data") == 6
    assert count_rows(find_spec("demo", None), None) == 640
    assert count_rows(find_spec("paper", None), None) is None
    fault, space = rows_findings(found, tmp_path / "nowhere", {}, None)
    assert (fault.state, space.state) == ("fault", "note")
    assert "nowhere" in fault.what
    (space,) = rows_findings(found, tmp_path / "nowhere", {}, 6)
    assert "a cache of 6 rows" in space.what


def test_the_options_of_a_face_detector_are_examined_as_they_are(tmp_path):
    face = {"detector": "yunet", "weights": {"kind": "file", "path": str(tmp_path / "yunet.onnx")}}
    streams = [{"kind": "backbone", "model": "squeezenet1_1", "weights": {"kind": "random"}, "region": "face"}]
    spec = wanted(tmp_path, streams, face=face)
    probe = spec.probes[0]
    assert probe.startswith("face yunet {")
    reply = run_probes([probe])[probe]
    assert "no file of weights at" in reply.problem
    (found,) = face_findings(spec, {probe: reply})
    assert found.what.startswith("face.detector 'yunet': WeightsError: no file of weights at ")
