"""`emofuse weights`: what is printed, and with which exit status it ends."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

import emofuse.weights
from emofuse.cli import weights as cli
from emofuse.errors import WeightsError
from emofuse.weights import registry, resolve, store
from emofuse.weights.registry import WeightsEntry

BODY = b"\x80\x02 weights"
SHA256 = hashlib.sha256(BODY).hexdigest()


def run(*args):
    """Exit status, stdout and stderr; errors of emofuse are raised, as `main` expects them."""
    result = CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(BODY)
    return path


@pytest.fixture
def served(monkeypatch):
    """Registers the weights `net` at a web server on the loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *args):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}/net.pth"
    entry = WeightsEntry(name="net", model="resnet18", licence="free", source="a test", url=url, sha256=SHA256)
    for module in (registry, store, resolve):
        monkeypatch.setattr(module, "REGISTRY", {**registry.REGISTRY, "net": entry})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield url
    web.shutdown()
    web.server_close()


def test_list_prints_folder_names_sizes_licences_and_what_is_here(folder, file):
    run("import", file, "--as", "mine")
    status, out, _ = run("list")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"Folder: {folder} (EMOFUSE_WEIGHTS_DIR sets another), 1 here"
    assert lines[1].split() == ["name", "model", "size", "licence", "source"]
    rows = {line.split()[0]: line for line in lines[2:]}
    assert rows["resnet50-v1"].split()[:4] == ["resnet50-v1", "resnet50", "97.8", "MiB"]
    assert "import only" in rows["squeezenet1_1-onnx"]
    assert "AGPL-3.0" in rows["yolov5nu"]
    assert rows["mine"].split()[:6] == ["mine", "your", "own", "0.0", "MiB", "here"]


def test_list_needs_no_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from emofuse.cli.weights import app\n"
        "assert CliRunner().invoke(app, ['list']).exit_code == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_fetch_says_where_the_file_is_and_nothing_of_a_download_that_is_short(folder, served):
    status, out, err = run("fetch", "net")
    assert status == 0
    assert out == f"net: {folder / 'net.pth'} ({len(BODY)} bytes, SHA-256 {SHA256})\n"
    assert err == ""
    assert run("fetch", "net")[:2] == (status, out)  # it is there: nothing is downloaded


def test_fetch_looks_at_all_names_before_the_first_download(folder, served):
    with pytest.raises(WeightsError, match="no weights named 'nett'"):
        run("fetch", "net", "nett")
    assert not folder.exists()


def test_import_prints_the_name_that_it_found(folder, file, served):
    status, out, _ = run("import", file)
    assert (status, out) == (0, f"net: {folder / 'net.pth'} ({len(BODY)} bytes, SHA-256 {SHA256})\n")


def test_verify_ends_with_1_if_a_file_is_damaged(folder, file):
    assert run("verify")[:2] == (0, f"No weights in {folder}\n")
    run("import", file, "--as", "mine")
    assert run("verify")[:2] == (0, "ok          mine\n")
    (folder / "mine.pth").write_bytes(BODY + b"!")
    status, out, _ = run("verify")
    assert status == 1
    assert out.startswith(f"damaged     mine  (SHA-256 was {SHA256}, is ")


def test_verify_ends_with_0_if_a_download_only_waits(folder, served):
    folder.mkdir()
    (folder / "net.pth.partial").write_bytes(b"half")
    status, out, _ = run("verify")
    assert status == 0
    assert out == "unfinished  net.pth.partial  (4 bytes of a download: fetch it again to resume it, or delete it)\n"


def test_where_no_hash_is_published_the_recorded_one_is_said_and_compared_later(folder, file, served, monkeypatch):
    entry = replace(registry.REGISTRY["net"], sha256=None)
    for module in (registry, store, emofuse.weights):
        monkeypatch.setattr(module, "REGISTRY", {"net": entry})
    monkeypatch.setattr(store, "why_damaged", lambda path: None)
    assert "a test; no published hash" in run("list")[1]
    _, out, _ = run("fetch", "net")
    assert SHA256 in out
    assert cli.UNPUBLISHED in out
    assert cli.UNPUBLISHED in run("import", file, "--as", "net")[1]
    assert run("verify")[0] == 0
    (folder / "net.pth").write_bytes(b"\x80\x02 other weights")
    code, out, _ = run("verify")
    assert code == 1
    assert f"SHA-256 was {SHA256}" in out


def test_with_a_published_hash_nothing_is_said_of_a_recorded_one(folder, served):
    assert cli.UNPUBLISHED not in run("fetch", "net")[1]
