from __future__ import annotations

import os
import pickle
import sys
import time
from pathlib import Path

import pytest

from emofuse import stores
from emofuse.errors import StoreError
from emofuse.stores import (
    RemotePath,
    as_path,
    file_sizes,
    is_remote,
    making_folder,
    partials,
    remove_tree,
    replace_file,
    replacing,
)


@pytest.fixture
def bucket(s3_bucket) -> RemotePath:
    return as_path(s3_bucket)


@pytest.mark.parametrize(
    "given", ["s3://bucket/a/b.zarr", "s3://bucket/a/b.zarr/", Path("s3://bucket/a/b.zarr"), as_path("s3://bucket/a/b.zarr")]
)  # fmt: skip
def test_a_path_of_a_store_is_known_in_every_form(given):
    path = as_path(given)
    assert is_remote(path)
    assert str(path) == "s3://bucket/a/b.zarr"
    assert (path.name, path.stem, path.suffix) == ("b.zarr", "b", ".zarr")
    assert path.absolute() == path


def test_all_else_is_a_path_of_this_machine():
    for given in ("a/b.zarr", "/s3/x", Path("x"), "s3bucket"):
        assert as_path(given) == Path(given)
        assert not is_remote(as_path(given))


def test_parts_of_a_path():
    path = as_path("s3://bucket/a/b.zarr")
    assert str(path / "streams" / "lbp") == "s3://bucket/a/b.zarr/streams/lbp"
    assert str(path / "x/../y") == "s3://bucket/a/b.zarr/y"
    assert path / "." == path
    assert str(path.with_name("c.parquet")) == "s3://bucket/a/c.parquet"
    assert str(path.parent) == "s3://bucket/a"
    assert str(path.parent.parent) == "s3://bucket"
    assert path.parent.parent.parent == path.parent.parent
    assert repr(path) == "RemotePath('s3://bucket/a/b.zarr')"
    assert pickle.loads(pickle.dumps(path)) == path  # workers of a cluster are given one


def test_what_a_store_does_not_have_is_not_there():
    path = as_path("s3://bucket/a")
    for name in ("rename", "replace", "rglob", "lstat", "symlink_to", "__fspath__"):
        assert not hasattr(path, name)


def test_objects_are_written_read_and_deleted(bucket):
    file = bucket / "a" / "b.txt"
    assert not file.exists()
    assert file.write_bytes("grün".encode()) == 5
    assert file.read_bytes() == "grün".encode()
    assert file.read_text() == "grün"
    with file.open(encoding="utf-8-sig", newline="") as text:
        assert text.read() == "grün"
    assert file.resolve() == file
    assert file.is_file()
    assert not file.is_dir()
    assert file.stat().st_size == 5
    assert abs(file.stat().st_mtime - time.time()) < 60
    file.write_bytes(b"")
    assert file.stat().st_size == 0
    file.unlink()
    assert not file.exists()
    file.unlink(missing_ok=True)
    for read in (file.unlink, file.read_bytes, file.stat):
        with pytest.raises(FileNotFoundError):
            read()


def test_folders_are_what_keys_have_in_common(bucket):
    folder = bucket / "f"
    folder.mkdir(parents=True, exist_ok=True)
    assert not folder.exists()
    for name in ("b", "a/x", "a/y/z"):
        (folder / name).write_bytes(b"12")
    (bucket / "f2").write_bytes(b"")
    assert folder.is_dir()
    assert not folder.is_file()
    assert [path.name for path in folder.iterdir()] == ["a", "b"]
    assert [str(path)[len(str(bucket)) :] for path in bucket.glob("*/a")] == ["/f/a"]
    assert [path.name for path in bucket.glob("f*")] == ["f", "f2"]
    assert list((bucket / "none").glob("*")) == []
    with pytest.raises(FileNotFoundError):
        folder.stat()
    with pytest.raises(FileNotFoundError):
        (bucket / "none").iterdir()


def test_more_objects_than_one_answer_lists(bucket):
    stores.file_system().pipe({f"{bucket.key}/many/{number}": b"x" for number in range(1003)})
    assert len(file_sizes(bucket / "many")) == 1003


