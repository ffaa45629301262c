"""Pictures and clips alike: blocks that were stopped or damaged, and views that come later, end in the same bytes.

The pictures have streams of vectors, sequences, maps and sequences of maps; the clips have streams of their frames, of
their sounds, and of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import clip_corpus
import pytest
from cheap_streams import SizeSpec
from clip_corpus import read_corpus, write_corpus
from shaped_streams import SHAPES

from emofuse.cache import writer
from emofuse.cache.reader import open_cache
from emofuse.datasets.manifest import Manifest
from emofuse.extraction import build_cache, plan_build
from emofuse.specs import CacheSpec
from emofuse.upkeep import repair_cache
from emofuse.upkeep.verify import verify_cache


@dataclass(frozen=True)
class Corpus:
    """Rows to build a cache of."""

    manifest: Manifest
    spec: CacheSpec

    @property
    def rows_of_a_block(self) -> int:
        return self.spec.block_rows


OF_PICTURES = CacheSpec(block_rows=8, streams=(SizeSpec(), *SHAPES))
SPECS = {"pictures": OF_PICTURES, "clips": clip_corpus.SPEC}
SEQUENCES = ("strips", "film", "grey", "pixels")
STREAMS = [(kind, stream.name) for kind, spec in SPECS.items() for stream in spec.streams]
ARRAYS = [
    (kind, stream, array)
    for kind, stream in STREAMS
    for array in ("features", "status", *(["mask"] if stream in SEQUENCES else []))
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return read_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture
def corpus(kind, manifest, clips):
    return Corpus({"pictures": manifest, "clips": clips}[kind], SPECS[kind])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.zarr"


@pytest.fixture
def built(path, corpus, in_process):
    build_cache(path, corpus.manifest, corpus.spec, in_process)
    return path


def damage_chunk(path, stream, array, damage):
    (chunk,) = (path / "streams" / stream / array).glob("c.1.*")
    data = bytearray(chunk.read_bytes())
    if damage == "missing":
        chunk.unlink()
    elif damage == "short":
        chunk.write_bytes(data[:-1])
    else:
        data[3] ^= 255
        chunk.write_bytes(data)


@pytest.mark.parametrize(("kind", "stream", "array"), ARRAYS)
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_block_that_lacks_a_chunk_of_any_array_is_computed_again(
    corpus, built, in_process, contents, stream, array, damage
):
    before = contents(built)
    damage_chunk(built, stream, array, damage)
    (missing,) = plan_build(built, corpus.manifest, corpus.spec).missing
    assert (missing.block, missing.streams) == (1, (stream,))
    assert build_cache(built, corpus.manifest, corpus.spec, in_process).rows == corpus.rows_of_a_block
    assert contents(built) == before


@pytest.mark.parametrize(("kind", "stream", "array"), ARRAYS)
def test_a_damaged_block_is_found_and_repaired(corpus, built, in_process, contents, stream, array):
    before = contents(built)
    damage_chunk(built, stream, array, "flipped")
    assert [(fault.stream, fault.block) for fault in verify_cache(built).faults] == [(stream, 1)]
    assert repair_cache(built, in_process, streams=corpus.spec.streams).blocks == 1
    assert contents(built) == before


@pytest.mark.parametrize(("kind", "stream"), STREAMS)
def test_a_build_stopped_between_the_chunks_of_a_block_goes_on_to_the_same_bytes(
    path, tmp_path, corpus, in_process, contents, monkeypatch, stream
):
    write, written = writer._write, []

    def stop(target, *arguments):
        written.append(target)
        if sum(f"/{stream}/" in f"{each.store_path}/" for each in written) == 2:  # one chunk of the block is written
            raise KeyboardInterrupt
        write(target, *arguments)

    monkeypatch.setattr(writer, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        build_cache(path, corpus.manifest, corpus.spec, in_process)
    monkeypatch.undo()
    assert 0 < plan_build(path, corpus.manifest, corpus.spec).rows <= len(corpus.manifest)
    build_cache(path, corpus.manifest, corpus.spec, in_process)
    build_cache(tmp_path / "undisturbed.zarr", corpus.manifest, corpus.spec, in_process)
    assert contents(path) == contents(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize("kind", SPECS)
def test_views_and_streams_that_are_added_later_are_those_built_at_once(path, tmp_path, corpus, in_process, contents):
    spec, rows = corpus.spec, len(corpus.manifest)
    with_views = spec.model_copy(update={"views": 2})
    build_cache(path, corpus.manifest, spec.model_copy(update={"streams": spec.streams[1:]}), in_process)
    build_cache(path, corpus.manifest, spec, in_process)
    assert build_cache(path, corpus.manifest, with_views, in_process).rows == rows
    build_cache(tmp_path / "at_once.zarr", corpus.manifest, with_views, in_process)
    assert contents(path) == contents(tmp_path / "at_once.zarr")
    for stream in open_cache(path).streams.values():
        mask = stream.read_mask(1)
        assert (mask is None) == (stream.name not in SEQUENCES)
        assert mask is None or mask.shape == (rows, stream.shape[0])
