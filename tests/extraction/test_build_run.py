from __future__ import annotations

import re
import shutil
from collections import namedtuple

import numpy as np
import polars as pl
import pytest
from cheap_streams import DeadlySpec, MeanColourSpec, NoFaceSeenSpec, NothingSeenSpec, SizeSpec
from PIL import Image

import emofuse.cache.writer
import emofuse.extraction.worker
from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.sources import Source
from emofuse.errors import CacheError, StaleCacheError, StreamError, UnwritableCacheError
from emofuse.extraction import BuildState, build_cache, plan_build
from emofuse.specs import CacheSpec, DecodeSpec, FaceSpec, FolderSpec, StratifiedSplit
from emofuse.status import Status
from emofuse.upkeep import compare_sample

SPEC = CacheSpec(block_rows=8, streams=(MeanColourSpec(), SizeSpec()))


class Recorder:
    """A progress that keeps every state."""

    def __init__(self) -> None:
        self.states: list[BuildState] = []

    def update(self, state: BuildState) -> None:
        self.states.append(state)


@pytest.fixture
def extracted(monkeypatch) -> list[tuple[int, tuple[str, ...]]]:
    """(block, streams) of every block that is computed."""
    calls = []
    compute = emofuse.extraction.worker._compute_block
    monkeypatch.setattr(
        emofuse.extraction.worker,
        "_compute_block",
        lambda job, task: calls.append((task.block, task.streams)) or compute(job, task),
    )
    return calls


@pytest.fixture
def built(tmp_path, manifest, in_process):
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, SPEC, in_process)
    return path


def test_a_worker_reads_the_metadata_of_a_stream_once_for_all_blocks_and_views(
    tmp_path, manifest, in_process, monkeypatch
):
    read, reads = emofuse.cache.writer.read_layouts, []
    monkeypatch.setattr(
        emofuse.cache.writer, "read_layouts", lambda path, stream: reads.append(stream) or read(path, stream)
    )
    build_cache(tmp_path / "features.zarr", manifest, SPEC.model_copy(update={"views": 2}), in_process)
    assert open_cache(tmp_path / "features.zarr").layout.blocks == 5
    assert sorted(reads) == ["mean_colour", "size"]


def test_a_build_fills_every_row(built, manifest):
    cache = open_cache(built)
    colours, status = cache.streams["mean_colour"].read()
    rows = np.delete(np.arange(40), 9)
    np.testing.assert_array_equal(colours[rows], np.stack([rows, 2 * rows, np.full(39, 200)], axis=1))
    assert status.tolist() == [Status.UNREADABLE if row == 9 else Status.OK for row in range(40)]
    assert colours[9].tolist() == [0, 0, 0]
    sizes, _ = cache.streams["size"].read()
    assert sizes.dtype == np.float16
    assert sizes[:4].tolist() == [[9, 6], [6, 9], [6, 9], [9, 6]]
    assert cache.streams["size"].flags[:4, 0].tolist() == [1, 0, 0, 1]
    assert cache.streams["mean_colour"].columns == ("red", "green", "blue")
    assert cache.sample_ids.tolist() == manifest.table["sample_id"].to_list()


def test_the_summary_tells_what_was_done(tmp_path, manifest, in_process):
    summary = build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    assert summary.rows == 40
    assert summary.counts == {name: {"ok": 39, "unreadable": 1} for name in ("mean_colour", "size")}
    assert [(problem.row, problem.stream) for problem in summary.problems] == [(9, "")]
    assert summary.problem_count == 1
    assert re.fullmatch(r"40 rows computed in \d+\.\d s \(\d+\.\d images/s\)", summary.describe())


def test_progress_is_told_after_every_block(tmp_path, manifest, in_process):
    progress = Recorder()
    build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process, progress)
    assert [state.rows for state in progress.states] == [0, 8, 16, 24, 32, 40]
    assert {state.total for state in progress.states} == {40}
    first, last = progress.states[0], progress.states[-1]
    assert (first.rows_per_s, first.seconds_left) == (0, None)
    assert last.rows_per_s > 0
    assert last.seconds_left == 0
    assert last.counts["size"] == {"ok": 39, "unreadable": 1}


def test_a_second_build_has_nothing_to_do(built, manifest, in_process, contents, extracted):
    before = contents(built)
    progress = Recorder()
    summary = build_cache(built, manifest, SPEC, in_process, progress)
    assert (summary.rows, summary.describe()) == (0, "complete, nothing to do")
    assert (extracted, progress.states) == ([], [])
    assert contents(built) == before


