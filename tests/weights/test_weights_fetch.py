"""Downloads: whole or not there, resumed, and every failure in words of its own."""

from __future__ import annotations

import hashlib
import io
import socket
import ssl
import zipfile
from urllib.error import URLError

import numpy as np
import pytest

from emofuse.errors import WeightsError
from emofuse.weights import fetch, fetch_weights, find_entry, stored_weights, verify_weights

BODY = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(fetch, "_BACKOFF_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def entry(server, register, folder):
    server.body = BODY
    return register(name="net", url=server.url, sha256=SHA256[:8])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetch_brings_the_file_and_its_record(entry, folder):
    seen = []
    stored = fetch_weights("net", on_progress=lambda done, total: seen.append((done, total)))
    assert stored.path == folder / "net.pth"
    assert stored.path.read_bytes() == BODY
    assert (stored.sha256, stored.size_bytes, stored.source) == (SHA256, len(BODY), entry.url)
    assert names_in(folder) == ["net.json", "net.pth"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_a_second_fetch_downloads_nothing(entry, server):
    first = fetch_weights("net")
    assert fetch_weights("net") == first
    assert len(server.asked) == 1


def test_a_damaged_file_is_fetched_again(entry, server, folder):
    fetch_weights("net")
    (folder / "net.pth").write_bytes(BODY[:-1] + b"x")
    fetch_weights("net")
    assert len(server.asked) == 2
    assert (folder / "net.pth").read_bytes() == BODY


def test_a_whole_file_without_a_record_gets_one(entry, server, folder):
    fetch_weights("net")
    (folder / "net.json").unlink()
    assert fetch_weights("net").sha256 == SHA256
    assert len(server.asked) == 1


def test_a_cut_connection_is_resumed_in_the_same_call(entry, server, folder):
    server.cuts = [300_000]
    fetch_weights("net")
    assert server.asked == [None, "bytes=300000-"]
    assert (folder / "net.pth").read_bytes() == BODY


def test_a_server_without_ranges_sends_the_whole_file_again(entry, server, folder):
    server.ranges, server.cuts = False, [300_000]
    fetch_weights("net")
    assert server.asked == [None, "bytes=300000-"]
    assert (folder / "net.pth").read_bytes() == BODY


def test_without_a_validator_nothing_is_resumed(entry, server, folder):
    server.etag, server.cuts = None, [300_000]
    fetch_weights("net")
    assert server.asked == [None, None]
    assert (folder / "net.pth").read_bytes() == BODY


def test_a_download_that_keeps_breaking_off_says_what_is_kept(entry, server, folder):
    server.cuts = [300_000, 0, 0, 0]
    with pytest.raises(
        WeightsError, match=r"after 300,000 of 700,000 bytes.*300,000 bytes are kept: emofuse weights fetch"
    ):
        fetch_weights("net")
    assert names_in(folder) == ["net.pth.partial", "net.pth.resume"]
    assert [verdict.state for verdict in verify_weights()] == ["unfinished"]
    assert fetch_weights("net").sha256 == SHA256
    assert server.asked[-1] == "bytes=300000-"
    assert names_in(folder) == ["net.json", "net.pth"]


def test_progress_keeps_a_slow_line_going(entry, server):
    server.cuts = [100_000] * 6
    assert fetch_weights("net").sha256 == SHA256
    assert len(server.asked) == 7


def test_another_file_on_the_server_is_not_appended(entry, server, folder):
    server.body, server.cuts = b"\x00" * 700_000, [300_000, 0, 0, 0]
    with pytest.raises(WeightsError, match="bytes are kept"):
        fetch_weights("net")
    server.body, server.etag = BODY, '"second"'
    assert fetch_weights("net").sha256 == SHA256
    assert server.asked[-1] == "bytes=300000-"


def test_a_partial_file_that_was_whole_is_not_downloaded_again(entry, server, folder):
    folder.mkdir()
    (folder / "net.pth.partial").write_bytes(BODY)
    assert fetch_weights("net").sha256 == SHA256
    assert server.asked == []
    assert names_in(folder) == ["net.json", "net.pth"]


def test_a_partial_file_longer_than_the_servers_is_begun_again(entry, server, folder):
    folder.mkdir()
    (folder / "net.pth.partial").write_bytes(b"x" * 800_000)
    (folder / "net.pth.resume").write_text(f'{server.url}\n"first"\n')
    assert fetch_weights("net").sha256 == SHA256
    assert server.asked == ["bytes=800000-", None]


def test_wrong_hash_leaves_nothing(entry, server, folder):
    server.body = BODY[::-1]
    with pytest.raises(WeightsError, match=rf"is not net: expected SHA-256 {SHA256[:8]}\.\.\., got .*Nothing was kept"):
        fetch_weights("net")
    assert names_in(folder) == []


def test_truncated_file_of_a_server_that_gives_no_length_leaves_nothing(entry, server, folder):
    server.length, server.cuts = False, [300_000]
    with pytest.raises(WeightsError, match="is not net: expected SHA-256"):
        fetch_weights("net")
    assert names_in(folder) == []


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>Log in</html>", b"\n <html lang='en'>", b"<?xml version='1.0'?><Error/>"]
)
def test_a_web_page_leaves_nothing(entry, server, folder, page):
    server.body = page
    with pytest.raises(WeightsError, match="is a web page, not a model"):
        fetch_weights("net")
    assert names_in(folder) == []
    assert len(server.asked) == 1


def test_an_empty_answer_leaves_nothing(entry, server, folder):
    server.body = b""
    server.length = False
    with pytest.raises(WeightsError, match="sent is empty"):
        fetch_weights("net")
    assert names_in(folder) == []


def test_404_is_final(entry, server, folder):
    server.statuses = [404]
    with pytest.raises(WeightsError, match=r"the server answered HTTP 404 Not Found\. Check the names of"):
        fetch_weights("net")
    assert len(server.asked) == 1
    assert names_in(folder) == []


def test_503_is_tried_again(entry, server):
    server.statuses = [503, 429]
    assert fetch_weights("net").sha256 == SHA256


def test_a_server_that_stays_away_is_given_up(entry, server, folder):
    server.statuses = [503] * 10
    with pytest.raises(WeightsError, match=r"no download from .* \(HTTP 503 Service Unavailable\)"):
        fetch_weights("net")
    assert len(server.asked) == 4


def test_no_network_says_so_and_how_to_go_on(register, folder, monkeypatch):
    def no_names(*args, **kwargs):
        raise URLError(socket.gaierror(-2, "Name or service not known"))

    register(name="net", url="http://download.invalid/net.pth", sha256=SHA256)
    monkeypatch.setattr(fetch, "urlopen", no_names)
    with pytest.raises(WeightsError, match=r"Name or.*Check the network.*emofuse weights import PATH --as net"):
        fetch_weights("net")
    assert names_in(folder) == []


def test_no_server_at_the_address(register, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    register(name="net", url=f"http://127.0.0.1:{port}/net.pth", sha256=SHA256)
    with pytest.raises(WeightsError, match=r"no download from .*refused.*Check the network"):
        fetch_weights("net")


def test_a_silent_server_times_out(entry, register, folder, monkeypatch):
    monkeypatch.setattr(fetch, "_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        register(name="mute", url=f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth", sha256=SHA256)
        with pytest.raises(WeightsError, match="timed out"):
            fetch_weights("mute")


def test_an_untrusted_certificate_is_not_tried_again(entry, monkeypatch):
    calls = []

    def distrust(*args, **kwargs):
        calls.append(1)
        error = ssl.SSLCertVerificationError()
        error.verify_message = "self-signed certificate"
        raise URLError(error)

    monkeypatch.setattr(fetch, "urlopen", distrust)
    with pytest.raises(WeightsError, match=r"certificate is not trusted \(self-signed certificate\)"):
        fetch_weights("net")
    assert len(calls) == 1


def test_only_web_addresses_are_downloaded(register, folder, tmp_path):
    register(name="net", url=(tmp_path / "x.pth").as_uri(), sha256=SHA256)
    with pytest.raises(WeightsError, match="only http and https are downloaded"):
        fetch_weights("net")


def test_files_without_a_published_hash_are_checked_as_archives(server, register, folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data/0", BODY)
    server.body = buffer.getvalue()
    register(name="netu", url=server.url.replace(".pth", ".pt"))
    spoilt = bytearray(server.body)
    spoilt[1000] ^= 1
    server.body = bytes(spoilt)
    with pytest.raises(WeightsError, match=r"the checksum of data/0 inside it is wrong. Nothing was kept"):
        fetch_weights("netu")
    server.body = buffer.getvalue()[:-50]
    with pytest.raises(WeightsError, match="is not a complete zip archive"):
        fetch_weights("netu")
    server.body = buffer.getvalue()
    assert fetch_weights("netu").file == "netu.pt"
    assert [stored.name for stored in stored_weights()] == ["netu"]


def test_import_only_weights_cannot_be_fetched(folder):
    with pytest.raises(WeightsError, match=r"only imported: emofuse weights import PATH --as squeezenet1_1-onnx"):
        fetch_weights("squeezenet1_1-onnx")


def test_unknown_names_get_a_hint(folder):
    with pytest.raises(WeightsError, match=r"no weights named 'resnet50-v3' .*did you mean 'resnet50-v.'\?"):
        fetch_weights("resnet50-v3")
    with pytest.raises(WeightsError, match="See: emofuse weights list"):
        find_entry("zzz")


def test_a_folder_that_cannot_be_made(entry, folder):
    folder.write_text("a file is in the way")
    with pytest.raises(WeightsError, match=r"cannot write .*(File exists|Not a directory).*set EMOFUSE_WEIGHTS_DIR"):
        fetch_weights("net")


def test_a_disk_that_is_too_small_is_seen_before_the_download(entry, folder, monkeypatch):
    class Disk:
        free = 1_000

    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: Disk)
    with pytest.raises(WeightsError, match="has 0 MiB free, the download needs 1: free some space"):
        fetch_weights("net")


def test_a_disk_that_fills_up_keeps_nothing(entry, server, folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_receive", full)
    with pytest.raises(WeightsError, match=r"cannot write weights to .*No space left on device. Free some space"):
        fetch_weights("net")
    assert names_in(folder) == []
