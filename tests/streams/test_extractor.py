from __future__ import annotations

import sys
import threading
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from PIL import Image
from shaped_streams import SHAPES, Strips, StripsSpec

from emofuse.errors import StreamError
from emofuse.media.decode import read_image
from emofuse.specs import ActionUnitsSpec, CacheSpec, CustomStreamSpec, DecodeSpec, FaceSpec, LandmarksSpec, LbpSpec
from emofuse.status import Status, Step
from emofuse.streams import batches, make_stream, reading
from emofuse.streams import extractor as extractor_module
from emofuse.streams.base import NEEDS_IMAGE, Rows, Sample
from emofuse.streams.extractor import Extractor

OK, NO_DETECTION, UNREADABLE, FAILED = Status.OK, Status.NO_DETECTION, Status.UNREADABLE, Status.FAILED


class Level:
    """Mean level of a picture; `trick` says how it misbehaves, and on which level."""

    shape = (2,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = NEEDS_IMAGE
    flag_names = ("dark",)
    columns = ()

    def __init__(self, trick, at):
        self._trick = trick
        self._at = at
        self.calls = []
        self.closed = 0

    def extract(self, samples):
        levels = [round(float(sample.image.mean())) for sample in samples]
        self.calls.append(levels)
        rows = Rows.empty(len(samples), self.shape, self.dtype, OK)
        rows.features[:] = np.array(levels, dtype=np.float32).reshape(-1, 1)
        rows.flags[:] = [level < 50 for level in levels]
        for index, level in enumerate(levels):
            if self._at is not None and level != self._at:
                continue
            match self._trick:
                case "raise":
                    raise ArithmeticError(f"level {level}\n  is bad")
                case "huge":
                    rows.features[index, 1] = 1e6
                case "nan":
                    rows.features[index, 0] = np.nan
                case "failed":
                    rows.status[index] = FAILED
                case "pending":
                    rows.status[index] = Status.PENDING
                case "shape":
                    return Rows(rows.features[:, :1], rows.status, rows.flags)
                case "cannot run":
                    raise StreamError("no such device")
        return rows

    def close(self):
        self.closed += 1


class Slow(Level):
    """Waits until `go` is set."""

    def __init__(self, go):
        super().__init__("", None)
        self._go = go
        self.threads = set()

    def extract(self, samples):
        self.threads.add(threading.get_ident())
        if not self._go.wait(20):
            raise StreamError("nothing went on meanwhile")
        return super().extract(samples)


class LevelSpec(CustomStreamSpec):
    kind: Literal["level"] = "level"
    trick: str = ""
    at: int | None = None

    def make(self, device):
        return Level(self.trick, self.at)


@pytest.fixture
def pictures(tmp_path):
    """Writes grey pictures of given levels; "cut" is a file cut off."""

    def write(*levels):
        paths: list[Any] = []
        for index, level in enumerate(levels):
            path = tmp_path / f"{index}.png"
            if level is None:
                paths.append(None)
                continue
            Image.new("RGB", (8, 6), (level,) * 3 if isinstance(level, int) else 0).save(path)
            if level == "cut":
                path.write_bytes(path.read_bytes()[:40])
            paths.append(path)
        return paths

    return write


DEVICE = "cpu"


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def _everywhere(request, monkeypatch):
    """All that is tested here holds on a GPU too, which a stream of one's own counts as a user of; none of them is."""
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", request.param)


def opened(*streams, **settings):
    return Extractor(streams, CacheSpec(streams=streams, **settings), device=DEVICE)


def test_rows_lie_in_the_order_of_the_paths(pictures):
    with opened(LevelSpec()) as extractor:
        found = extractor.extract(pictures(9, 200, 31))
    rows = found.rows["level"]
    assert rows.features.tolist() == [[9, 9], [200, 200], [31, 31]]
    assert rows.status.tolist() == [OK, OK, OK]
    assert rows.flags.tolist() == [1, 0, 1]
    assert found.problems == []


def test_an_empty_block_gives_empty_rows():
    with opened(LevelSpec(dtype="float16")) as extractor:
        rows = extractor.extract([]).rows["level"]
    assert (rows.features.shape, rows.features.dtype) == ((0, 2), np.float16)


def test_what_cannot_be_read_costs_its_own_rows_alone(pictures, tmp_path):
    paths = [*pictures(10, "cut", None), tmp_path / "absent.png", *pictures(10)]
    with opened(LevelSpec()) as extractor:
        found = extractor.extract(paths)
    assert found.rows["level"].status.tolist() == [OK, UNREADABLE, UNREADABLE, UNREADABLE, OK]
    assert not found.rows["level"].features[1:4].any()
    assert [(row, stream) for row, stream, _ in found.problems] == [(1, ""), (3, "")]
    assert found.problems[1][2] == "no such file"


def test_a_block_in_which_nothing_can_be_read_is_no_fault_of_the_streams(pictures):
    with opened(LevelSpec(trick="raise")) as extractor:
        assert extractor.extract(pictures("cut", "cut", None)).rows["level"].status.tolist() == [UNREADABLE] * 3


def test_pictures_are_decoded_as_the_cache_spec_says(pictures):
    with opened(LevelSpec(), decode=DecodeSpec(max_pixels=47)) as extractor:
        found = extractor.extract(pictures(10))
    assert found.problems == [(0, "", "8 x 6 = 48 pixels, more than max_pixels = 47")]


def test_one_picture_that_a_stream_chokes_on_fails_alone(pictures):
    with opened(LevelSpec(trick="raise", at=20), LevelSpec(name="other")) as extractor:
        found = extractor.extract(pictures(10, 20, 30))
    assert found.rows["level"].status.tolist() == [OK, FAILED, OK]
    assert found.rows["level"].features.tolist() == [[10, 10], [0, 0], [30, 30]]
    assert found.rows["other"].status.tolist() == [OK, OK, OK]
    assert found.problems == [(1, "level", "ArithmeticError: level 20 is bad")]


def test_all_pictures_of_a_block_may_fail(pictures):
    """They lie together when a label's are of a kind; whether a stream is broken shows over the whole build."""
    with opened(LevelSpec(trick="raise", at=10)) as extractor:
        assert extractor.extract(pictures(10, "cut", 10)).rows["level"].status.tolist() == [FAILED, UNREADABLE, FAILED]
        assert extractor.extract(pictures(20)).rows["level"].status.tolist() == [OK]
        assert extractor.extract(pictures(10, 10)).rows["level"].status.tolist() == [FAILED, FAILED]


def test_a_stream_that_fails_on_what_it_could_do_before_is_broken(pictures):
    """As when a GPU is lost in the middle of a build."""
    message = (
        r"^stream 'level' failed on all 2 readable pictures of a block; first: OSError: lost\. The stream is "
        r"broken: it also fails on a picture on which it worked before \(OSError: lost\)$"
    )
    with opened(LevelSpec()) as extractor:
        assert extractor.extract(pictures(10, 20)).rows["level"].status.tolist() == [OK, OK]

        def lost(samples):
            raise OSError("lost")

        extractor.streams["level"].extract = lost
        with pytest.raises(StreamError, match=message):
            extractor.extract(pictures(10, "cut", 20))


def test_a_view_that_cannot_be_made_costs_its_row_in_that_view_alone(tmp_path):
    """OpenCV turns no picture with a side over 32,766."""
    paths = [tmp_path / "long.png", tmp_path / "small.png"]
    Image.new("RGB", (32_800, 2), (10, 10, 10)).save(paths[0])
    Image.new("RGB", (8, 6), (20, 20, 20)).save(paths[1])
    spec = CacheSpec(streams=(LevelSpec(),), views=2)
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        found = extractor.extract_views(paths, ["long", "small"], [0, 1])
    assert found[0].rows["level"].status.tolist() == [OK, OK]
    assert found[0].problems == []
    assert found[1].rows["level"].status.tolist() == [FAILED, OK]
    assert found[1].rows["level"].features[1].tolist() == [20, 20]
    [(row, stream, reason)] = found[1].problems
    assert (row, stream) == (0, "level")
    assert reason.startswith("view: error: OpenCV")


def test_a_stream_that_cannot_run_at_all_is_not_tried_row_by_row(pictures):
    with opened(LevelSpec(trick="cannot run", at=20)) as extractor:
        with pytest.raises(StreamError, match=r"^no such device$"):
            extractor.extract(pictures(10, 20, 30))
        assert len(extractor.streams["level"].calls) == 1


@pytest.mark.parametrize(("trick", "dtype"), [("nan", "float32"), ("huge", "float16")])
def test_values_that_are_not_finite_in_the_stored_dtype_fail_their_row(pictures, trick, dtype):
    with opened(LevelSpec(trick=trick, at=20, dtype=dtype)) as extractor:
        found = extractor.extract(pictures(10, 20, 30))
    rows = found.rows["level"]
    assert rows.features.dtype == np.dtype(dtype)
    assert rows.status.tolist() == [OK, FAILED, OK]
    assert rows.features[1].tolist() == [0, 0]
    assert found.problems == [(1, "level", f"features are not finite as {dtype}")]


def test_large_values_fit_into_float32(pictures):
    with opened(LevelSpec(trick="huge", at=20)) as extractor:
        assert extractor.extract(pictures(10, 20)).rows["level"].status.tolist() == [OK, OK]


def test_a_stream_may_say_itself_that_a_picture_failed(pictures):
    with opened(LevelSpec(trick="failed", at=20)) as extractor:
        found = extractor.extract(pictures(10, 20))
    assert found.rows["level"].features.tolist() == [[10, 10], [0, 0]]
    assert found.problems == [(1, "level", "the stream reports that it failed on this picture")]


def test_rows_of_a_wrong_shape_or_status_are_the_streams_fault(pictures):
    with (
        opened(LevelSpec(trick="shape")) as extractor,
        pytest.raises(
            StreamError, match=r"^stream 'level' returned features \(2, 1\), .* for 2 samples, expected \(2, 2\)"
        ),
    ):
        extractor.extract(pictures(1, 2))
    with (
        opened(LevelSpec(trick="pending", at=2)) as extractor,
        pytest.raises(StreamError, match=r"^stream 'level' returned status 0, a stream may return OK \(1\), "),
    ):
        extractor.extract(pictures(1, 2))


def test_micro_batches_bound_how_many_pictures_are_held_at_once(pictures, monkeypatch):
    paths = pictures(*range(1, 8))
    monkeypatch.setattr(batches, "_BATCH_SAMPLES", 3)
    with opened(LevelSpec()) as extractor:
        by_count = extractor.extract(paths).rows["level"]
        assert extractor.streams["level"].calls == [[1, 2, 3], [4, 5, 6], [7]]
    monkeypatch.setattr(batches, "_BATCH_PIXELS", 2 * 48)
    with opened(LevelSpec()) as extractor:
        by_pixels = extractor.extract(paths).rows["level"]
        assert extractor.streams["level"].calls == [[1, 2], [3, 4], [5, 6], [7]]
    assert np.array_equal(by_count.features, by_pixels.features)


def test_the_cpu_goes_on_while_the_gpu_is_busy(pictures, monkeypatch):
    if DEVICE == "cpu":
        pytest.skip("all is done by one thread")
    go, slow, quick = threading.Event(), [], []

    class SlowSpec(LevelSpec):
        kind: Literal["slow"] = "slow"

        def make(self, device):
            slow.append(Slow(go))
            return slow[0]

    class QuickSpec(LevelSpec):
        kind: Literal["quick"] = "quick"
        uses_gpu: ClassVar[bool] = False

        def make(self, device):
            quick.append(Level("", None))
            return quick[0]

    def read_last(source, spec, on_read):
        if source.path.stem == "4":  # of the second micro-batch, the first being held on the GPU
            assert quick[0].calls == [[1, 2, 3]]
            assert slow[0].calls == []
            go.set()
        return read_image(source, spec, on_read)

    monkeypatch.setattr(batches, "_BATCH_SAMPLES", 3)
    monkeypatch.setattr(reading, "read_image", read_last)
    with opened(SlowSpec(name="slow"), QuickSpec(name="quick")) as extractor:
        found = extractor.extract(pictures(1, 2, 3, 4, 5, 6, 7))
    for name in ("slow", "quick"):
        assert found.rows[name].features[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert len(slow[0].threads) == 1
    assert threading.get_ident() not in slow[0].threads


def test_streams_are_closed_once_and_also_when_a_later_one_cannot_be_opened(monkeypatch):
    made = []

    def make(spec, *, device):
        if spec.trick == "fails to open":
            raise StreamError("no memory")
        made.append(make_stream(spec, device=device))
        return made[-1]

    monkeypatch.setattr(extractor_module, "make_stream", make)
    extractor = opened(LevelSpec(), LevelSpec(name="other"))
    extractor.close()
    extractor.close()
    assert [stream.closed for stream in made] == [1, 1]
    with pytest.raises(StreamError, match=r"^no memory$"):
        opened(LevelSpec(), LevelSpec(name="other", trick="fails to open"))
    assert made[2].closed == 1


class CountingDetector:
    def __init__(self, detector, fails_on):
        self._detector = detector
        self._fails_on = fails_on
        self.calls = 0

    def detect(self, image, box=None):
        self.calls += 1
        if image.shape[1] == self._fails_on:
            raise RuntimeError("graph stopped")
        return self._detector.detect(image)

    def close(self):
        pass


@pytest.fixture
def face_paths(tmp_path, astronaut):
    """A face, no face, a face, a picture 33 wide without a face."""
    for index, picture in enumerate(
        (astronaut, np.zeros((60, 50, 3), np.uint8), astronaut[:, ::-1], np.zeros((60, 33, 3), np.uint8))
    ):
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / f"{index}.png")
    return sorted(tmp_path.glob("*.png"))


def test_the_face_is_found_once_for_all_streams(face_detector, face_paths, astronaut, monkeypatch):
    detector = CountingDetector(face_detector, fails_on=None)
    monkeypatch.setattr(batches, "make_face_detector", lambda spec, needs, **options: detector)
    specs = (LbpSpec(without_face="whole_image"), LandmarksSpec(), ActionUnitsSpec(), LevelSpec())
    with opened(*specs) as extractor:
        found = extractor.extract(face_paths)
    assert detector.calls == 4
    assert found.problems == []
    assert found.rows["lbp"].status.tolist() == [OK] * 4
    assert found.rows["lbp"].flags.tolist() == [0, 1, 0, 1]
    assert found.rows["landmarks"].status.tolist() == [OK, NO_DETECTION, OK, NO_DETECTION]
    assert found.rows["action_units"].status.tolist() == [OK, NO_DETECTION, OK, NO_DETECTION]
    sample = Sample(astronaut, face_detector.detect(astronaut))
    for spec in specs[:3]:
        expected = make_stream(spec).extract([sample]).features[0]
        assert np.array_equal(found.rows[spec.name].features[0], expected)


def test_no_face_is_looked_for_when_no_stream_needs_one(face_paths, monkeypatch):
    monkeypatch.setattr(batches, "make_face_detector", lambda spec, needs, **options: pytest.fail("opened a detector"))
    with opened(LevelSpec(), face=FaceSpec(detector="landmarker")) as extractor:
        assert extractor.extract(face_paths).rows["level"].status.tolist() == [OK] * 4


def test_a_detector_that_fails_on_one_picture_costs_the_face_streams_that_row(face_detector, face_paths, monkeypatch):
    detector = CountingDetector(face_detector, fails_on=33)
    monkeypatch.setattr(batches, "make_face_detector", lambda spec, needs, **options: detector)
    with opened(LandmarksSpec(), LevelSpec()) as extractor:
        found = extractor.extract(face_paths)
    assert found.rows["landmarks"].status.tolist() == [OK, NO_DETECTION, OK, FAILED]
    assert found.rows["level"].status.tolist() == [OK] * 4
    assert found.problems == [(3, "landmarks", "face detection: RuntimeError: graph stopped")]


def test_blocks_of_any_size_give_the_same_rows(face, face_paths):
    specs = (LbpSpec(), LandmarksSpec(), ActionUnitsSpec())
    with opened(*specs, face=FaceSpec(**face)) as extractor:
        whole = extractor.extract(face_paths)
        single = [extractor.extract([path]) for path in face_paths]
    for spec in specs:
        joined = np.concatenate([found.rows[spec.name].features for found in single])
        assert np.array_equal(whole.rows[spec.name].features, joined)


@pytest.mark.filterwarnings(r"ignore:::PIL\.")
def test_every_file_that_breaks_readers_ends_as_a_row_with_a_status(face, shared_data):
    paths = sorted((shared_data / "robustness").iterdir())
    small = [path for path in paths if path.stat().st_size < 500_000]  # the large photographs are test_decode's
    streams = (LbpSpec(without_face="whole_image"), LandmarksSpec(), ActionUnitsSpec())
    with opened(*streams, face=FaceSpec(**face)) as extractor:
        found = extractor.extract(small)
    for rows in found.rows.values():
        assert set(rows.status.tolist()) <= {OK, NO_DETECTION, UNREADABLE}
    unreadable = np.flatnonzero(found.rows["lbp"].status == UNREADABLE).tolist()
    assert [row for row, _, _ in found.problems] == unreadable
    assert 5 < len(unreadable) < 30


@pytest.fixture
def wide(tmp_path):
    """Two images of three strips and one of a single one, which is no whole image in the middle."""
    paths = [tmp_path / f"{red}.png" for red in (7, 8, 9)]
    for path, width in zip(paths, (9, 9, 3), strict=True):
        Image.new("RGB", (width, 5), (int(path.stem), 20, 30)).save(path)
    paths.insert(1, tmp_path / "none.png")
    return paths


def masks_of(monkeypatch, paths, change) -> Rows:
    """Rows of a sequence that `change` has changed before the extractor files them."""
    extract = Strips.extract

    def changed(stream, samples):
        rows = extract(stream, samples)
        return change(rows) or rows

    monkeypatch.setattr(Strips, "extract", changed)
    spec = CacheSpec(streams=(StripsSpec(),))
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        return extractor.extract(paths).rows["strips"]


def test_steps_of_a_sequence_are_filed_under_their_rows(wide):
    spec = CacheSpec(streams=SHAPES)
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        rows = extractor.extract(wide).rows
    for name in ("strips", "film"):
        assert rows[name].mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]]
        assert rows[name].status.tolist() == [OK, UNREADABLE, OK, OK]
    assert rows["thumbnail"].mask is None


