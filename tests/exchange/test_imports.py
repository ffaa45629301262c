from __future__ import annotations

import hashlib
import io
import re
import zipfile

import h5py
import numpy as np
import pytest

from emofuse.cache.reader import open_cache
from emofuse.cache.structure import lock_cache
from emofuse.errors import CacheError, SpecError, StaleCacheError
from emofuse.exchange import imports
from emofuse.exchange.foreign import ForeignArrays
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.status import Status

IDS = [f"s{row}" for row in range(10)]
VECTORS = np.arange(30, dtype=np.float32).reshape(10, 3)


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def write_packed_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def write_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            text = np.asarray(values).dtype.kind == "U"
            file.create_dataset(name, data=np.asarray(values).astype(object) if text else values)
    return path


def write_chunked_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            text = np.asarray(values).dtype.kind == "U"
            data = np.asarray(values).astype(object) if text else values
            file.create_dataset(name, data=data, chunks=True, compression=None if text else "gzip")
    return path


WRITERS = [write_npz, write_packed_npz, write_hdf5, write_chunked_hdf5]


@pytest.fixture(params=WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
def write(request, tmp_path):
    suffix = "h5" if "hdf5" in request.param.__name__ else "npz"
    return lambda **arrays: request.param(tmp_path / f"clip.{suffix}", **arrays)


@pytest.fixture
def npz(tmp_path):
    return lambda **arrays: write_npz(tmp_path / "clip.npz", **arrays)


def test_vectors_come_to_their_rows_in_any_order(cache_path, write):
    order = np.random.default_rng(0).permutation(10)
    file = write(features=VECTORS[order], sample_ids=np.array(IDS)[order])
    told = []
    summary = import_stream(cache_path, ImportRequest(file, "clip_vit"), on_rows=lambda *state: told.append(state))
    stream = open_cache(cache_path).streams["clip_vit"]
    features, status = stream.read()
    np.testing.assert_array_equal(features, VECTORS)
    assert features.dtype == np.float32
    assert status.tolist() == [Status.OK] * 10
    assert (stream.kind, stream.dim, stream.weights) == ("imported", 3, None)
    assert (summary.ok, summary.absent, summary.non_finite, summary.ignored) == (10, 0, 0, 0)
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_the_same_content_is_the_same_stream_from_any_file(cache_path, write, tmp_path):
    file = write(features=VECTORS, sample_ids=np.array(IDS))
    summary = import_stream(cache_path, ImportRequest(file, "one"))
    other = write_npz(tmp_path / "x.npz", a=VECTORS[:, None].astype(">f8"), i=np.array(IDS, "S"))
    import_stream(cache_path, ImportRequest(other, "two", "a", "i"))
    streams = open_cache(cache_path).streams
    assert streams["one"].digest == streams["two"].digest
    assert streams["one"].spec["sha256"] == streams["one"].identity["content"]["sha256"] == summary.sha256
    expected = hashlib.sha256(b'{"dtype":"float32","shape":[10,3]}')
    expected.update(("[" + ",".join(f'"{sample_id}"' for sample_id in IDS) + "]").encode())
    expected.update(VECTORS.astype("<f4").tobytes())
    assert summary.sha256 == expected.hexdigest()


def test_other_values_or_ids_are_another_stream(cache_path, npz):
    import_stream(cache_path, ImportRequest(npz(features=VECTORS, sample_ids=np.array(IDS)), "clip_vit"))
    changed = VECTORS.copy()
    changed[7, 1] += 1
    with pytest.raises(
        StaleCacheError,
        match=r"^clip_vit was cached with content.sha256 [0-9a-f]{12}\.\.\., the spec now says [0-9a-f]{12}\.\.\.\. "
        r"Build it under another name, or drop it first: emofuse cache drop .*features\.zarr clip_vit$",
    ):
        import_stream(cache_path, ImportRequest(npz(features=changed, sample_ids=np.array(IDS)), "clip_vit"))
    with pytest.raises(StaleCacheError, match=r"content\.sha256"):
        import_stream(cache_path, ImportRequest(npz(features=VECTORS, sample_ids=np.array(IDS[::-1])), "clip_vit"))


def test_rows_that_the_file_lacks_are_masked_with_the_reason(cache_path, write):
    file = write(features=VECTORS[2:6], sample_ids=np.array(IDS[2:6]))
    summary = import_stream(cache_path, ImportRequest(file, "clip_vit"))
    stream = open_cache(cache_path).streams["clip_vit"]
    features, status = stream.read()
    assert status.tolist() == [2, 2, 1, 1, 1, 1, 2, 2, 2, 2]
    assert not features[status != Status.OK].any()
    np.testing.assert_array_equal(features[2:6], VECTORS[2:6])
    assert (summary.ok, summary.absent) == (4, 6)
    assert stream.reasons()[:3, 0].tolist() == [f"not in {file.name}"] * 2 + [""]


def test_ids_that_the_cache_lacks_are_listed_or_ignored(cache_path, write):
    file = write(features=VECTORS, sample_ids=np.array([*IDS[:8], "x", "y"]))
    with pytest.raises(
        CacheError, match=r"2 ids that .*features\.zarr does not have: x, y\. Skip them with --ignore-unknown\.$"
    ):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    assert list(open_cache(cache_path).streams) == ["lbp"]
    summary = import_stream(cache_path, ImportRequest(file, "clip_vit", ignore_unknown=True))
    assert (summary.ok, summary.absent, summary.ignored) == (8, 2, 2)


def test_a_long_list_of_ids_is_cut(cache_path, npz):
    ids = np.array(IDS + [f"x{row}" for row in range(30)])
    with pytest.raises(CacheError, match=r"30 ids that .*: x0, .*, x19 and 10 more\. Skip"):
        import_stream(cache_path, ImportRequest(npz(features=np.ones((40, 2)), sample_ids=ids), "clip_vit"))


def test_ids_that_repeat_are_listed(cache_path, npz):
    file = npz(features=VECTORS, sample_ids=np.array([*IDS[:8], "s2", "s3"]))
    with pytest.raises(CacheError, match=r"clip\.npz: 'sample_ids' repeats 2 ids: s2, s3$"):
        import_stream(cache_path, ImportRequest(file, "clip_vit", ignore_unknown=True))


def test_ids_of_another_kind_altogether_are_shown_beside_the_caches(cache_path, npz):
    file = npz(features=VECTORS, sample_ids=np.arange(10))
    with pytest.raises(
        CacheError,
        match=r"none of its 10 ids is a sample id of .*\. The cache has ids like 's0', 'sample_ids' of the file ids "
        r"like '0'\.",
    ):
        import_stream(cache_path, ImportRequest(file, "clip_vit", ignore_unknown=True))


def test_integers_are_ids_too(tmp_path, make_manifest, npz):
    from emofuse.cache.structure import create_cache

    create_cache(tmp_path / "n.zarr", make_manifest(sample_id=[str(row) for row in range(10)]), block_rows=4)
    import_stream(tmp_path / "n.zarr", ImportRequest(npz(features=VECTORS, sample_ids=np.arange(10)), "clip_vit"))
    np.testing.assert_array_equal(open_cache(tmp_path / "n.zarr").streams["clip_vit"].read()[0], VECTORS)


def test_rows_that_are_not_finite_are_refused_or_marked(cache_path, write):
    broken = VECTORS.copy()
    broken[3, 1], broken[6, 0] = np.nan, np.inf
    file = write(features=broken, sample_ids=np.array(IDS))
    with pytest.raises(
        CacheError,
        match=r"2 rows with NaN, infinity, or a number too large for float32: s3, s6\. Repair them, or keep them as "
        r"rows that failed with --mark-non-finite\.$",
    ):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    summary = import_stream(cache_path, ImportRequest(file, "clip_vit", mark_non_finite=True))
    stream = open_cache(cache_path).streams["clip_vit"]
    features, status = stream.read()
    assert status.tolist() == [1, 1, 1, 4, 1, 1, 4, 1, 1, 1]
    assert np.isfinite(features).all()
    assert (summary.ok, summary.non_finite) == (8, 2)
    assert stream.reasons()[3, 0] == f"not finite in {file.name}"


def test_numbers_too_large_for_the_stored_type_are_refused(cache_path, npz):
    large = VECTORS.copy()
    large[5] = 1e6
    file = npz(features=large, sample_ids=np.array(IDS))
    with pytest.raises(CacheError, match=r"1 row with NaN, infinity, or a number too large for float16: s5\."):
        import_stream(cache_path, ImportRequest(file, "clip_vit", dtype="float16"))


def test_rows_that_are_not_used_may_be_broken(cache_path, npz):
    broken = np.vstack([VECTORS, np.full((1, 3), np.nan)])
    file = npz(features=broken, sample_ids=np.array([*IDS, "x"]))
    summary = import_stream(cache_path, ImportRequest(file, "clip_vit", ignore_unknown=True))
    assert (summary.ok, summary.non_finite, summary.ignored) == (10, 0, 1)


@pytest.mark.parametrize(
    ("given", "asked", "stored"),
    [("f2", None, "float16"), ("f4", None, "float32"), ("f8", None, "float32"), ("i4", None, "float32"),
     ("f4", "float16", "float16")],
)  # fmt: skip
def test_half_precision_stays_all_else_is_single(cache_path, npz, given, asked, stored):
    file = npz(features=VECTORS.astype(given), sample_ids=np.array(IDS))
    import_stream(cache_path, ImportRequest(file, "clip_vit", dtype=asked))
    features, _ = open_cache(cache_path).streams["clip_vit"].read()
    assert features.dtype == stored
    np.testing.assert_array_equal(features, VECTORS.astype(stored))


def test_arrays_in_column_order_are_read_right(cache_path, npz):
    file = npz(features=np.asfortranarray(VECTORS), sample_ids=np.array(IDS))
    import_stream(cache_path, ImportRequest(file, "clip_vit"))
    np.testing.assert_array_equal(open_cache(cache_path).streams["clip_vit"].read()[0], VECTORS)


def test_an_interrupted_import_goes_on(cache_path, npz, monkeypatch):
    file = npz(features=VECTORS, sample_ids=np.array(IDS))
    write_block = imports.write_block
    written = []

    def stop_at_the_second(path, name, block, **values):
        if block == 1 and len(written) == 1:
            raise KeyboardInterrupt
        written.append(block)
        write_block(path, name, block, **values)

    monkeypatch.setattr(imports, "write_block", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    written.append("again")
    import_stream(cache_path, ImportRequest(file, "clip_vit"))
    assert written == [0, "again", 1, 2]
    np.testing.assert_array_equal(open_cache(cache_path).streams["clip_vit"].read()[0], VECTORS)
    assert [entry.name for entry in cache_path.parent.iterdir() if entry.name.startswith(".")] == []


def test_a_file_of_millions_of_rows_is_never_whole_in_memory(cache_path, npz, monkeypatch):
    monkeypatch.setattr(imports, "_SLAB_BYTES", 24)  # two rows
    slabs = []
    read = ForeignArrays.read

    def spied(arrays, rows, dtype):
        values = read(arrays, rows, dtype)
        slabs.append(len(values))
        return values

    monkeypatch.setattr(ForeignArrays, "read", spied)
    file = npz(features=VECTORS, sample_ids=np.array(IDS))
    import_stream(cache_path, ImportRequest(file, "clip_vit"))
    assert max(slabs) == 4  # a block
    np.testing.assert_array_equal(open_cache(cache_path).streams["clip_vit"].read()[0], VECTORS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": VECTORS, "names": np.array(IDS)}, "no array 'sample_ids' (there are: features, names)"),
        ({"feature": VECTORS, "sample_ids": np.array(IDS)}, "no array 'features', did you mean 'feature'? (there are:"),
        ({"features": VECTORS[:, 0], "sample_ids": np.array(IDS)}, "'features' must be (n, D) of numbers, got (10,)"),
        ({"features": np.ones((10, 2, 3)), "sample_ids": np.array(IDS)}, "got (10, 2, 3) float64"),
        ({"features": np.ones((0, 3)), "sample_ids": np.array([], "U1")}, "got (0, 3) float64"),
        ({"features": VECTORS.astype(complex), "sample_ids": np.array(IDS)}, "got (10, 3)"),
        ({"features": VECTORS, "sample_ids": np.array(IDS[:9])}, "'sample_ids' has 9 ids for the 10 rows of 'feat"),
        ({"features": VECTORS, "sample_ids": np.ones(10)}, "'sample_ids' must be (n,) text or integers, got"),
        ({"features": VECTORS, "sample_ids": np.array([b"\xff"] * 10)}, "'sample_ids' holds an id that is not UTF-8 ("),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(cache_path, npz, arrays, message):
    with pytest.raises(CacheError, match=rf"clip\.npz: .*{re.escape(message)}"):
        import_stream(cache_path, ImportRequest(npz(**arrays), "clip_vit"))


def test_a_missing_array_of_hdf5_is_named_with_those_in_groups(cache_path, tmp_path):
    file = write_hdf5(tmp_path / "clip.h5", **{"vit/features": VECTORS, "vit/ids": np.array(IDS)})
    with pytest.raises(
        CacheError, match=r"no array 'features', did you mean 'vit/features'\? \(there are: vit/features, vit/ids\)"
    ):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    import_stream(cache_path, ImportRequest(file, "clip_vit", "vit/features", "vit/ids"))
    assert open_cache(cache_path).streams["clip_vit"].counts()["ok"] == 10


@pytest.mark.parametrize("leads", ["by a link", "by raw storage", "as a virtual array"])
def test_a_file_that_leads_to_other_files_is_refused(cache_path, tmp_path, leads):
    """Whoever made it would choose what is read on this machine."""
    secret = write_hdf5(tmp_path / "secret.h5", features=VECTORS)
    (tmp_path / "raw").write_bytes(VECTORS.tobytes())
    with h5py.File(tmp_path / "clip.h5", "w") as file:
        file["sample_ids"] = IDS
        match leads:
            case "by a link":
                file["features"] = h5py.ExternalLink(str(secret), "features")
            case "by raw storage":
                storage = [(str(tmp_path / "raw"), 0, VECTORS.nbytes)]
                file.create_dataset("features", VECTORS.shape, VECTORS.dtype, external=storage)
            case _:
                layout = h5py.VirtualLayout(VECTORS.shape, VECTORS.dtype)
                layout[:] = h5py.VirtualSource(str(secret), "features", VECTORS.shape)
                file.create_virtual_dataset("features", layout)
        np.testing.assert_array_equal(file["features"][()], VECTORS)
    with pytest.raises(CacheError, match=r"clip\.h5: 'features' lies in other files, which are not read\. Import from"):
        import_stream(cache_path, ImportRequest(tmp_path / "clip.h5", "clip_vit"))


def test_pickled_objects_are_never_loaded(cache_path, npz):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    file = npz(features=VECTORS, sample_ids=np.array([Bomb() for _ in IDS], dtype=object))
    with pytest.raises(CacheError, match=r"'sample_ids' holds pickled Python objects, which are never loaded\. Save"):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))


def test_a_damaged_file_is_an_error(cache_path, npz, tmp_path):
    file = npz(features=VECTORS, sample_ids=np.array(IDS))
    data = bytearray(file.read_bytes())
    data[data.index(VECTORS.tobytes()) + 5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CacheError, match=r"clip\.npz: cannot be read \(Bad CRC-32 for file 'features\.npy'\)"):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("features.npy", io.BytesIO(b"no array").getvalue())
        archive.writestr("sample_ids.npy", b"")
    with pytest.raises(CacheError, match=r"clip\.npz: cannot be read \("):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    file.write_bytes(b"hello")
    with pytest.raises(CacheError, match=r"clip\.npz: neither HDF5 nor npz\. Write the arrays with h5py, or with"):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))
    with pytest.raises(CacheError, match=r"none\.npz: no such file"):
        import_stream(cache_path, ImportRequest(tmp_path / "none.npz", "clip_vit"))


