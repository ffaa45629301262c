"""Nothing is done twice for several streams: a file is read and decoded once, a picture resized once for each size."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from clip_streams import GreySpec, LoudnessSpec, MotionSpec
from media_files import write_clip
from PIL import Image
from skimage import data

from emofuse.specs import (
    BackboneSpec,
    CacheSpec,
    ClipSpec,
    FaceSpec,
    LandmarksSpec,
    LbpSpec,
    RandomWeights,
)
from emofuse.streams import batches, reading
from emofuse.streams.extractor import Extractor
from emofuse.streams.networks import squares

RANDOM = RandomWeights(seed=0)
NETWORKS = (
    BackboneSpec(model="mobilenet_v3_small", weights=RANDOM),
    BackboneSpec(model="squeezenet1_1", weights=RANDOM),
    BackboneSpec(model="mobilenet_v3_small", name="map", output="map", weights=RANDOM),
)
OF_FACES = tuple(
    BackboneSpec(model=model, name=f"{model}-face", region="face", weights=RANDOM)
    for model in ("mobilenet_v3_small", "squeezenet1_1")
)

_watched: dict[str, Counter[str]] = {}


def _count_opened(event: str, arguments: tuple[object, ...]) -> None:
    for counted in _watched.values():
        if event == "open" and isinstance(arguments[0], str | Path):
            counted[str(arguments[0])] += 1


sys.addaudithook(_count_opened)  # for ever: hooks of this kind cannot be removed


@pytest.fixture
def opened():
    """Path -> the number of times that Python has opened it."""
    _watched["here"] = Counter()
    yield _watched["here"]
    _watched.clear()


def counting(monkeypatch, owner, name) -> list[int]:
    calls: list[int] = []
    function = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **options: calls.append(1) or function(*given, **options))
    return calls


def seen_of(streams, sources, spec):
    """Extract sources with files hashed for the record, as a build does; return the rows whose files were hashed."""
    hashed = []
    with Extractor(streams, spec, device="cpu") as extractor:
        views = extractor.extract_views(sources, ["a", "b"], range(spec.views), lambda row, sums: hashed.append(row))
    assert all((rows.status == 1).all() for extraction in views.values() for rows in extraction.rows.values())
    return hashed


def test_a_still_is_read_and_decoded_once_and_resized_once_for_all_networks(tmp_path, opened, monkeypatch):
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    for path in paths:
        Image.fromarray(data.astronaut()).save(path)
    opened.clear()
    decoded = counting(monkeypatch, reading, "read_image")
    resized = counting(monkeypatch, squares.Square, "cut")
    streams = (*NETWORKS, LbpSpec(), LandmarksSpec())
    assert seen_of(streams, paths, CacheSpec(streams=streams)) == [0, 1]
    assert [opened[str(path)] for path in paths] == [1, 1]
    assert len(decoded) == len(resized) == 2


def test_faces_are_found_once_and_their_crops_resized_once(tmp_path, opened, monkeypatch):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(data.astronaut()).save(path)
    opened.clear()
    found = counting(monkeypatch, batches.BatchRunner, "_find_face")
    cropped = counting(monkeypatch, batches, "crop_face")
    resized = counting(monkeypatch, squares, "_resized_face")
    streams = (*OF_FACES, LbpSpec(), LandmarksSpec())
    assert seen_of(streams, paths, CacheSpec(streams=streams, face=FaceSpec())) == [0, 1]
    assert [opened[str(path)] for path in paths] == [1, 1]
    assert len(found) == len(cropped) == len(resized) == 2


def test_views_share_the_decoded_picture(tmp_path, opened, monkeypatch):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(data.astronaut()).save(path)
    opened.clear()
    decoded = counting(monkeypatch, reading, "read_image")
    assert seen_of(NETWORKS, paths, CacheSpec(streams=NETWORKS, views=3)) == [0, 1]
    assert [opened[str(path)] for path in paths] == [1, 1]
    assert len(decoded) == 2


def test_a_clip_is_read_and_decoded_once_for_its_frames_and_its_sound(tmp_path, opened, monkeypatch):
    paths = [write_clip(tmp_path / name, sound="aac") for name in ("a.mp4", "b.mp4")]
    opened.clear()
    decoded = counting(monkeypatch, reading, "iterate_frames")
    resized = counting(monkeypatch, squares.Square, "cut")
    streams = (*NETWORKS[:2], GreySpec(), LoudnessSpec(), MotionSpec())
    assert seen_of(streams, paths, CacheSpec(streams=streams, clip=ClipSpec(frames=3))) == [0, 1]
    assert [opened[str(path)] for path in paths] == [1, 1]
    assert len(decoded) == 2
    assert len(resized) == 2 * 3
