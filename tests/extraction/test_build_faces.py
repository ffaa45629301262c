"""Caches of faces: every detector, alignment and region; a row for each face; faces that the manifest names."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image
from skimage import data

from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.sources import FACE_BOX, Source
from emofuse.errors import SpecError
from emofuse.extraction import BuildOptions, build_cache, estimate_build
from emofuse.extraction.face_rows import faces_path
from emofuse.extraction.face_shares import describe_face_shares
from emofuse.specs import (
    BackboneSpec,
    CacheSpec,
    CsvSpec,
    FaceSpec,
    LandmarksSpec,
    LbpSpec,
    OfficialSplit,
    RandomWeights,
    parse_spec,
)
from emofuse.status import Status
from emofuse.streams.extractor import Extractor
from emofuse.streams.face_boxes import FaceBoxesSpec, boxes_of
from emofuse.upkeep.verify import verify_cache

HERE = BuildOptions(workers=0, device="cpu")
NETWORK = BackboneSpec(model="squeezenet1_1", weights=RandomWeights(), region="face", dtype="float32")
STREAMS = (NETWORK, LandmarksSpec(), LbpSpec(region_px=32), FaceBoxesSpec())


@pytest.fixture(scope="session")
def portrait():
    return data.astronaut()[20:220, 130:310]


@pytest.fixture
def pictures(tmp_path, portrait):
    """A dataset of four pictures: two faces, one, none, and one face that stands on its head."""
    root = tmp_path / "data"
    root.mkdir()
    two = np.full((240, 420, 3), 90, np.uint8)
    two[20:220, 230:410] = portrait[:, ::-1]
    two[60:180, 40:148] = np.asarray(Image.fromarray(portrait).resize((108, 120)))
    for name, image in (("two", two), ("one", portrait), ("none", data.coffee()), ("turned", portrait[::-1, ::-1])):
        Image.fromarray(np.ascontiguousarray(image)).save(root / f"{name}.png")
    rows = "path,label,split\ntwo.png,a,train\none.png,b,train\nnone.png,a,val\nturned.png,b,test\n"
    (root / "list.csv").write_text(rows)
    return root


def listed(root, table="list.csv"):
    return read_dataset(CsvSpec(table=table, root=root, split_column="split", split=OfficialSplit()))


@pytest.fixture
def manifest(pictures):
    return listed(pictures)


def check_rows_are_those_of_the_files(cache, manifest, spec):
    """Check that each stream by itself gives each file the rows that the cache has, in two views."""
    ids, paths = manifest.table["sample_id"].to_list(), manifest.table["path"].to_list()
    for stream in spec.streams:
        with Extractor((stream,), spec, device="cpu") as extractor:
            alone = [
                extractor.extract_views([manifest.root / path], [sample_id], [0, 1])
                for path, sample_id in zip(paths, ids, strict=True)
            ]
        for view in (0, 1):
            features, status = cache.streams[stream.name].read(view=view)
            extracted = [views[view].rows[stream.name] for views in alone]
            assert status.tolist() == [rows.status[0] for rows in extracted], stream.name
            expected = np.concatenate([rows.features for rows in extracted])
            assert features == pytest.approx(expected, abs=1e-5), stream.name


@pytest.mark.parametrize("align", ["five_point", "mesh", "box"])
@pytest.mark.parametrize("detector", ["face_mesh", "landmarker", "yunet", "retinaface"])
def test_a_cached_row_is_what_the_file_alone_gives(tmp_path, manifest, face_options, detector, align):
    least = {"min_confidence": 0.9} if detector == "retinaface" else {}  # it takes a cup for a face
    face = face_options(detector, align=align, size_px=64, turned=True, upscale_below_px=96, **least)
    spec = CacheSpec(face=face, streams=STREAMS, views=2, block_rows=3)
    build_cache(tmp_path / "features.zarr", manifest, spec, HERE)
    cache = open_cache(tmp_path / "features.zarr")
    assert not verify_cache(tmp_path / "features.zarr").faults
    check_rows_are_those_of_the_files(cache, manifest, spec)
    status = cache.streams[NETWORK.name].status
    assert status[:3, 0].tolist() == [Status.OK, Status.OK, Status.NO_DETECTION]
    assert (status[:, 0] == status[:, 1]).all()  # the face of a view of a crop is that of the picture
    features, _ = cache.streams[NETWORK.name].read()
    views, _ = cache.streams[NETWORK.name].read(view=1)
    assert not np.allclose(features[1], views[1])


@pytest.mark.parametrize("region", ["mesh", "face", "image"])
@pytest.mark.parametrize("detector", ["face_mesh", "landmarker", "yunet"])
def test_cached_rows_of_every_stream_and_region_are_what_the_file_alone_gives(
    tmp_path, manifest, face_options, detector, region
):
    textures = [{"kind": kind, "region": region} for kind in ("lbp", "hog", "gabor", "lpq")]
    of_faces = [{"kind": "landmarks"}, {"kind": "action_units"}, {"kind": "head_pose"}]
    if region != "mesh":
        of_faces.append({"kind": "pixels", "region": region})
    if detector == "landmarker":
        of_faces += [{"kind": "blendshapes"}, {"kind": "head_pose", "name": "pose", "source": "transform"}]
    plain = {"views": 2, "block_rows": 3, "streams": textures + of_faces}
    spec = parse_spec(CacheSpec, plain, "test").model_copy(update={"face": face_options(detector, size_px=64)})
    build_cache(tmp_path / "features.zarr", manifest, spec, HERE)
    cache = open_cache(tmp_path / "features.zarr")
    assert not verify_cache(tmp_path / "features.zarr").faults
    check_rows_are_those_of_the_files(cache, manifest, spec)
    for name, stream in cache.streams.items():
        sees_all = region == "image" and name in {"lbp", "hog", "gabor", "lpq", "pixels"}
        expected = Status.OK if sees_all else Status.NO_DETECTION
        assert stream.status[:3, 0].tolist() == [Status.OK, Status.OK, expected], name


def test_a_network_of_faces_sees_the_same_crop_in_any_cache(tmp_path, manifest, face_options):
    face = face_options("yunet", size_px=64)
    found = []
    for number, streams in enumerate(((NETWORK,), STREAMS)):
        path = tmp_path / f"{number}.zarr"
        build_cache(path, manifest, CacheSpec(face=face, streams=streams), HERE)
        found.append(open_cache(path).streams[NETWORK.name])
    assert found[0].layout.identity == found[1].layout.identity
    assert np.array_equal(found[0].read()[0], found[1].read()[0])
    assert np.array_equal(found[0].read()[1], found[1].read()[1])


ALL = {"which": "all", "size_px": 64}


@pytest.mark.parametrize("detector", ["face_mesh", "yunet"])
def test_every_face_of_a_picture_is_a_row_of_its_own(tmp_path, manifest, face_options, detector):
    spec = CacheSpec(face=face_options(detector, **ALL), streams=STREAMS)
    build_cache(tmp_path / "features.zarr", manifest, spec, HERE)
    cache = open_cache(tmp_path / "features.zarr")
    table = cache.manifest.table
    assert table["sample_id"].to_list()[:4] == ["two#1", "two#2", "one#1", "none"]
    assert table["group"].to_list()[:4] == ["two", "two", "one", "none"]
    assert table["label"].to_list()[:4] == ["a", "a", "b", "a"]
    assert table["split"].to_list()[:4] == ["train", "train", "train", "val"]
    assert table["face_left"][0] > 230 > 148 > table["face_left"][1] + table["face_width"][1] / 2
    assert table["face_left"][3] is None
    assert cache.manifest.info["notes"][-1].startswith("each face is a row: ")
    features, status = cache.streams[NETWORK.name].read()
    assert status.tolist()[:4] == [Status.OK, Status.OK, Status.OK, Status.NO_DETECTION]
    assert not np.allclose(features[0], features[1])
    boxes = table.select(FACE_BOX).rows()
    for row in range(3):
        source = Source(manifest.root / table["path"][row], face_box=boxes[row])
        with Extractor(STREAMS, spec, device="cpu") as extractor:
            rows = extractor.extract([source]).rows
        for stream in STREAMS:
            cached, _ = cache.streams[stream.name].read()
            assert cached[row] == pytest.approx(rows[stream.name].features[0], abs=1e-5)


def test_faces_are_found_once_and_again_only_for_new_pictures(tmp_path, pictures, manifest, face_options, portrait):
    spec = CacheSpec(face=face_options("yunet", **ALL), streams=(NETWORK,), block_rows=1)
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, spec, HERE)
    rows = open_cache(path).manifest.table.height
    assert build_cache(path, manifest, spec, HERE).rows == 0
    assert estimate_build(path, manifest, spec, HERE).rows == 0
    Image.fromarray(np.hstack([portrait, portrait])).save(pictures / "more.png")
    (pictures / "list.csv").write_text((pictures / "list.csv").read_text() + "more.png,a,train\n")
    longer = listed(pictures)
    summary = build_cache(path, longer, spec, HERE)
    assert summary.rows == 2
    assert open_cache(faces_path(path)).manifest.table.height == 5
    assert open_cache(path).manifest.table["sample_id"].to_list()[rows:] == ["more#1", "more#2"]


def test_the_manifest_chooses_the_face(tmp_path, pictures, face_options):
    rows = [
        "path,label,split,face_left,face_top,face_width,face_height",
        "small.png,a,train,70,80,50,70",
        "large.png,a,train,280,60,100,130",
        "nobody.png,a,train,0,0,20,20",
        "free.png,a,train,,,,",
    ]
    for name in ("small", "large", "nobody", "free"):
        shutil.copyfile(pictures / "two.png", pictures / f"{name}.png")
    (pictures / "boxes.csv").write_text("\n".join(rows))
    spec = CacheSpec(face=face_options("yunet"), streams=(FaceBoxesSpec(), NETWORK, LandmarksSpec()))
    build_cache(tmp_path / "features.zarr", listed(pictures, "boxes.csv"), spec, HERE)
    cache = open_cache(tmp_path / "features.zarr")
    features, status = cache.streams[NETWORK.name].read()
    assert status.tolist() == [Status.OK, Status.OK, Status.NO_DETECTION, Status.OK]
    assert np.array_equal(features[1], features[3])
    assert not np.allclose(features[0], features[1])
    # Another box of a row is another face: its block is computed again.
    (pictures / "boxes.csv").write_text("\n".join(rows).replace("small.png,a,train,70", "small.png,a,train,75"))
    summary = build_cache(tmp_path / "features.zarr", listed(pictures, "boxes.csv"), spec, HERE)
    assert summary.rows == 4
    assert any("replaced" in change for change in summary.changes)


def test_a_view_of_a_picture_shows_the_named_face(tmp_path, pictures, face_options):
    image = np.asarray(Image.open(pictures / "two.png"))
    spec = CacheSpec(face=face_options("yunet"), views=4, streams=(LandmarksSpec(), NETWORK))
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        small = Source(pictures / "two.png", face_box=(70, 80, 50, 70))
        views = extractor.extract_views([small, replace(small, face_box=(280, 60, 100, 130))], ["one", "two"], range(4))
    assert image.shape == (240, 420, 3)
    for view in range(4):
        assert views[view].rows["landmarks"].status.tolist() == [Status.OK, Status.OK]


def test_the_share_of_rows_with_a_face_is_told_for_each_split(tmp_path, manifest, face_options):
    streams = (LandmarksSpec(), LbpSpec(region_px=32, without_face="whole_image"), LbpSpec(name="strict", region_px=32))
    whole = BackboneSpec(model="squeezenet1_1", weights=RandomWeights())
    spec = CacheSpec(face=face_options("face_mesh"), streams=(*streams, whole))
    build_cache(tmp_path / "features.zarr", manifest, spec, HERE)
    (line,) = describe_face_shares(open_cache(tmp_path / "features.zarr"), spec)
    assert line == "a face in 75.0 % of 4 rows, train 100.0 %, val 0.0 %, test 100.0 % (landmarks, lbp, strict)"


def test_the_boxes_of_all_faces_are_a_stream(pictures, face_options):
    spec = CacheSpec(face=face_options("yunet"), streams=(FaceBoxesSpec(),))
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        rows = extractor.extract([pictures / f"{name}.png" for name in ("two", "none")]).rows["face_boxes"]
    large, small = boxes_of(rows.features[0])
    assert large[0] > 230 > small[0] + small[2]
    assert large[2] * large[3] > small[2] * small[3]
    assert rows.status.tolist() == [Status.OK, Status.NO_DETECTION]
    assert len(boxes_of(rows.features[1])) == 0


def test_clips_have_one_face_a_row():
    with pytest.raises(SpecError, match="`all` gives each face of a picture a row; of clips set largest or central"):
        parse_spec(CacheSpec, {"face": {"which": "all"}, "clip": {"frames": 2}, "streams": [{"kind": "lbp"}]}, "cache")


def test_a_moved_file_of_weights_is_the_same_detector(tmp_path, manifest, face_options):
    face = face_options("yunet")
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, CacheSpec(face=face, streams=(LandmarksSpec(),)), HERE)
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(face.weights.path.read_bytes())
    other = FaceSpec(detector="yunet", weights={"kind": "file", "path": moved})
    build_cache(path, manifest, CacheSpec(face=other, streams=(NETWORK,)), HERE)
    assert set(open_cache(path).streams) == {"landmarks", NETWORK.name}


def test_the_rows_of_faces_keep_the_attributes_of_their_picture(tmp_path, pictures, face_options):
    table = pl.read_csv(pictures / "list.csv").with_columns(valence=pl.Series([0.1, 0.2, 0.3, 0.4]))
    table.write_csv(pictures / "list.csv")
    manifest = listed(pictures)
    build_cache(tmp_path / "f.zarr", manifest, CacheSpec(face=face_options("yunet", **ALL), streams=(NETWORK,)), HERE)
    assert open_cache(tmp_path / "f.zarr").manifest.table["valence"].to_list()[:4] == [0.1, 0.1, 0.2, 0.3]
