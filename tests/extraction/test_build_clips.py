"""Clips are built, resumed, verified, repaired, exported, merged and kept on stores as pictures are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from clip_corpus import DAMAGED, ROWS, SILENT, SPAN, SPEC, read_corpus, write_corpus
from clip_streams import GreySpec, LoudnessSpec
from media_files import write_clip, write_sound

from emofuse.cache.reader import open_cache
from emofuse.datasets.sources import Source
from emofuse.errors import CacheError, StaleCacheError, StoreError
from emofuse.exchange.export import check_format, export_cache
from emofuse.exchange.merge import merge_caches
from emofuse.extraction import BuildOptions, build_cache, estimate_build, isolation, plan_build
from emofuse.extraction.tasks import BuildJob
from emofuse.media.audio import read_sound
from emofuse.media.video import read_clip
from emofuse.specs import ActionUnitsSpec, CacheSpec, ClipSpec, DecodeSpec, FaceSpec
from emofuse.status import Status, Step
from emofuse.stores import as_path, file_sizes
from emofuse.streams.extractor import Extractor
from emofuse.streams.mfcc import MfccSpec
from emofuse.streams.speech import SpeechSpec
from emofuse.upkeep import retry_rows
from emofuse.upkeep.sample import compare_sample
from emofuse.upkeep.verify import verify_cache

SCRIPT = Path(__file__).parents[1] / "builds" / "clip_build_script.py"
SEQUENCES = ("grey", "pixels")
ALL = ("grey", "pixels", "loudness", "motion")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def clip_manifest(clips):
    return read_corpus(clips)


@pytest.fixture
def own_clips(clips, tmp_path):
    """A copy of the corpus that a test may change."""
    return Path(shutil.copytree(clips, tmp_path / "clips"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.zarr"


@pytest.fixture
def built(path, clip_manifest, in_process):
    build_cache(path, clip_manifest, SPEC, in_process)
    return path


@pytest.fixture
def undisturbed(tmp_path, clip_manifest, in_process, contents):
    build_cache(tmp_path / "undisturbed.zarr", clip_manifest, SPEC, in_process)
    return contents(tmp_path / "undisturbed.zarr")


def test_every_clip_has_the_rows_that_its_frames_gave(built, clips):
    streams = open_cache(built).streams
    assert {name: (stream.shape, stream.dimensions) for name, stream in streams.items()} == {
        "grey": ((4, 2), ("time", "feature")),
        "pixels": ((4, 3, 3, 4), ("time", "channel", "y", "x")),
        "loudness": ((2,), ("feature",)),
        "motion": ((1,), ("feature",)),
    }
    with Extractor(SPEC.streams, SPEC, device="cpu") as extractor:
        alone = extractor.extract([Source(clips / "03.mp4")]).rows
    for name, stream in streams.items():
        features, status = stream.read()
        np.testing.assert_array_equal(features[3], alone[name].features[0])
        unreadable = [DAMAGED, SILENT] if name == "loudness" else [DAMAGED]
        assert np.flatnonzero(status == Status.UNREADABLE).tolist() == unreadable
        mask = stream.read_mask()
        assert (mask is None) == (name not in SEQUENCES)
        assert mask is None or (mask[DAMAGED] == Step.PADDING).all()
    assert streams["loudness"].reasons()[SILENT, 0] == "no audio track (its tracks: video)"
    assert streams["grey"].read_mask()[3].tolist() == [Step.NO_DETECTION] * 2 + [Step.OK] * 2
    assert streams["loudness"].read()[0][SPAN, 1] == pytest.approx(0.2, abs=1e-3)
    assert verify_cache(built).faults == ()


def test_a_killed_build_goes_on_to_the_same_bytes(path, clips, clip_manifest, in_process, contents, undisturbed):
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(clips), str(path), "0.15"])
    status = path / "streams" / "motion" / "status"
    end = time.monotonic() + 600
    while not list(status.glob("c.*")) and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 0 < plan_build(path, clip_manifest, SPEC).rows < ROWS
    build_cache(path, clip_manifest, SPEC, in_process)
    assert contents(path) == undisturbed


def test_an_estimate_knows_the_axis_of_time(path, clip_manifest, in_process):
    estimate = estimate_build(path, clip_manifest, SPEC, in_process)
    assert estimate.rows == ROWS
    build_cache(path, clip_manifest, SPEC, in_process)
    chunks = [file for name in ALL for array in ("features", "mask", "status", "flags")
              for file in (path / "streams" / name / array).glob("c.*")]  # fmt: skip
    assert estimate.bytes == sum(file.stat().st_size for file in chunks)


def test_a_block_of_clips_may_take_as_long_as_its_frames(path, clip_manifest, monkeypatch):
    """Twenty-four clips of four frames; the limit of a row alone grows too."""
    asked = []
    monkeypatch.setattr(isolation, "default_timeout_s", lambda pictures: asked.append(pictures) or 60.0)
    build_cache(path, clip_manifest, SPEC, BuildOptions(workers=1, device="cpu"))
    assert asked == [6 * 4] * 4


def test_a_sound_that_a_network_hears_may_take_longer_than_a_picture(path):
    def pictures(*streams, **options):
        spec = CacheSpec(streams=streams, **options)
        return BuildJob(path, spec, digests={}, device="cpu", one_thread=True).pictures_of_row

    speech = SpeechSpec(model="whisper-tiny.en")
    assert [pictures(speech), pictures(LoudnessSpec()), pictures(MfccSpec())] == [5, 1, 1]
    assert pictures(GreySpec(), speech, clip=ClipSpec(frames=4)) == 8


def test_workers_build_the_same_bytes(path, clip_manifest, undisturbed, contents):
    build_cache(path, clip_manifest, SPEC, BuildOptions(workers=1, device="cpu"))
    assert contents(path) == undisturbed


def test_rows_that_are_extracted_again_are_those_of_the_cache(built):
    comparison = compare_sample(built, ROWS, device="cpu", streams=SPEC.streams)
    assert comparison.rows == ROWS
    assert comparison.differences == ()
    assert set(comparison.largest.values()) == {0.0}


def test_another_choice_of_frames_is_another_cache(built, clip_manifest):
    other = SPEC.model_copy(update={"clip": ClipSpec(frames=8)})
    with pytest.raises(StaleCacheError, match=r"grey was cached with clip\.frames 4, the spec now says 8"):
        plan_build(built, clip_manifest, other)
    second = CacheSpec(block_rows=6, clip=ClipSpec(frames=8), streams=(GreySpec(name="second"),))
    with pytest.raises(StaleCacheError, match=r"all streams of a cache see the same frames"):
        plan_build(built, clip_manifest, second)
    loudness = CacheSpec(block_rows=6, streams=(LoudnessSpec(),))  # sounds do not depend on the frames
    assert plan_build(built, clip_manifest, loudness).rows == 0


def test_a_replaced_sound_or_clip_is_extracted_again_and_nothing_else(own_clips, path, in_process):
    build_cache(path, read_corpus(own_clips), SPEC, in_process)
    assert plan_build(path, read_corpus(own_clips), SPEC).rows == 0
    write_sound(own_clips / "20.wav", seconds=0.3, rate_hz=8000)
    plan = plan_build(path, read_corpus(own_clips), SPEC)
    assert plan.changes.replaced.tolist() == [20]
    write_clip(own_clips / "00.mp4", frames=8, sound="aac")
    assert plan_build(path, read_corpus(own_clips), SPEC).changes.replaced.tolist() == [0, 20]
    build_cache(path, read_corpus(own_clips), SPEC, in_process)
    features = open_cache(path).streams["loudness"].read()[0]
    assert features[20, 1] == pytest.approx(0.3, abs=1e-3)
    assert plan_build(path, read_corpus(own_clips), SPEC).rows == 0


def test_files_written_again_with_the_same_bytes_keep_their_features(own_clips, path, in_process):
    build_cache(path, read_corpus(own_clips), SPEC, in_process)
    for name in ("21.wav", "22.mp4", "01.mp4"):
        os.utime(own_clips / name, ns=(1, 1))
    plan = plan_build(path, read_corpus(own_clips), SPEC)
    assert plan.rows == 0
    assert plan.changes.lines[0].startswith("written again with the same bytes: 3 ")


def test_another_span_is_extracted_again(own_clips, path, in_process):
    build_cache(path, read_corpus(own_clips), SPEC, in_process)
    table = own_clips / "clips.csv"
    table.write_text(table.read_text().replace("0.1,0.3", "0.1,0.25"))
    manifest = read_corpus(own_clips)
    with pytest.raises(StaleCacheError, match=r"no longer among them: 1 sample \(08@0\.1-0\.3\)"):
        plan_build(path, manifest, SPEC)  # the id of a span names it: another span is another sample


def with_other_span(manifest):
    """The same samples under the same ids, as a dataset of one's own may name them, with another end of the span."""
    end = pl.when(pl.col("end_s").is_not_null()).then(0.25).alias("end_s")
    return replace(manifest, table=manifest.table.with_columns(end))


