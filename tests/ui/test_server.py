"""The page is for this machine alone, hands out files of reports and nothing else, and writes nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil

import pytest
from saved_runs import write_made_up_run

from emofuse.errors import DeviceError, ResultsError
from emofuse.ui import WatchPage

EVIL = '<img src=x onerror="alert(1)">'


@pytest.fixture
def root(tmp_path):
    """Results with a report, and files beside it that are nobody's business."""
    root = tmp_path / "results"
    write_made_up_run(root / "demo" / "runs", EVIL)
    report = root / "demo" / "report"
    (report / "figures").mkdir(parents=True)
    (report / "index.html").write_text("<p>The report.</p>")
    (report / "report.json").write_text("{}")
    (report / "figures" / "one two.svg").write_text("<svg/>")
    (report / "script.py").write_text("secret")
    (report / ".hidden.html").write_text("secret")
    (root / "demo" / "secret.html").write_text("secret")
    (tmp_path / "outside.html").write_text("secret")
    return root


@pytest.fixture
def page(root):
    with WatchPage(root) as opened:
        yield opened


def get(page, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*page.address, timeout=120)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer


def below(page, path):
    return get(page, page.url.partition(str(page.address[1]))[2] + path)


def test_the_page_and_its_numbers_are_of_the_folder(page, root):
    status, text, answer = below(page, "")
    assert status == 200
    assert str(root) in text
    assert 'href="files/demo/report/index.html"' in text
    status, numbers, _ = below(page, "state.json")
    assert json.loads(numbers)["places"][0]["best"]["name"] == EVIL
    policy = answer.getheader("Content-Security-Policy")
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert text.count(f'nonce="{nonce}"') == 2
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert below(page, "")[2].getheader("Content-Security-Policy") != policy


def test_texts_of_files_are_escaped(page):
    assert EVIL not in below(page, "")[1]
    assert "&lt;img src=x onerror=" in below(page, "")[1]


def test_the_page_loads_nothing_from_elsewhere(page):
    assert not re.findall(r"https?://|src=|@import|url\(", below(page, "")[1].replace("&lt;img src=x", ""))


def test_files_of_reports_are_handed_out_in_a_sandbox(page):
    status, text, answer = below(page, "files/demo/report/index.html")
    assert (status, text) == (200, "<p>The report.</p>")
    policy = answer.getheader("Content-Security-Policy")
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # so that it is that of default-src: none
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert below(page, "files/demo/report/figures/one%20two.svg")[2].getheader("Content-Type") == "image/svg+xml"


@pytest.mark.parametrize(
    "path",
    [
        "demo/secret.html",
        "demo/runs",
        "demo/report",
        "demo/report/",
        "demo/report/script.py",
        "demo/report/.hidden.html",
        "demo/report/../secret.html",
        "demo/report/%2e%2e/secret.html",
        "demo/report/..%2fsecret.html",
        "demo/report/..%5csecret.html",
        "demo/report/%00index.html",
        "demo/report/../../../outside.html",
        "../outside.html",
        "%2e%2e/outside.html",
        "/etc/passwd",
        "//etc/passwd",
        "demo/report/%ff",
        "demo/report/index.html/x",
    ],
)
def test_everything_else_is_no_file_of_a_report(page, path):
    status, text, _ = below(page, f"files/{path}")
    assert (status, text) == (404, "no such file of a report")


def test_links_that_lead_out_of_the_report_are_refused(page, root, tmp_path):
    report = root / "demo" / "report"
    (report / "file.html").symlink_to(tmp_path / "outside.html")
    (report / "folder").symlink_to(tmp_path)
    (report / "beside.html").symlink_to(root / "demo" / "secret.html")
    (report / "inside.html").symlink_to(report / "index.html")
    for path in ("file.html", "folder/outside.html", "beside.html"):
        assert below(page, f"files/demo/report/{path}")[0] == 404
    assert below(page, "files/demo/report/inside.html")[0] == 200


def test_a_report_folder_that_becomes_a_link_is_refused(page, root, tmp_path):
    below(page, "")
    shutil.move(root / "demo" / "report", tmp_path / "moved")
    (root / "demo" / "report").symlink_to(tmp_path / "moved")
    assert below(page, "files/demo/report/index.html")[0] == 404


def test_a_pipe_in_a_report_is_not_waited_for(page, root):
    os.mkfifo(root / "demo" / "report" / "pipe.html")
    assert below(page, "files/demo/report/pipe.html")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_of_another_host_is_refused(page, host):
    path = page.url.partition(str(page.address[1]))[2]
    status, text, _ = get(page, path, Host=host)
    assert (status, text) == (403, "this page is for its own machine alone")


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1:1", "localhost"])
def test_a_forwarded_port_is_allowed(page, host):
    assert get(page, page.url.partition(str(page.address[1]))[2], Host=host)[0] == 200


def test_without_the_random_word_there_is_nothing(page):
    assert [get(page, path)[0] for path in ("/", "/state.json", "/files/demo/report/index.html")] == [404] * 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(page, method):
    assert get(page, page.url.partition(str(page.address[1]))[2], method)[0] == 501


def test_nothing_is_written(page, root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for path in ("", "state.json", "files/demo/report/index.html"):
        assert below(page, path)[0] == 200
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_only_the_loopback_address_is_bound(page, root):
    assert page.address[0] == "127.0.0.1"
    with pytest.raises(DeviceError, match=r"the page of emofuse ui is for this machine alone: .* not to '0\.0\.0\.0'"):
        WatchPage(root, host="0.0.0.0")


def test_a_port_that_is_taken_and_a_folder_that_is_missing_are_named(page, root):
    with pytest.raises(DeviceError, match=rf"port {page.address[1]} of this machine cannot be used .*--port 0"):
        WatchPage(root, page.address[1])
    with pytest.raises(ResultsError, match=r"no such folder\. Name the folder of your results, such as emofuse-runs"):
        WatchPage(root / "nowhere")


def test_a_folder_that_vanishes_is_an_empty_page(page, root):
    shutil.rmtree(root)
    status, text, _ = below(page, "")
    assert status == 200
    assert "No pipeline, sweep, cache or report was found below this folder" in text