def test_what_a_stream_leaves_at_steps_that_are_not_ok_is_not_stored(wide, monkeypatch):
    rows = masks_of(monkeypatch, wide, lambda rows: rows.mask[:, 1].fill(Step.NO_DETECTION))
    assert rows.mask[0].tolist() == [1, 2, 1]
    assert rows.features[0, 0].any()
    assert not rows.features[0, 1].any()


def test_a_value_that_is_not_finite_fails_its_sequence_only_where_the_step_is_ok(wide, monkeypatch):
    rows = masks_of(monkeypatch, wide, lambda rows: rows.features[:, 2].fill(np.nan))
    assert rows.status.tolist() == [FAILED, UNREADABLE, FAILED, OK]
    assert rows.mask.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert not rows.features[[0, 2]].any()
    assert np.isfinite(rows.features).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: Rows(rows.features, rows.status, rows.flags), r"returned the mask None for its sequences, exp"),
        (lambda rows: rows.mask.fill(9), r"returned the step 9, a mask may hold PADDING \(0\), OK \(1\), NO_DETECTION"),
        (lambda rows: rows.mask.fill(0), r"a row whose status is OK and whose steps say otherwise"),
        (lambda rows: rows.status.fill(FAILED), r"a row whose status is FAILED and whose steps say otherwise"),
    ],
)
def test_a_mask_that_breaks_the_contract_is_an_error_of_the_stream(wide, monkeypatch, change, message):
    with pytest.raises(StreamError, match=message):
        masks_of(monkeypatch, wide, change)
