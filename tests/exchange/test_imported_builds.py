"""Imported streams beside those that are extracted: builds leave them alone, runs use them, predict refuses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cheap_streams import MeanColourSpec, SizeSpec

from emofuse.cache.reader import open_cache
from emofuse.errors import CacheError, IncompleteCacheError, StaleCacheError, StreamError
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.extraction import build_cache, plan_build
from emofuse.predict import Predictor
from emofuse.specs import (
    CacheSpec,
    FaceSpec,
    FeaturesSpec,
    ImportedSpec,
    LinearHeadSpec,
    RunSpec,
    TrainSpec,
    parse_spec,
)
from emofuse.streams import make_stream
from emofuse.training.runs import train_run

SPEC = CacheSpec(block_rows=8, streams=(SizeSpec(),))
WITH_IMPORTED = CacheSpec(block_rows=8, streams=(SizeSpec(), ImportedSpec(name="clip_vit")))


@pytest.fixture
def vectors(tmp_path, manifest) -> Path:
    """Two values that tell the label, for all rows but the first."""
    ids = np.array(manifest.table["sample_id"].to_list())
    labels = np.array([manifest.classes.index(label) for label in manifest.table["label"]])
    noise = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32) / 10
    np.savez(tmp_path / "clip.npz", features=(np.eye(2)[labels] + noise)[1:], sample_ids=ids[1:])
    return tmp_path / "clip.npz"


@pytest.fixture
def cache(tmp_path, manifest, in_process, vectors) -> Path:
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, SPEC, in_process)
    import_stream(path, ImportRequest(vectors, "clip_vit"))
    return path


@pytest.mark.parametrize("spec", [SPEC, WITH_IMPORTED], ids=["not in the spec", "in the spec"])
def test_a_build_leaves_an_imported_stream_as_it_is(cache, manifest, in_process, contents, spec):
    before = contents(cache)
    assert build_cache(cache, manifest, spec, in_process).describe() == "complete, nothing to do"
    assert contents(cache) == before


def test_a_new_stream_is_extracted_beside_an_imported_one(cache, manifest, in_process):
    spec = CacheSpec(
        block_rows=8,
        streams=(*WITH_IMPORTED.streams, MeanColourSpec()),
        face=FaceSpec(min_confidence=0.7),
    )
    assert build_cache(cache, manifest, spec, in_process).counts.keys() == {"mean_colour"}
    assert list(open_cache(cache).streams) == ["clip_vit", "mean_colour", "size"]


def test_a_spec_may_name_the_content(cache, manifest):
    content = open_cache(cache).streams["clip_vit"].identity["content"]["sha256"]
    assert plan_build(cache, manifest, imported_as(content)).missing == []
    with pytest.raises(
        StaleCacheError,
        match=rf"^clip_vit was cached with content\.sha256 {content[:12]}\.\.\., the spec now says 0{{12}}\.\.\.\. "
        r"Drop it first and import it again: emofuse cache drop .*features\.zarr clip_vit$",
    ):
        plan_build(cache, manifest, imported_as("0" * 64))


def imported_as(sha256: str) -> CacheSpec:
    return CacheSpec(block_rows=8, streams=(ImportedSpec(name="clip_vit", sha256=sha256),))


def test_an_extracted_stream_is_not_an_imported_one(cache, manifest):
    spec = CacheSpec(block_rows=8, streams=(ImportedSpec(name="size"),))
    with pytest.raises(StaleCacheError, match=r"^size was cached with kind size, the spec now says imported\. Drop it"):
        plan_build(cache, manifest, spec)


def test_a_cache_of_imported_streams_alone_is_made_and_then_filled(tmp_path, manifest, in_process, vectors):
    path = tmp_path / "imported.zarr"
    spec = parse_spec(CacheSpec, {"block_rows": 8, "streams": [{"kind": "imported", "name": "clip_vit"}]}, "x")
    for _ in range(2):
        with pytest.raises(
            CacheError,
            match=r"imported\.zarr: clip_vit cannot be extracted, only imported, and the cache does not have it yet\. "
            r"Import it, then run the same again: emofuse cache import .*imported\.zarr --file FILE --name clip_vit$",
        ):
            build_cache(path, manifest, spec, in_process)
    import_stream(path, ImportRequest(vectors, "clip_vit"))
    assert build_cache(path, manifest, spec, in_process).rows == 0


def test_an_interrupted_import_is_not_taken_for_a_stream(cache, manifest):
    (cache / "streams/clip_vit/status/c.1.0").unlink()
    with pytest.raises(
        IncompleteCacheError, match=r"the import of 'clip_vit' was interrupted, 1 blocks lack\. Run the same import"
    ):
        plan_build(cache, manifest, WITH_IMPORTED)
    assert plan_build(cache, manifest, SPEC).missing == []


def test_runs_use_an_imported_stream_and_predict_says_why_it_cannot(cache, tmp_path, images):
    spec = RunSpec(
        name="clip",
        features=FeaturesSpec(streams=("clip_vit",)),
        head=LinearHeadSpec(),
        train=TrainSpec(epochs=40, learning_rate=0.05, batch_size=16),
    )
    record, _ = train_run(open_cache(cache), spec, tmp_path / "runs", device="cpu")
    assert record.metrics["train"]["accuracy"] > 0.9
    assert record.streams["clip_vit"]["kind"] == "imported"
    (folder,) = (tmp_path / "runs").iterdir()
    with pytest.raises(
        StreamError,
        match=r"^stream 'clip_vit' was imported from clip\.npz: emofuse cannot extract it from an image\. Leave it",
    ):
        Predictor(folder)


def test_an_imported_stream_cannot_be_made():
    with pytest.raises(StreamError, match=r"^stream 'clip_vit' was imported: emofuse cannot extract it"):
        make_stream(ImportedSpec(name="clip_vit"))