def test_only_what_is_missing_is_computed(built, manifest, in_process, contents, extracted):
    before = contents(built)
    (built / "streams/size/status/c.1.0").unlink()
    (built / "streams/size/status/c.3.0").unlink()
    (built / "streams/mean_colour/status/c.3.0").write_bytes(b"damaged!")
    (built / "streams/mean_colour/features/c.4.0.0").unlink()
    summary = build_cache(built, manifest, SPEC, in_process)
    assert sorted(extracted) == [(1, ("size",)), (3, ("mean_colour", "size")), (4, ("mean_colour",))]
    assert summary.rows == 24
    assert summary.counts["size"] == {"ok": 15, "unreadable": 1}
    assert contents(built) == before


def test_a_new_stream_leaves_the_others_untouched(built, manifest, in_process, extracted):
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in built.parent.rglob("*") if file.is_file()}
    spec = CacheSpec(block_rows=8, streams=(*SPEC.streams, MeanColourSpec(name="half", scale=0.5)))
    build_cache(built, manifest, spec, in_process)
    assert [streams for _, streams in extracted] == [("half",)] * 5
    assert {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in before} == before
    assert open_cache(built).streams["half"].read()[0][1].tolist() == [0.5, 1, 100]


def test_a_build_of_one_stream_of_many_is_complete(built, manifest, in_process):
    assert build_cache(built, manifest, CacheSpec(block_rows=8, streams=(SizeSpec(),)), in_process).rows == 0


def test_a_plan_writes_nothing(tmp_path, built, manifest, contents):
    plan = plan_build(tmp_path / "new.zarr", manifest, SPEC)
    assert plan.new_streams == ("mean_colour", "size")
    assert (len(plan.missing), plan.rows) == (5, 40)
    assert not (tmp_path / "new.zarr").exists()
    before = contents(built)
    assert plan_build(built, manifest, SPEC).missing == []
    assert contents(built) == before


def test_another_spec_is_stale_with_everything_that_differs(built, manifest, in_process):
    spec = CacheSpec(block_rows=8, streams=(MeanColourSpec(scale=2), SizeSpec(dtype="float32")))
    with pytest.raises(StaleCacheError) as raised:
        build_cache(built, manifest, spec, in_process)
    drop = "Build it under another name, or drop it first: emofuse cache drop"
    assert str(raised.value) == (
        f"mean_colour was cached with scale 1.0, the spec now says 2.0. {drop} {built} mean_colour | "
        f"size was cached with dtype float16, the spec now says float32. {drop} {built} size"
    )


def test_another_version_is_stale(built, manifest, in_process, monkeypatch):
    monkeypatch.setattr(SizeSpec, "version", 2)
    with pytest.raises(StaleCacheError, match=r"^size was cached with version 1, the spec now says 2\. Build it under"):
        build_cache(built, manifest, SPEC, in_process)


def test_a_stream_may_have_any_name(built, manifest, in_process):
    renamed = CacheSpec(block_rows=8, streams=(SizeSpec(name="extent"),))
    build_cache(built, manifest, renamed, in_process)
    streams = open_cache(built).streams
    assert streams["extent"].digest == streams["size"].digest


def test_all_streams_of_a_cache_see_the_same_pictures(built, manifest, in_process):
    other = CacheSpec(block_rows=8, streams=(SizeSpec(name="new"),), decode=DecodeSpec(max_pixels=9))
    with pytest.raises(
        StaleCacheError,
        match=r"^mean_colour was cached with decode.max_pixels \d+, the spec now says 9, and all streams of a cache "
        r"see the same pictures\. Build into another path, or drop it first: .* mean_colour \| size was cached with",
    ):
        build_cache(built, manifest, other, in_process)


def test_faces_do_not_matter_to_streams_that_look_at_none(built, manifest):
    other = CacheSpec(block_rows=8, streams=SPEC.streams, face=FaceSpec(min_confidence=0.7))
    assert plan_build(built, manifest, other).missing == []


def test_other_samples_and_blocks_are_stale(built, manifest, in_process):
    fewer = Manifest(manifest.table[1:], manifest.classes, manifest.root, manifest.info)
    with pytest.raises(
        StaleCacheError, match=r"holds 40 rows, the dataset now has 39; no longer among them: 1 sample \(fear/00\)"
    ):
        build_cache(built, fewer, SPEC, in_process)
    with pytest.raises(StaleCacheError, match="has blocks of 8 rows, the spec now says 4"):
        build_cache(built, manifest, CacheSpec(block_rows=4, streams=SPEC.streams), in_process)