def test_names_and_types_are_checked(cache_path, npz):
    file = npz(features=VECTORS, sample_ids=np.array(IDS))
    with pytest.raises(SpecError, match="emofuse cache import, 1 problem: name: "):
        import_stream(cache_path, ImportRequest(file, "../x"))
    with pytest.raises(SpecError, match="emofuse cache import, 1 problem: dtype: "):
        import_stream(cache_path, ImportRequest(file, "x", dtype="float64"))
    with pytest.raises(StaleCacheError, match=r"^lbp was cached with "):
        import_stream(cache_path, ImportRequest(file, "lbp"))


def test_a_cache_in_use_is_left_alone(cache_path, npz):
    file = npz(features=VECTORS, sample_ids=np.array(IDS))
    with lock_cache(cache_path), pytest.raises(CacheError, match="another build"):
        import_stream(cache_path, ImportRequest(file, "clip_vit"))


def test_an_export_can_be_imported(cache_path, tmp_path):
    from emofuse.exchange.export import export_cache

    cache = open_cache(cache_path)
    for to in ("npz", "hdf5"):
        export_cache(cache, tmp_path / to, to)
        import_stream(cache_path, ImportRequest(tmp_path / to, f"from_{to}", "streams/lbp/features"))
        features, _ = open_cache(cache_path).streams[f"from_{to}"].read()
        np.testing.assert_array_equal(features, cache.streams["lbp"].read()[0])