def test_of_two_that_write_an_object_one_succeeds(bucket):
    lock = bucket / "lock"
    assert lock.tag() is None
    lock.write_if(b"first", None)
    seen = lock.tag()
    with pytest.raises(FileExistsError, match=r"s3://features-\d+/lock: changed meanwhile"):
        lock.write_if(b"second", None)
    assert lock.write_if(b"third", seen) == lock.tag() != seen
    with pytest.raises(FileExistsError, match="changed meanwhile"):
        lock.write_if(b"fourth", seen)
    assert lock.read_bytes() == b"third"
    seen = lock.tag()
    lock.unlink()
    with pytest.raises(FileExistsError, match="meanwhile"):
        lock.write_if(b"fifth", seen)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("PreconditionFailed", FileExistsError),
        ("ConditionalRequestConflict", FileExistsError),
        ("InvalidRequest", StoreError),
    ],
)
def test_the_code_of_a_reply_and_not_its_words_says_that_a_condition_does_not_hold(bucket, monkeypatch, code, expected):
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    def refuse(*arguments, **options):
        raise translate_boto_error(
            ClientError({"Error": {"Code": code, "Message": "no PreconditionFailed"}}, "PutObject")
        )

    monkeypatch.setattr(stores.file_system(), "pipe_file", refuse)
    with pytest.raises(expected):
        (bucket / "lock").write_if(b"first", None)


@pytest.fixture(params=["a store", "a disk"])
def folder(request, tmp_path) -> Path:
    return as_path(request.getfixturevalue("s3_bucket")) if request.param == "a store" else tmp_path


def test_files_are_listed_with_their_sizes_at_any_depth(folder):
    for name in ("f/b", "f/a/x", "f/a/y/z", "f2"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    assert file_sizes(folder / "f") == {"a/x": 5, "a/y/z": 7, "b": 3}
    assert file_sizes(folder / "none") == {}
    remove_tree(folder / "f")
    remove_tree(folder / "none")
    assert file_sizes(folder) == {"f2": 2}


def test_a_file_is_replaced_at_once(folder):
    for data in (b"one", b"two"):
        replace_file(folder / "x", data)
        assert (folder / "x").read_bytes() == data
    assert list(file_sizes(folder)) == ["x"]


def test_killed_while_a_file_is_replaced_leaves_it_as_it_was(tmp_path, monkeypatch):
    replace_file(tmp_path / "x", b"one")
    write = Path.write_bytes

    def stop_in_the_middle(path: Path, data: bytes) -> None:
        write(path, data[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "x", b"another")
    assert (tmp_path / "x").read_bytes() == b"one"


def test_text_is_written_as_utf_8_and_reaches_the_disk_when_asked(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(descriptor), fsync(descriptor)))
    replace_file(tmp_path / "x", "größer", flush=True)
    assert (tmp_path / "x").read_text(encoding="utf-8") == "größer"
    assert len(flushed) == 2  # the file and its folder


def test_two_processes_that_replace_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "x") as one, replacing(tmp_path / "x") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_writer_that_fails_leaves_the_former_file_and_nothing_else(tmp_path):
    (tmp_path / "x").write_text("former")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x") as partial:
        (partial.write_text("half"), (tmp_path / "none").read_text())
    assert (tmp_path / "x").read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_killed_writers_left_beside_a_file_is_found(tmp_path):
    for name in (".x.0a1b2c3d.partial", "x.partial", ".xy.0a1b2c3d.partial", "y.partial", "x"):
        (tmp_path / name).write_text("")
    assert {path.name for path in partials(tmp_path / "x")} == {".x.0a1b2c3d.partial", "x.partial"}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with making_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run" / "a").read_text() == "1"
    with pytest.raises(FileNotFoundError), making_folder(tmp_path / "other") as folder:
        (folder / "none").read_text()
    with pytest.raises(OSError, match="not empty"), making_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("2")
    assert (tmp_path / "run" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("ask", [RemotePath.read_bytes, RemotePath.is_file, file_sizes])
def test_a_store_that_does_not_answer_is_an_error_with_the_remedy(s3_bucket, monkeypatch, ask):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(stores.connection, "_ATTEMPTS", 1)
    stores.forget_connections()
    with pytest.raises(
        StoreError,
        match=r"^s3://bucket/x: the store cannot be used \(.*127\.0\.0\.1:9.*\)\. Check the endpoint and the "
        r"credentials \(AWS_ENDPOINT_URL, .*\), then run the same again\.$",
    ):
        ask(as_path("s3://bucket/x"))


def test_a_store_that_refuses_is_an_error(bucket, monkeypatch):
    def refuse(*_):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(stores.file_system(), "cat_file", refuse)
    with pytest.raises(StoreError, match=r"the store cannot be used \(PermissionError: Access Denied\)"):
        (bucket / "x").read_bytes()


def test_faults_of_the_code_are_not_put_down_to_the_store(bucket, monkeypatch):
    monkeypatch.setattr(stores.file_system(), "cat_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (bucket / "x").read_bytes()


def test_s3fs_is_asked_for_by_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    stores.file_system.cache_clear()
    with pytest.raises(StoreError, match=r"^s3:// needs the package s3fs: pip install 'emofuse\[s3\]'$"):
        as_path("s3://bucket/x").read_bytes()