def test_a_spec_without_a_size_of_blocks_takes_that_of_the_cache(built, tmp_path, manifest, in_process):
    spec = CacheSpec(streams=SPEC.streams)
    assert build_cache(built, manifest, spec, in_process).rows == 0
    assert open_cache(built).layout.block_rows == 8
    build_cache(tmp_path / "new.zarr", manifest, spec, in_process)
    assert open_cache(tmp_path / "new.zarr").layout.block_rows == 256


def test_relabelling_costs_no_extraction(built, manifest, in_process, contents, extracted):
    before = contents(built)
    table = manifest.table.with_columns(label=pl.lit("joy"))
    build_cache(built, Manifest(table, manifest.classes, manifest.root, manifest.info), SPEC, in_process)
    assert extracted == []
    assert contents(built) == before
    assert set(open_cache(built).labels) == {manifest.classes.index("joy")}


def test_bad_rows_of_the_manifest_are_unreadable_and_not_opened(tmp_path, manifest, in_process):
    problem = ["path leaves the root" if row == 4 else None for row in range(40)]
    table = manifest.table.with_columns(problem=pl.Series(problem, dtype=pl.String))
    summary = build_cache(
        tmp_path / "features.zarr", Manifest(table, manifest.classes, manifest.root, manifest.info), SPEC, in_process
    )
    assert summary.counts["size"] == {"ok": 38, "unreadable": 2}
    assert open_cache(tmp_path / "features.zarr").streams["size"].status[4, 0] == Status.UNREADABLE


@pytest.mark.parametrize(
    "path", ["../secret.png", "{outside}", "fear/../../secret.png", "link.png", "out/secret.png", "far/../secret.png"]
)
def test_a_manifest_cannot_lead_out_of_the_root_of_its_dataset(tmp_path, in_process, path):
    """Not by its text and not by links: it may have come with a cache from anywhere."""
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGB", (6, 9), (1, 2, 3)).save(root / "own.png")
    Image.new("RGB", (6, 9), (66, 66, 66)).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "out").symlink_to(tmp_path)
    (tmp_path / "off").mkdir()
    (root / "far").symlink_to(tmp_path / "off")
    table = pl.DataFrame(
        {
            "sample_id": ["own", "secret"],
            "path": ["own.png", path.format(outside=tmp_path / "secret.png")],
            "split": ["train", "train"],
            "label": ["joy", "joy"],
            "problem": [None, None],
        },
        schema_overrides={"problem": pl.String},
    )
    build_cache(tmp_path / "features.zarr", Manifest(table, ("joy",), root, {}), SPEC, in_process)
    stream = open_cache(tmp_path / "features.zarr").streams["mean_colour"]
    assert stream.status[:, 0].tolist() == [Status.OK, Status.UNREADABLE]
    assert stream.reasons()[1, 0] == "path leaves the root"


def test_links_to_the_content_of_a_dataset_are_held_against_the_same_rule_as_it_was_listed_by(tmp_path, in_process):
    """A link that is turned elsewhere after the dataset was listed is not followed."""
    root, blobs = tmp_path / "repo/snapshots/4f2a", tmp_path / "repo/blobs"
    (root / "joy").mkdir(parents=True)
    blobs.mkdir()
    Image.new("RGB", (6, 9), (66, 66, 66)).save(tmp_path / "secret.png")
    for row in range(4):
        Image.new("RGB", (6, 9), (row, 2, 3)).save(blobs / f"{row}", format="PNG")
        (root / f"joy/{row}.png").symlink_to(f"../../../blobs/{row}")
    manifest = read_dataset(FolderSpec(root=root, split=StratifiedSplit(train=0.5, val=0.25, test=0.25)))
    (blobs / "2").unlink()
    (blobs / "2").symlink_to(tmp_path / "secret.png")
    build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    stream = open_cache(tmp_path / "features.zarr").streams["mean_colour"]
    assert stream.status[:, 0].tolist() == [Status.OK, Status.OK, Status.UNREADABLE, Status.OK]
    assert stream.reasons()[2, 0] == "path leaves the root"
    found = compare_sample(tmp_path / "features.zarr", 4, streams=SPEC.streams)
    assert (found.rows, found.differences) == (4, ())


