"""Imported files are recognised, checked and recorded; verify hashes them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from emofuse.errors import WeightsError
from emofuse.specs import FileWeights, RandomWeights, RegistryWeights
from emofuse.weights import import_weights, resolve_weights, stored_weights, verify_weights, weights_dir

BODY = b"\x80\x02 not empty"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(BODY)
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_the_users_choice_then_xdg_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path / "mine"))
    assert weights_dir() == tmp_path / "mine"
    monkeypatch.delenv("EMOFUSE_WEIGHTS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights_dir() == tmp_path / "cache" / "emofuse" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_dir() == tmp_path / ".cache" / "emofuse" / "weights"


def test_import_recognises_a_file_by_its_hash(file, folder, register):
    register(name="net", sha256=SHA256)
    register(name="other", sha256="0" * 64)
    stored = import_weights(file)
    assert (stored.name, stored.path, stored.sha256) == ("net", folder / "net.pth", SHA256)
    assert stored.path.read_bytes() == BODY
    assert names_in(folder) == ["net.json", "net.pth"]
    assert import_weights(file) == stored


def test_import_recognises_a_file_by_the_first_digits(file, folder, register):
    register(name="net", sha256=SHA256[:8], url="https://example.org/net.pth")
    assert import_weights(file).name == "net"


def test_a_file_that_changes_while_it_is_imported_is_not_kept(file, folder, register, monkeypatch):
    register(name="net", sha256=SHA256)
    copy = shutil.copyfile

    def change_in_time(source, target):
        source.write_bytes(BODY + b" of another kind")
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", change_in_time)
    with pytest.raises(WeightsError, match=r"model\.pth changed while it was copied: import it again"):
        import_weights(file)
    assert names_in(folder) == []


def test_import_of_an_unknown_file_needs_a_name(file, folder):
    with pytest.raises(
        WeightsError, match=rf"not a file of the registry \(SHA-256 {SHA256}\): give it a name with --as"
    ):
        import_weights(file)
    assert not folder.exists()


def test_own_weights_under_an_own_name(file, folder):
    stored = import_weights(file, "my-net.2")
    assert stored.path == folder / "my-net.2.pth"
    found = resolve_weights(RegistryWeights(name="my-net.2"))
    assert (found.kind, found.name, found.path, found.sha256) == ("registry", "my-net.2", stored.path, SHA256)


def test_an_own_name_is_not_given_twice(file, folder, tmp_path):
    import_weights(file, "mine")
    other = tmp_path / "other.pth"
    other.write_bytes(BODY + b"!")
    with pytest.raises(WeightsError, match=r"'mine' is taken by other weights \(.*mine.pth\): delete them or"):
        import_weights(other, "mine")


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a b", "x.partial"])
def test_names_that_are_no_names(file, folder, name):
    with pytest.raises(WeightsError, match="cannot name weights"):
        import_weights(file, name)


def test_a_registry_name_is_for_its_own_file_alone(file, folder, register):
    register(name="net", sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"model.pth is not net: expected SHA-256 {'0' * 64}, got {SHA256}"):
        import_weights(file, "net")
    assert not folder.exists()


def test_a_registry_file_goes_by_its_own_name(file, folder, register):
    register(name="net", sha256=SHA256)
    with pytest.raises(WeightsError, match=r"is net of the registry: import it under that name \(leave out --as\)"):
        import_weights(file, "mine")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html><body>404", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a git-lfs pointer.*git lfs pull"),
    ],
)
def test_files_that_are_no_model(tmp_path, folder, content, reason):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        import_weights(path, "mine")
    with pytest.raises(WeightsError, match=reason):
        resolve_weights(FileWeights(path=path))
    assert not folder.exists()


def test_import_of_nothing(tmp_path, folder):
    with pytest.raises(WeightsError, match=r"gone.pth: no such file"):
        import_weights(tmp_path / "gone.pth")
    text = tmp_path / "notes.md"
    text.write_text("hello")
    with pytest.raises(
        WeightsError, match=r"notes.md has not the suffix of a file of weights, expected one of \.pth, \.pt,"
    ):
        import_weights(text, "mine")


def test_import_into_a_folder_that_cannot_be_made(file, folder):
    folder.write_text("a file is in the way")
    with pytest.raises(WeightsError, match="cannot write weights to"):
        import_weights(file, "mine")


def test_verify_finds_damaged_missing_and_unrecorded_files(file, folder, tmp_path):
    for number, name in enumerate(("good", "bad", "gone")):
        file.write_bytes(BODY + bytes([number]))
        import_weights(file, name)
    bad = folder / "bad.pth"
    times = bad.stat()
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    os.utime(bad, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a failing disk does it: nothing shows but the bytes
    (folder / "gone.pth").unlink()
    (folder / "stray.pth").write_bytes(BODY)
    states = {verdict.name: (verdict.state, verdict.detail) for verdict in verify_weights()}
    assert {name: state for name, (state, _) in states.items()} == {
        "good": "ok",
        "bad": "damaged",
        "gone": "missing",
        "stray.pth": "unrecorded",
    }
    assert "get it again: emofuse weights import PATH --as bad" in states["bad"][1]
    assert "is gone" in states["gone"][1]
    assert [stored.name for stored in stored_weights()] == ["bad", "good"]


def test_verify_holds_the_record_against_the_registry(file, folder, register):
    import_weights(file, "net")
    register(name="net", sha256="0" * 8, url="https://example.org/net.pth")
    (verdict,) = verify_weights()
    assert verdict.state == "damaged"
    assert "the registry says 00000000...; get it again: emofuse weights fetch net" in verdict.detail


def test_verify_of_no_folder(folder):
    assert verify_weights() == []


def test_a_broken_record_is_no_crash(file, folder):
    import_weights(file, "net")
    for content in ("{", json.dumps({"name": "net"}), "[]"):
        (folder / "net.json").write_text(content)
        with pytest.raises(WeightsError, match=r"net.json is not a record of weights: delete it"):
            resolve_weights(RegistryWeights(name="net"))


def test_resolve_names_the_command_that_helps(folder):
    with pytest.raises(
        WeightsError, match=r"'resnet50-v1' are not on this machine. Get them: emofuse weights fetch resnet50-v1"
    ):
        resolve_weights(RegistryWeights(name="resnet50-v1"))
    with pytest.raises(WeightsError, match="Get them: emofuse weights import PATH --as mobilenet_v2-onnx"):
        resolve_weights(RegistryWeights(name="mobilenet_v2-onnx"))


def test_resolve_of_an_unknown_name_knows_imported_ones_too(file, folder):
    import_weights(file, "my-face-net")
    with pytest.raises(WeightsError, match=r"no weights named 'my-face-ne', did you mean 'my-face-net'\? See: emofuse"):
        resolve_weights(RegistryWeights(name="my-face-ne"))


def test_a_file_that_changed_is_seen_and_one_that_was_only_touched_is_not(file, folder):
    stored = import_weights(file, "net")
    os.utime(stored.path, ns=(1, 1))
    assert resolve_weights(RegistryWeights(name="net")).sha256 == SHA256
    stored.path.write_bytes(BODY[:-1])
    with pytest.raises(
        WeightsError, match=r"'net' are damaged: .*Get them again: emofuse weights import PATH --as net"
    ):
        resolve_weights(RegistryWeights(name="net"))


def test_random_weights_have_a_seed_and_no_file():
    found = resolve_weights(RandomWeights(seed=7))
    assert (found.kind, found.name, found.path, found.sha256, found.seed) == ("random", "random", None, None, 7)


def test_a_file_of_the_users_is_hashed_and_held_against_the_spec(file):
    found = resolve_weights(FileWeights(path=file))
    assert (found.kind, found.name, found.path, found.sha256) == ("file", "model.pth", file, SHA256)
    assert resolve_weights(FileWeights(path=file, sha256=SHA256)) == found
    with pytest.raises(WeightsError, match=f"the spec says SHA-256 {'0' * 64}, the file has {SHA256}"):
        resolve_weights(FileWeights(path=file, sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"no file of weights at .*gone: correct weights\.path"):
        resolve_weights(FileWeights(path=file.parent / "gone"))


def test_a_file_that_is_written_again_is_hashed_again(file):
    first = resolve_weights(FileWeights(path=file)).sha256
    file.write_bytes(BODY + b"more")
    assert resolve_weights(FileWeights(path=file)).sha256 != first
