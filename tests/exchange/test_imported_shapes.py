"""Sequences, maps and sequences of maps of other tools, and of exports, become streams."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from emofuse.cache import writer
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import create_cache, lock_cache
from emofuse.cli import app
from emofuse.errors import CacheError
from emofuse.exchange import imports
from emofuse.exchange.export import export_cache
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.results import list_runs
from emofuse.status import Status, Step
from emofuse.upkeep.verify import verify_cache

ROWS, BLOCK_ROWS = 10, 4
IDS = np.array([f"s{row:04d}" for row in range(ROWS)])
SHAPES = {
    ("time", "feature"): (3, 5),
    ("channel", "y", "x"): (2, 3, 4),
    ("time", "channel", "y", "x"): (3, 2, 3, 4),
}


def values_of(dimensions: tuple[str, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 2, (ROWS, *SHAPES[dimensions])).astype(np.float32)


@pytest.fixture
def cache(tmp_path, write_cache):
    """A cache of one stream of vectors."""
    streams = {"vectors": ("backbone", np.ones((ROWS, 2), np.float32), np.full(ROWS, Status.OK, np.uint8))}
    path = tmp_path / "features.zarr"
    return write_cache(path, ["joy", "fear"], np.arange(ROWS) % 2, ["train"] * ROWS, streams, block_rows=BLOCK_ROWS)


@pytest.fixture(params=["npz", "npz_packed", "hdf5", "hdf5_chunked"])
def write(request, tmp_path):
    def written(**arrays):
        if request.param.startswith("npz"):
            path = tmp_path / "other.npz"
            (np.savez_compressed if "packed" in request.param else np.savez)(path, **arrays)
            return path
        path = tmp_path / "other.h5"
        options = {"chunks": True, "compression": "gzip"} if "chunked" in request.param else {}
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                is_text = values.dtype.kind == "U"
                file.create_dataset(name, data=values.astype(object) if is_text else values, **options)
        return path

    return written


@pytest.fixture(params=SHAPES, ids="-".join)
def dimensions(request):
    return request.param


def test_features_of_any_shape_come_to_their_rows_in_any_order(cache, write, dimensions):
    values, order = values_of(dimensions), np.random.default_rng(1).permutation(ROWS)
    file = write(features=values[order], sample_ids=IDS[order])
    summary = import_stream(cache, ImportRequest(file, "other", dimensions=dimensions))
    stream = open_cache(cache).streams["other"]
    features, status = stream.read()
    np.testing.assert_array_equal(features, values)
    assert (stream.shape, stream.dimensions) == (SHAPES[dimensions], dimensions)
    assert status.tolist() == [Status.OK] * ROWS
    assert (summary.ok, summary.absent, summary.empty) == (ROWS, 0, 0)
    assert not verify_cache(cache).faults
    mask = stream.read_mask()
    assert mask is None if dimensions[0] != "time" else (mask == Step.OK).all()


def test_rows_are_absent_failed_or_without_steps_and_the_cache_stays_whole(cache, write):
    dimensions = ("time", "feature")
    values = values_of(dimensions)[:8]
    mask = np.ones((8, 3), dtype=bool)
    mask[1, 2] = mask[2] = False
    values[1, 2] = np.nan  # padding may hold anything
    values[3, 1, 0] = np.inf
    request = ImportRequest(
        write(features=values, sample_ids=IDS[:8], there=mask),
        "other",
        dimensions=dimensions,
        mask="there",
        mark_non_finite=True,
    )
    summary = import_stream(cache, request)
    stream = open_cache(cache).streams["other"]
    features, status = stream.read()
    assert status.tolist() == [1, 1, 2, 4, 1, 1, 1, 1, 2, 2]
    assert (summary.ok, summary.absent, summary.non_finite, summary.empty) == (6, 2, 1, 1)
    name = request.file.name
    assert stream.reasons()[[1, 2, 3, 8], 0].tolist() == [
        "",
        f"no features in {name}",
        f"not finite in {name}",
        f"not in {name}",
    ]
    assert stream.read_mask()[[0, 1, 2, 3, 8]].tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(features[1, :2], values[1, :2])
    assert not features[1, 2].any()
    assert not features[status != Status.OK].any()
    assert not verify_cache(cache).faults


def test_values_behind_the_mask_are_no_part_of_the_content(cache, write):
    dimensions = ("time", "feature")
    values, mask = values_of(dimensions), np.ones((ROWS, 3), dtype=np.uint8)
    mask[:, 2] = Step.PADDING
    first = import_stream(
        cache,
        ImportRequest(write(features=values, sample_ids=IDS, mask=mask), "a", dimensions=dimensions, mask="mask"),
    )
    values[:, 2] = 7
    again = import_stream(
        cache,
        ImportRequest(write(features=values, sample_ids=IDS, mask=mask), "b", dimensions=dimensions, mask="mask"),
    )
    mask[:, 2] = Step.NO_DETECTION
    other = import_stream(
        cache,
        ImportRequest(write(features=values, sample_ids=IDS, mask=mask), "c", dimensions=dimensions, mask="mask"),
    )
    assert first.sha256 == again.sha256 != other.sha256


@pytest.mark.parametrize("to", ["npz", "hdf5"])
def test_an_export_comes_back_as_it_was(cache, write, dimensions, to, tmp_path):
    values = values_of(dimensions)
    values[4] = np.nan
    names: dict = {"features": values[:9], "sample_ids": IDS[:9]}
    if dimensions[0] == "time":
        names["mask"] = np.full((9, 3), Step.OK, np.uint8)
        names["mask"][1, 0] = Step.NO_DETECTION
    request = ImportRequest(write(**names), "other", dimensions=dimensions, mark_non_finite=True)
    if dimensions[0] == "time":
        request = ImportRequest(**{**vars(request), "mask": "mask"})
    import_stream(cache, request)
    original = open_cache(cache)
    out = tmp_path / "out.file"
    export_cache(original, out, to)

    new = tmp_path / "new.zarr"
    with lock_cache(new):
        create_cache(new, original.manifest, block_rows=3)
    summary = import_stream(new, ImportRequest(out, "other", "streams/other/features"))
    assert (summary.ok, summary.absent, summary.empty) == (8, 0, 2)
    wanted, found = original.streams["other"], open_cache(new).streams["other"]
    assert (found.shape, found.dimensions) == (wanted.shape, wanted.dimensions)
    for expected, read in zip(wanted.read(), found.read(), strict=True):
        np.testing.assert_array_equal(read, expected)
    if dimensions[0] == "time":
        np.testing.assert_array_equal(found.read_mask(), wanted.read_mask())
    assert found.reasons()[[0, 4, 9], 0].tolist() == ["", "failed in out.file", "no features in out.file"]
    assert not verify_cache(new).faults


def test_vectors_of_an_export_keep_their_status(cache, tmp_path):
    """They were zeros that counted as features."""
    np.savez(tmp_path / "some.npz", features=np.ones((3, 2), np.float32), sample_ids=IDS[:3])
    import_stream(cache, ImportRequest(tmp_path / "some.npz", "some"))
    original = open_cache(cache)
    export_cache(original, tmp_path / "out.npz", "npz")
    import_stream(cache, ImportRequest(tmp_path / "out.npz", "again", "streams/some/features"))
    assert open_cache(cache).streams["again"].status[:, 0].tolist() == [1] * 3 + [2] * 7


def test_an_import_that_was_interrupted_goes_on(cache, write, dimensions, monkeypatch):
    file = write(features=values_of(dimensions), sample_ids=IDS)
    request = ImportRequest(file, "other", dimensions=dimensions)
    write_block, written = imports.write_block, []

    def killed(path, stream, block, **values):
        if block == 1:
            raise KeyboardInterrupt
        written.append(block)
        write_block(path, stream, block, **values)

    monkeypatch.setattr(imports, "write_block", killed)
    with pytest.raises(KeyboardInterrupt):
        import_stream(cache, request)
    monkeypatch.setattr(imports, "write_block", lambda *a, **k: (written.append(a[2]), write_block(*a, **k)))
    import_stream(cache, request)
    assert written == [0, 1, 2]
    np.testing.assert_array_equal(open_cache(cache).streams["other"].read()[0], values_of(dimensions))


def test_metadata_of_the_cache_is_read_once_for_all_blocks(cache, write, monkeypatch):
    read, reads = writer.read_cache_layout, []
    monkeypatch.setattr(writer, "read_cache_layout", lambda path: reads.append(path) or read(path))
    vectors = np.ones((ROWS, 2), np.float32)
    import_stream(cache, ImportRequest(write(features=vectors, sample_ids=IDS), "other"))
    assert open_cache(cache).layout.blocks == 3
    assert reads == [cache]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dimensions": None},
            (
                "'features' must be (n, D) of numbers, got (10, 3, 5) float32. Name the dimensions of a row with "
                "--dimensions: feature | time,feature | channel,y,x | time,channel,y,x"
            ),
        ),
        (
            {"dimensions": ("channel", "y", "x")},
            "'features' must be (n, channel, y, x) of numbers, got (10, 3, 5) float32",
        ),
        (
            {"mask": "short"},
            (
                "'short' must be (10, 3) of true and false, or of the steps 0 padding, 1 ok, 2 no_detection; "
                "got (10, 2) bool"
            ),
        ),
        (
            {"mask": "strange"},
            (
                "'strange' must be (10, 3) of true and false, or of the steps 0 padding, 1 ok, 2 no_detection; "
                "got (10, 3) uint8 with 9"
            ),
        ),
        ({"mask": "maks"}, "no array 'maks', did you mean 'mask'?"),
        (
            {"dataset": "vectors", "mask": "mask", "dimensions": None},
            "only sequences have a mask. Begin --dimensions with time, or omit --mask",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(cache, write, changes, message):
    file = write(
        features=values_of(("time", "feature")),
        vectors=np.ones((ROWS, 2), np.float32),
        sample_ids=IDS,
        mask=np.ones((ROWS, 3), bool),
        short=np.ones((ROWS, 2), bool),
        strange=np.full((ROWS, 3), 9, np.uint8),
    )
    with pytest.raises(CacheError, match=re.escape(f"{file}: {message}")):
        import_stream(cache, ImportRequest(**{"file": file, "name": "x", "dimensions": ("time", "feature"), **changes}))
    assert list(open_cache(cache).streams) == ["vectors"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("time", "a row, or a step of a sequence, is a vector (one name) or a map (three)"),
        ("y,x", "a row, or a step of a sequence, is a vector (one name) or a map (three)"),
        ("feature,time", "time must come first"),
        ("channel,y,y", "a name is there twice"),
        ("time,sample", "sample and view are axes that the cache adds itself"),
        ("time,", "a name is empty or no word"),
    ],
)
def test_dimensions_that_no_stream_has_are_refused(cache, text, fault):
    arguments = ["cache", "import", str(cache), "--file", "x.npz", "--name", "x", "--dimensions", text]
    with pytest.raises(CacheError, match=re.escape(f"--dimensions: {text!r}: {fault}. Write one of: feature |")):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_command_names_dimensions_and_mask(cache, tmp_path):
    mask = np.ones((ROWS, 3), bool)
    mask[0] = False
    np.savez(tmp_path / "x.npz", frames=values_of(("time", "feature")), sample_ids=IDS, steps=mask)
    arguments = ["cache", "import", cache, "--file", tmp_path / "x.npz", "--name", "frames", "--dataset", "frames"]
    arguments += ["--dimensions", "time, feature", "--mask", "steps"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "frames: 9 rows imported, 1 without features there; content " in result.stdout
    assert open_cache(cache).streams["frames"].dimensions == ("time", "feature")


def test_imported_sequences_and_maps_train_beside_vectors(tmp_path, write_cache):
    rows = 60
    labels, rng = np.arange(rows) % 2, np.random.default_rng(0)
    streams = {"vectors": ("backbone", rng.normal(size=(rows, 2)).astype(np.float32), np.ones(rows, np.uint8))}
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    path = write_cache(tmp_path / "features.zarr", ["joy", "fear"], labels, splits, streams)
    ids = np.array([f"s{row:04d}" for row in range(rows)])
    frames = rng.normal(size=(rows, 3, 4)).astype(np.float32) + 2 * labels[:, None, None]
    maps = rng.normal(size=(rows, 2, 6, 6)).astype(np.float16)
    np.savez(tmp_path / "x.npz", frames=frames, maps=maps, sample_ids=ids, mask=rng.random((rows, 3)) < 0.7)
    file = tmp_path / "x.npz"
    import_stream(path, ImportRequest(file, "frames", "frames", dimensions=("time", "feature"), mask="mask"))
    import_stream(path, ImportRequest(file, "maps", "maps", dimensions=("channel", "y", "x")))
    arguments = ["train", "--cache", path, "--streams", "vectors,frames,maps", "--epochs", 5, "--device", "cpu"]
    arguments += ["--width", 8, "--learning-rate", 0.01, "--runs", tmp_path / "runs"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (record,) = list_runs(tmp_path / "runs")
    assert sorted(record.streams) == ["frames", "maps", "vectors"]
    assert record.metrics["test"]["accuracy"] > 0.8