def test_another_span_under_the_same_id_is_extracted_again(built, clip_manifest, in_process):
    other = with_other_span(clip_manifest)
    assert plan_build(built, other, SPEC).changes.replaced.tolist() == [SPAN]
    build_cache(built, other, SPEC, in_process)
    assert open_cache(built).streams["loudness"].read()[0][SPAN, 1] == pytest.approx(0.15, abs=1e-3)
    assert plan_build(built, other, SPEC).rows == 0


def test_caches_of_other_spans_are_not_merged(tmp_path, clip_manifest, in_process, built):
    build_cache(
        tmp_path / "other.zarr",
        with_other_span(clip_manifest),
        SPEC.model_copy(update={"streams": (LoudnessSpec(name="second"),)}),
        in_process,
    )
    with pytest.raises(CacheError, match=r"another span or member of the file in 1 rows of .*other\.zarr, row 9 \(08@"):
        merge_caches(tmp_path / "merged.zarr", [built, tmp_path / "other.zarr"])


def test_a_moved_corpus_keeps_its_features(own_clips, path, tmp_path, in_process):
    build_cache(path, read_corpus(own_clips), SPEC, in_process)
    moved = own_clips.rename(tmp_path / "moved")
    assert plan_build(path, read_corpus(moved), SPEC).rows == 0


