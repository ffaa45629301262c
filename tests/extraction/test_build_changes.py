"""The dataset changes under a cache: images are replaced, rows come, go, move and are relabelled."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr
from cheap_streams import MeanColourSpec, SizeSpec
from PIL import Image
from shaped_streams import StripsSpec, ThumbnailSpec

import emofuse.extraction.run
import emofuse.extraction.worker
from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.checksum import crc32c
from emofuse.datasets import list_dataset, read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.sources import Source
from emofuse.errors import StaleCacheError, UnwritableCacheError
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.extraction import build_cache, changes, plan_build
from emofuse.specs import CacheSpec, FolderSpec, StratifiedSplit
from emofuse.status import Status
from emofuse.stores import as_path
from emofuse.upkeep import repair_cache, retry_rows
from emofuse.upkeep.verify import verify_cache

STREAMS = (MeanColourSpec(), SizeSpec(), StripsSpec(), ThumbnailSpec())
SPEC = CacheSpec(block_rows=8, streams=STREAMS)


@pytest.fixture
def root(tmp_path, images) -> Path:
    """Pictures of the test's own: forty, of which fear/09 is none."""
    shutil.copytree(images, tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "features.zarr"


@pytest.fixture
def build(root, path, in_process):
    """Reads the dataset as it is now and builds."""

    def run(spec: CacheSpec = SPEC, **changed):
        return build_cache(path, read(root), spec.model_copy(update=changed), in_process)

    run()
    return run


def read(root: Path, on_bad_rows: str = "raise") -> Manifest:
    return read_dataset(FolderSpec(root=root, split=StratifiedSplit()), on_bad_rows=on_bad_rows)


def draw(file: Path, red: int, size=(9, 6)) -> None:
    Image.new("RGB", size, (red, 2 * red % 256, 200)).save(file)


@pytest.fixture
def undisturbed(tmp_path, root, in_process, contents):
    """Contents of a cache built at once from the dataset as it is now; with `first`, rows in this order."""

    def build_anew(manifest: Manifest | None = None, spec: CacheSpec = SPEC):
        shutil.rmtree(tmp_path / "anew", ignore_errors=True)
        build_cache(tmp_path / "anew" / "features.zarr", manifest or read(root), spec, in_process)
        return contents(tmp_path / "anew" / "features.zarr")

    return build_anew


@pytest.fixture
def computed(monkeypatch, build) -> list[tuple[int, tuple[str, ...]]]:
    """(block, streams) of every block that is computed from now on."""
    calls = []
    compute = emofuse.extraction.worker._compute_block
    monkeypatch.setattr(
        emofuse.extraction.worker,
        "_compute_block",
        lambda job, task: calls.append((task.block, task.streams)) or compute(job, task),
    )
    return calls


ALL = ("mean_colour", "size", "strips", "thumbnail")


def test_nothing_changed(build, computed, path):
    before = manifest_path(path).read_bytes()
    summary = build()
    assert (summary.changes, computed) == ((), [])
    assert manifest_path(path).read_bytes() == before


def test_the_files_that_were_extracted_are_known_to_the_cache(build, path, root):
    files = open_cache(path).manifest.files
    stats = [(root / name).stat() for name in open_cache(path).manifest.table["path"]]
    assert files["bytes"].to_list() == [stat.st_size for stat in stats]
    assert files["modified_ns"].to_list() == [stat.st_mtime_ns for stat in stats]
    assert files["crc32c"].null_count() == 0
    assert files["crc32c"][9] == changes.source_sum(Source(root / "fear/09.png"))


def test_a_replaced_image_is_named_and_its_block_computed_again(build, computed, path, root, contents, undisturbed):
    draw(root / "fear/03.png", 200)
    draw(root / "joy/20.png", 100, (20, 4))
    summary = build()
    assert summary.changes == ("replaced: 2 samples (fear/03, joy/20); their blocks are computed again",)
    assert computed == [(0, ALL), (2, ALL)]
    assert contents(path) == undisturbed()
    assert build().changes == ()


def test_an_image_of_the_same_length_is_noticed_by_its_time_and_bytes(build, computed, path, root):
    file = root / "fear/03.png"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    assert build().changes == ("replaced: 1 sample (fear/03); their blocks are computed again",)
    assert open_cache(path).streams["size"].status[3, 0] == Status.UNREADABLE


def test_a_copied_dataset_with_other_times_costs_one_look_at_its_bytes(build, computed, path, root):
    for file in root.rglob("*.png"):
        os.utime(file)
    assert build().changes == ("written again with the same bytes: 40 samples (fear/00, fear/01, fear/02, ...)",)
    assert computed == []
    assert build().changes == ()


def test_files_whose_time_did_not_change_are_not_read(build, computed, monkeypatch, root):
    asked = []
    monkeypatch.setattr(changes, "source_sum", asked.append)
    os.utime(root / "fear/05.png")
    build()
    assert asked == [Source(root / "fear/05.png")]


def test_without_a_sum_another_time_counts_as_another_image(build, computed, path, root):
    manifest = open_cache(path).manifest
    files = manifest.files.with_columns(pl.lit(None, pl.Int64).alias("crc32c"))
    Manifest(manifest.table, manifest.classes, manifest.root, manifest.info, files).write(manifest_path(path))
    os.utime(root / "fear/05.png")
    assert build().changes == ("replaced: 1 sample (fear/05); their blocks are computed again",)
    assert computed == [(0, ALL)]


def test_views_of_a_replaced_image_are_computed_again_too(build, path, root, contents, undisturbed):
    two = CacheSpec(block_rows=8, views=2, streams=STREAMS)
    build(two)
    draw(root / "fear/03.png", 200)
    assert build(two).rows == 16
    assert contents(path) == undisturbed(spec=two)


def test_streams_that_the_spec_leaves_out_lose_the_blocks_of_replaced_images_too(
    build, path, root, contents, undisturbed
):
    draw(root / "fear/03.png", 200)
    build(CacheSpec(block_rows=8, streams=(SizeSpec(),)))
    assert open_cache(path).streams["mean_colour"].lacking_blocks().tolist() == [0]
    build()
    assert contents(path) == undisturbed()


def test_imported_vectors_of_a_replaced_image_stay(build, path, root, tmp_path, computed):
    """No build makes them, so a block that was taken back would be lost."""
    ids = open_cache(path).sample_ids
    np.savez(tmp_path / "x.npz", features=np.arange(80.0).reshape(40, 2), sample_ids=ids)
    import_stream(path, ImportRequest(tmp_path / "x.npz", "clip_vit"))
    draw(root / "fear/03.png", 200)
    build()
    assert computed == [(0, ALL)]
    np.testing.assert_array_equal(open_cache(path).streams["clip_vit"].read()[0], np.arange(80).reshape(40, 2))


def test_appended_rows_extend_the_arrays(build, computed, path, root, contents, undisturbed):
    for row in range(3):
        draw(root / f"joy/{40 + row}.png", 40 + row)
    summary = build()
    assert summary.changes[0] == "new, behind those that there are: 3 samples (joy/40, joy/41, joy/42)"
    assert computed == [(5, ALL)]
    assert contents(path) == undisturbed()
    assert len(open_cache(path)) == 43
    assert verify_cache(path).faults == ()


def test_a_short_last_block_is_computed_again_and_the_others_are_kept(
    tmp_path, path, root, in_process, contents, undisturbed
):
    spec = CacheSpec(block_rows=16, streams=STREAMS)  # 40 rows: 16, 16, 8
    build_cache(path, read(root), spec, in_process)
    for row in range(20):
        draw(root / f"joy/{40 + row}.png", 40 + row)
    kept = {file: file.stat().st_mtime_ns for file in path.glob("streams/*/*/c.[01].*")}
    assert build_cache(path, read(root), spec, in_process).rows == 28
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert contents(path) == undisturbed(spec=spec)
    assert verify_cache(path).faults == ()


def test_rows_that_come_in_between_are_put_behind(build, computed, path, root, contents, undisturbed):
    before = open_cache(path).sample_ids.tolist()
    draw(root / "fear/00b.png", 77)
    summary = build()
    assert summary.changes[0] == "new, behind those that there are: 1 sample (fear/00b)"
    assert computed == [(5, ALL)]
    cache = open_cache(path)
    assert cache.sample_ids.tolist() == [*before, "fear/00b"]
    assert cache.streams["mean_colour"].read()[0][40].tolist() == [77, 154, 200]
    assert contents(path) == undisturbed(cache.manifest)
    assert build().changes == ("another order in the dataset: the cache keeps its own",)


def test_another_order_is_named_and_costs_nothing(build, computed, path, root, in_process):
    before = open_cache(path)
    manifest = read(root)
    turned = Manifest(manifest.table[::-1], manifest.classes, manifest.root, manifest.info, manifest.files[::-1])
    summary = build_cache(path, turned, SPEC, in_process)
    assert summary.changes == ("another order in the dataset: the cache keeps its own",)
    assert computed == []
    assert open_cache(path).manifest.equals(before.manifest)


def test_removed_rows_are_an_error_that_names_them(build, path, root, contents):
    before = contents(path)
    (root / "fear/03.png").unlink()
    (root / "joy/20.png").unlink()
    with pytest.raises(
        StaleCacheError,
        match=r"holds 40 rows, the dataset now has 38; no longer among them: 2 samples \(fear/03, joy/20\)\. Rows "
        r"cannot be taken out of a cache: keep those of the deleted samples, out of every split, with --on-bad-rows "
        r"keep; or put the samples back; or build into another path\.$",
    ):
        build()
    assert contents(path) == before


def test_deleted_samples_keep_their_rows_in_no_split_when_that_is_asked_for(build, computed, path, root, in_process):
    (root / "fear/03.png").unlink()
    kept = replace(in_process, keep_gone=True)
    summary = build_cache(path, read(root), SPEC, kept)
    assert "no longer in the dataset: 1 sample (fear/03); kept, in no split" in summary.changes
    cache = open_cache(path)
    assert len(cache) == 40
    assert cache.manifest.table.row(3, named=True) == {
        "sample_id": "fear/03", "path": "fear/03.png", "split": None, "label": None, "group": None,
        "problem": "no longer in the dataset",
    }  # fmt: skip
    note = "rows that are no longer in the dataset, kept in the cache and in no split: 1 sample (fear/03)"
    assert cache.manifest.info["notes"][-1] == note
    assert build().changes == ()  # asked once, known ever after
    assert computed == []


def test_another_dataset_is_an_error_even_if_bad_rows_are_kept(build, path, root, tmp_path, in_process):
    for number in range(3):
        (tmp_path / "other/cats").mkdir(parents=True, exist_ok=True)
        draw(tmp_path / f"other/cats/{number}.png", number, size=(40, 30))
    with pytest.raises(StaleCacheError, match="this is another dataset, so build into another path"):
        build_cache(path, read(tmp_path / "other"), SPEC, replace(in_process, keep_gone=True))


def test_a_second_file_with_a_stem_renames_no_row_of_the_cache(build, computed, path, root, undisturbed):
    before = open_cache(path).manifest.table["sample_id"].to_list()
    Image.new("RGB", (9, 6), "red").save(root / "fear/03.jpg")
    summary = build()
    assert [line for line in summary.changes if "new" in line] == [
        "new, behind those that there are: 1 sample (fear/03.jpg)"
    ]
    ids = open_cache(path).manifest.table["sample_id"].to_list()
    assert ids == [*before, "fear/03.jpg"]
    assert {block for block, _ in computed} == {5}
    computed.clear()
    (root / "fear/03.jpg").rename(root / "joy/03.bmp")  # and back to one stem
    build()
    assert open_cache(path).manifest.table["sample_id"].to_list() == ids
    assert computed == []


def test_a_picture_moved_to_another_label_keeps_row_id_and_features(build, computed, path, root, contents):
    before = contents(path)
    (root / "fear/03.png").rename(root / "joy/zz.png")
    build()
    row = open_cache(path).manifest.table.row(3, named=True)
    assert (row["sample_id"], row["path"], row["label"]) == ("fear/03", "joy/zz.png", "joy")
    assert computed == []
    assert len(open_cache(path)) == 40
    assert contents(path).keys() == before.keys()
    draw(root / "fear/03.png", 77, size=(50, 40))  # a new picture where the old one was
    build()
    table = open_cache(path).manifest.table
    assert table["sample_id"].to_list()[3::37] == ["fear/03", "fear/03.png"]
    assert table["path"].to_list()[3::37] == ["joy/zz.png", "fear/03.png"]


def test_a_manifest_that_nobody_can_compare_with_is_an_error_if_the_samples_are_others(build, path, root):
    manifest_path(path).unlink()
    draw(root / "joy/40.png", 40)
    with pytest.raises(
        StaleCacheError, match="holds 40 rows of other samples than the dataset's 41, and which they are"
    ):
        build()


def relabelled(manifest: Manifest, **columns) -> Manifest:
    return Manifest(
        manifest.table.with_columns(**columns), manifest.classes, manifest.root, manifest.info, manifest.files
    )


def test_changes_that_a_read_only_cache_cannot_take_are_an_error(build, path, root, in_process, monkeypatch):
    def refuse(_):
        raise UnwritableCacheError("it is read-only")

    monkeypatch.setattr(emofuse.extraction.run, "lock_cache", refuse)
    assert build().describe() == "complete, nothing to do"
    with pytest.raises(UnwritableCacheError, match="it is read-only"):
        build_cache(path, relabelled(read(root), split=pl.lit("train")), SPEC, in_process)


def test_labels_and_splits_are_named_and_cost_nothing(build, computed, path, root, in_process):
    is_first = pl.int_range(pl.len()) < 2
    changed = relabelled(
        read(root),
        label=pl.when(is_first).then(pl.lit("joy")).otherwise("label"),
        split=pl.lit("train"),
    )
    summary = build_cache(path, changed, SPEC, in_process)
    assert summary.changes[0] == "another label: 2 samples (fear/00, fear/01)"
    assert summary.changes[1].startswith("another split: ")
    assert computed == []
    assert set(open_cache(path).splits) == {"train"}


def test_a_moved_dataset_is_named_and_costs_nothing(build, computed, path, root, in_process):
    shutil.copytree(root, root.parent / "elsewhere")  # keeps the times
    summary = build_cache(path, read(root.parent / "elsewhere"), SPEC, in_process)
    assert summary.changes == (f"moved from {root} to {root.parent / 'elsewhere'}",)
    assert computed == []


def test_images_that_are_gone_keep_their_features_and_are_computed_when_they_are_back(
    build, computed, path, root, in_process
):
    manifest = read(root)
    (root / "fear/03.png").rename(root / "kept.away")
    problem = pl.when(pl.col("sample_id") == "fear/03").then(pl.lit("missing file")).otherwise("problem")
    files = manifest.files.with_columns(pl.when(pl.int_range(pl.len()) != 3).then(pl.all()))
    gone = Manifest(manifest.table.with_columns(problem=problem), manifest.classes, manifest.root, manifest.info, files)
    summary = build_cache(path, gone, SPEC, in_process)
    assert summary.changes == ("no longer readable (missing file): 1 sample (fear/03); their features are kept",)
    assert computed == []
    assert open_cache(path).streams["size"].status[3, 0] == Status.OK
    (root / "kept.away").rename(root / "fear/03.png")
    assert build().changes == ("replaced: 1 sample (fear/03); their blocks are computed again",)


def test_a_manifest_that_knows_no_files_changes_nothing(build, computed, path, root, in_process):
    manifest = read(root)
    blind = Manifest(manifest.table, manifest.classes, manifest.root, manifest.info)
    before = open_cache(path).manifest.files
    assert build_cache(path, blind, SPEC, in_process).changes == ()
    assert open_cache(path).manifest.files.equals(before)


@pytest.mark.parametrize("killed_in", ["discard_blocks", "write", "resize", "update_group"])
def test_killed_while_changes_are_adopted_goes_on(build, path, root, contents, undisturbed, monkeypatch, killed_in):
    draw(root / "fear/03.png", 200)
    for row in range(11):
        draw(root / f"joy/{40 + row}.png", 40 + row)

    def after(function):
        def run(*arguments, **options):
            function(*arguments, **options)
            raise KeyboardInterrupt

        return run

    where = {"discard_blocks": changes, "update_group": changes, "write": Manifest, "resize": zarr.Array}[killed_in]
    monkeypatch.setattr(where, killed_in, after(getattr(where, killed_in)))
    with pytest.raises(KeyboardInterrupt):
        build()
    monkeypatch.undo()
    lost = open_cache(path)
    assert len(lost) == (51 if killed_in == "update_group" else 40)
    assert lost.streams["size"].status.shape == (len(lost), 1)
    build()
    assert contents(path) == undisturbed()
    assert verify_cache(path).faults == ()


def test_a_plan_counts_what_changes_cost_and_writes_nothing(build, path, root, contents):
    before = contents(path), manifest_path(path).read_bytes()
    draw(root / "fear/03.png", 200)
    draw(root / "joy/40.png", 40)
    plan = plan_build(path, read(root), SPEC)
    assert [missing.block for missing in plan.missing] == [0, 5]
    assert (plan.rows, len(plan.changes.lines)) == (9, 3)
    assert (contents(path), manifest_path(path).read_bytes()) == before


def test_an_image_replaced_between_two_streams_of_a_block_is_noticed(
    build, path, root, in_process, contents, undisturbed
):
    """It is replaced after the dataset was read, so only its bytes tell."""
    manifest = read(root)
    draw(root / "fear/03.png", 200)
    spec = CacheSpec(block_rows=8, streams=(*STREAMS, MeanColourSpec(name="half", scale=0.5)))
    with pytest.raises(
        StaleCacheError,
        match=r"files replaced after some of their features had been extracted: 1 \(fear/03\)\. Their blocks were "
        r"taken back \(1\): run the same build again\.$",
    ):
        build_cache(path, manifest, spec, in_process)
    assert open_cache(path).streams["size"].lacking_blocks().tolist() == [0]
    build(spec)
    assert contents(path) == undisturbed(spec=spec)


def test_every_file_is_read_once_and_its_sum_is_that_of_the_bytes_that_were_decoded(
    path, root, in_process, monkeypatch
):
    """The file of row 3 is replaced as soon as it was read."""
    read_bytes, opened = Path.read_bytes, []

    def replace_at_once(file):
        data = read_bytes(file)
        if file.suffix == ".png":
            opened.append(file.relative_to(root).as_posix())
            if file.name == "03.png":
                draw(file, 200)
        return data

    manifest, before = read(root), (root / "fear/03.png").read_bytes()
    monkeypatch.setattr(Path, "read_bytes", replace_at_once)
    build_cache(path, manifest, SPEC, in_process)
    monkeypatch.undo()
    assert sorted(opened) == manifest.table["path"].sort().to_list()
    assert open_cache(path).manifest.files["crc32c"][3] == crc32c(before)


def test_an_image_replaced_while_it_is_extracted_is_noticed_by_the_next_build(
    path, root, in_process, contents, undisturbed, monkeypatch
):
    extract = emofuse.extraction.worker._extract

    def extract_in_time(*arguments):
        task, found = arguments[1], extract(*arguments)
        if task.block == 0:
            draw(root / "fear/03.png", 200)
        return found

    monkeypatch.setattr(emofuse.extraction.worker, "_extract", extract_in_time)
    build_cache(path, read(root), SPEC, in_process)
    monkeypatch.undo()
    summary = build_cache(path, read(root), SPEC, in_process)
    assert summary.changes == ("replaced: 1 sample (fear/03); their blocks are computed again",)
    assert contents(path) == undisturbed()


def test_a_repair_does_not_mix_an_image_with_its_successor(build, path, root, in_process):
    draw(root / "fear/03.png", 200)
    chunk = path / "streams/size/features/c.0.0.0"
    chunk.write_bytes(b"?" * chunk.stat().st_size)
    with pytest.raises(StaleCacheError, match=r"files replaced after some of their features had been extracted: 1"):
        repair_cache(path, in_process, streams=STREAMS)
    assert open_cache(path).streams["mean_colour"].lacking_blocks().tolist() == [0]


def test_a_picture_that_was_repaired_may_be_retried(build, path, root, in_process, contents, undisturbed):
    draw(root / "fear/09.png", 9)
    assert retry_rows(path, options=in_process, streams=STREAMS).written == 1
    assert contents(path) == undisturbed()
    assert build().changes == ()


def test_bad_rows_that_are_good_now_are_computed(tmp_path, path, root, in_process, contents, undisturbed):
    file = root / "fear/03.png"
    data = file.read_bytes()
    file.write_bytes(b"")
    listing = list_dataset(FolderSpec(root=root, split=StratifiedSplit()))
    assert listing.bad_count == 1
    build_cache(path, listing.manifest, SPEC, in_process)
    assert open_cache(path).streams["size"].reasons()[3, 0].endswith("empty file")
    file.write_bytes(data)
    summary = build_cache(path, read(root), SPEC, in_process)
    assert summary.changes == ("replaced: 1 sample (fear/03); their blocks are computed again",)
    assert contents(path) == undisturbed()


def test_what_the_files_were_is_kept_when_a_build_is_interrupted(path, root, in_process, monkeypatch):
    compute = emofuse.extraction.worker._compute_block

    def stop_after_two(job, task):
        if task.block == 2:
            raise KeyboardInterrupt
        return compute(job, task)

    monkeypatch.setattr(emofuse.extraction.worker, "_compute_block", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        build_cache(path, read(root), SPEC, in_process)
    files = open_cache(path).manifest.files
    assert files["bytes"].null_count() == 0
    assert files["crc32c"].is_not_null().to_list() == [row < 16 for row in range(40)]


def test_images_on_a_store_are_noticed_by_length_and_time(s3_bucket, path, root, in_process):
    there = as_path(s3_bucket) / "pictures"
    for file in sorted(root.rglob("*.png"))[:12]:
        (there / file.relative_to(root)).write_bytes(file.read_bytes())
    spec = FolderSpec(root=str(there), split=StratifiedSplit())
    build_cache(path, read_dataset(spec), SPEC, in_process)
    assert build_cache(path, read_dataset(spec), SPEC, in_process).changes == ()
    draw(root / "fear/03.png", 200, (20, 4))
    (there / "fear/03.png").write_bytes((root / "fear/03.png").read_bytes())
    summary = build_cache(path, read_dataset(spec), SPEC, in_process)
    assert summary.changes == ("replaced: 1 sample (fear/03); their blocks are computed again",)
    assert open_cache(path).streams["mean_colour"].read()[0][3, 0] == 200


def test_attributes_that_runs_may_learn_are_named_and_cost_nothing(build, computed, path, root, in_process):
    rows = pl.int_range(pl.len())
    valence = (rows / 40).alias("valence")
    votes = pl.concat_list(rows, rows).alias("votes")
    with_both = relabelled(read(root), valence=valence, votes=votes)
    assert "new attributes: valence, votes" in build_cache(path, with_both, SPEC, in_process).changes
    other = relabelled(with_both, valence=pl.when(rows < 2).then(pl.lit(0.5)).otherwise("valence"))
    assert "another valence: 2 samples (fear/00, fear/01)" in build_cache(path, other, SPEC, in_process).changes
    text = relabelled(other, valence=pl.col("valence").cast(pl.String))
    lines = build_cache(path, text, SPEC, in_process).changes
    assert "attribute 'valence' has the type String now, it had Float64" in lines
    assert "attributes that are gone: valence, votes" in build().changes
    assert computed == []