def test_why_a_row_has_no_features_is_kept_in_the_cache(tmp_path, manifest, in_process, face):
    problem = ["path leaves the root" if row == 4 else None for row in range(40)]
    table = manifest.table.with_columns(problem=pl.Series(problem, dtype=pl.String))
    marked = Manifest(table, manifest.classes, manifest.root, manifest.info)
    spec = CacheSpec(block_rows=8, streams=(NothingSeenSpec(), NoFaceSeenSpec(), SizeSpec()), face=face)
    summary = build_cache(tmp_path / "features.zarr", marked, spec, in_process)
    streams = open_cache(tmp_path / "features.zarr").streams
    unread = {4: "path leaves the root", 9: summary.problems[0].reason}
    assert unread[9].startswith("no picture of a known format")
    for name, plain in (("size", ""), ("nothing_seen", "nothing detected"), ("no_face_seen", "no face found")):
        expected = [unread.get(row, plain) for row in range(40)]
        if name != "size":
            expected[12] = "ZeroDivisionError: row 12"
        assert streams[name].reasons()[:, 0].tolist() == expected


def test_a_block_that_fails_does_not_cost_the_others(tmp_path, manifest, in_process):
    path = tmp_path / "features.zarr"
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10, how="raise"),))
    with pytest.raises(
        StreamError,
        match=r"^1 of 5 blocks failed: rows 8-15 \(block 1\): StreamError: the wrong shade of red\. "
        r"Finished blocks are kept; run the same build again when the cause is removed\.",
    ) as raised:
        build_cache(path, manifest, spec, in_process)
    assert "in the worker:\nTraceback" in raised.value.__notes__[0]
    assert open_cache(path).streams["deadly"].lacking_blocks().tolist() == [1]


def test_a_build_that_keeps_failing_is_given_up(tmp_path, manifest, in_process, monkeypatch, extracted):
    def refuse(*args, **values):
        raise CacheError("no space left on device")

    monkeypatch.setattr(emofuse.extraction.worker, "write_block", refuse)
    with pytest.raises(CacheError, match=r"^3 of 5 blocks failed, then it was given up: rows 0-7 .*: no space left"):
        build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    assert len(extracted) == 3


def test_a_disk_that_is_full_is_not_tried_with_the_next_block(tmp_path, manifest, in_process, monkeypatch, extracted):
    def refuse(*args, **values):
        raise UnwritableCacheError("the disk is full")

    monkeypatch.setattr(emofuse.extraction.worker, "write_block", refuse)
    with pytest.raises(UnwritableCacheError, match=r"^1 of 5 blocks failed, then it was given up: rows 0-7 .*: the d"):
        build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    assert len(extracted) == 1


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path, manifest, in_process, monkeypatch, extracted):
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - what shutil returns
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 100))
    with pytest.raises(CacheError, match=r"missing blocks take 0\.00 GB, 0\.00 GB are free on this disk\. Make room"):
        build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    assert extracted == []


def test_problems_are_kept_to_a_number_whatever_the_dataset(tmp_path, manifest, in_process, monkeypatch):
    monkeypatch.setattr("emofuse.extraction.tally._KEPT_PROBLEMS", 5)
    gone = Manifest(manifest.table, manifest.classes, tmp_path / "moved", manifest.info)
    summary = build_cache(tmp_path / "features.zarr", gone, SPEC, in_process)
    assert (len(summary.problems), summary.problem_count) == (5, 40)
    assert summary.counts["size"] == {"unreadable": 40}


def test_the_extractor_is_opened_once_for_all_blocks_and_closed(tmp_path, manifest, in_process, monkeypatch):
    opened = []
    extractor = emofuse.extraction.worker.Extractor
    monkeypatch.setattr(
        emofuse.extraction.worker, "Extractor", lambda *args, **options: opened.append(1) or extractor(*args, **options)
    )
    build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    assert opened == [1]
    assert emofuse.extraction.worker._opened == []


def test_paths_are_listed_block_by_block(manifest, tmp_path):
    tasks = plan_build(tmp_path / "features.zarr", manifest, SPEC).tasks()
    first = next(tasks)
    assert (first.block, first.start, len(first.sources)) == (0, 0, 8)
    assert first.sources[0] == Source(manifest.root / "fear" / "00.png")
    assert str(first) == "rows 0-7 (block 0)"


def test_a_lost_manifest_is_written_anew(built, manifest, in_process):
    manifest_path(built).unlink()
    build_cache(built, manifest, SPEC, in_process)
    assert len(open_cache(built)) == 40