def test_rows_that_became_readable_are_retried(own_clips, path, in_process):
    build_cache(path, read_corpus(own_clips), SPEC, in_process)
    shutil.copy(own_clips / "02.mp4", own_clips / "05.mp4")
    retry_rows(path, options=in_process, streams=SPEC.streams)
    streams = open_cache(path).streams
    assert streams["grey"].status[DAMAGED, 0] == Status.OK
    assert streams["loudness"].status[DAMAGED, 0] == Status.OK
    assert streams["loudness"].status[SILENT, 0] == Status.UNREADABLE


@pytest.mark.parametrize("to", ["npz", "hdf5"])
def test_an_export_holds_sequences_and_masks(built, tmp_path, to):
    file = tmp_path / f"features.{to}"
    export_cache(open_cache(built), file, check_format(to))
    if to == "npz":
        with np.load(file) as exported:
            np.testing.assert_array_equal(
                exported["streams/grey/features"], open_cache(built).streams["grey"].read()[0]
            )
            np.testing.assert_array_equal(exported["streams/grey/mask"], open_cache(built).streams["grey"].read_mask())
    assert file.stat().st_size > 1000


def test_caches_of_two_halves_are_merged(tmp_path, clip_manifest, in_process, built):
    halves = []
    for name, streams in (("seen", SPEC.streams[:2]), ("heard", SPEC.streams[2:])):
        half = tmp_path / f"{name}.zarr"
        build_cache(half, clip_manifest, SPEC.model_copy(update={"streams": streams}), in_process)
        halves.append(half)
    merge_caches(tmp_path / "merged.zarr", halves)
    merged, whole = open_cache(tmp_path / "merged.zarr"), open_cache(built)
    for name in ALL:
        np.testing.assert_array_equal(merged.streams[name].read()[0], whole.streams[name].read()[0])
    assert merged.clip == {"frames": 4, "every": None, "over_time": "sequence"}
    assert verify_cache(tmp_path / "merged.zarr").faults == ()


def test_clips_and_their_cache_may_lie_on_a_store(s3_bucket, own_clips, built, in_process):
    root = as_path(s3_bucket) / "clips"
    for file in sorted(own_clips.iterdir()):
        (root / file.name).write_bytes(file.read_bytes())
    remote = as_path(s3_bucket) / "features.zarr"
    manifest = read_corpus(root)
    build_cache(str(remote), manifest, SPEC, in_process)
    for name, stream in open_cache(built).streams.items():
        again = open_cache(remote).streams[name]
        np.testing.assert_array_equal(again.read()[0], stream.read()[0])
        np.testing.assert_array_equal(again.status, stream.status)
    assert verify_cache(remote).faults == ()
    assert file_sizes(remote / "streams")


@pytest.mark.parametrize("read", [read_sound, lambda source: read_clip(source, ClipSpec(frames=2), DecodeSpec())])
def test_a_store_that_stays_away_is_an_error_and_no_unreadable_clip(s3_bucket, clips, refusing_store, read):
    path = as_path(s3_bucket) / "clip.mp4"
    path.write_bytes((clips / "00.mp4").read_bytes())
    source = Source(path, start_s=0.1)
    read(source)
    first = []
    with (
        refusing_store(lambda number: bool(first.append(number)) or len(first) > 2),
        pytest.raises(StoreError, match=r"clip\.mp4: the store cannot be used"),
    ):
        read(source)


REAL = """path,label,group,start_s,end_s
single_face.mp4,a,p1,,
WolfgangLanger_Pexels.mp4,b,p2,,
face_noface.mov,a,p3,,
no_face.mp4,b,p4,,
WolfgangLanger_Pexels.mp4,a,p2,0:00:05,7.5
"""


def test_real_clips_have_faces_where_a_face_is_seen(shared_data, tmp_path, path, in_process, session_face):
    """H.264 and HEVC, AAC and MP3. In clip 3 the face leaves and the sound comes, at 2.4 s; none in clip 4."""
    shutil.copytree(shared_data / "video", tmp_path / "clips")
    (tmp_path / "clips").chmod(0o755)
    (tmp_path / "clips" / "clips.csv").write_text(REAL)
    spec = CacheSpec(
        clip=ClipSpec(frames=16), face=FaceSpec(**session_face), streams=(ActionUnitsSpec(), LoudnessSpec())
    )
    build_cache(path, read_corpus(tmp_path / "clips"), spec, in_process)
    units, loudness = (open_cache(path).streams[name] for name in ("action_units", "loudness"))
    steps = (units.read_mask() == Step.OK).sum(axis=1)
    assert (steps[0], steps[1], steps[3], steps[4]) == (16, 16, 0, 16)
    assert 4 <= steps[2] <= 9
    assert units.status[:, 0].tolist() == [Status.OK] * 3 + [Status.NO_DETECTION, Status.OK]
    np.testing.assert_allclose(loudness.read()[0][:, 1], [2.42, 19.69, 6.40, 3.97, 2.5], atol=0.15)  # silence first
