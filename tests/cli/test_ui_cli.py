"""`emofuse ui` and `emofuse report --open` as a user calls them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from saved_runs import write_made_up_run
from typer.testing import CliRunner

from emofuse.cli import app, browser

UI = [sys.executable, "-c", "from emofuse.cli import main; main()", "ui"]


def test_the_page_is_served_until_ctrl_c_which_ends_with_a_sentence(tmp_path):
    write_made_up_run(tmp_path / "results" / "runs")
    command = [*UI, "results", "--no-open"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as process:
        url = re.fullmatch(r"Open on this machine: (http://127\.0\.0\.1:\d+/\S+/)\n", process.stdout.readline())[1]
        assert "results and follows what runs there. Ctrl-C ends." in process.stdout.readline()
        with urllib.request.urlopen(url) as answer:
            assert b"<h1>emofuse</h1>" in answer.read()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 0
    assert said == "The page of results is closed. Nothing was changed; what runs there goes on.\n"


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    done = CliRunner().invoke(app, ["ui", str(tmp_path / "nowhere"), "--no-open"])
    assert done.exit_code == 1
    assert "no such folder. Name the folder of your results, such as emofuse-runs" in str(done.exception)


@pytest.fixture
def displays(monkeypatch):
    """No display is there; a test may set one."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(browser.sys, "platform", "linux")
    return monkeypatch


def report(tmp_path):
    write_made_up_run(tmp_path / "runs")
    return CliRunner().invoke(app, ["report", str(tmp_path / "runs"), "--open"], catch_exceptions=False)


def test_report_opens_its_page(tmp_path, displays):
    opened = []
    displays.setenv("DISPLAY", ":1")
    displays.setattr(browser.webbrowser, "open", lambda url: opened.append(url) or True)
    done = report(tmp_path)
    assert done.exit_code == 0
    assert opened == [(tmp_path / "runs" / "report" / "index.html").resolve().as_uri()]
    assert "No browser" not in done.stderr


def test_report_without_a_browser_says_where_the_page_is_and_does_not_fail(tmp_path, displays):
    def refuse(url):
        raise browser.webbrowser.Error("could not locate runnable browser")

    displays.setattr(browser.webbrowser, "open", refuse)
    displays.setenv("DISPLAY", ":1")
    page = (tmp_path / "runs" / "report" / "index.html").resolve()
    done = report(tmp_path)
    assert done.exit_code == 0
    assert f"No browser can be opened here. The page is {page}\n" in done.stderr
    assert page.is_file()


def test_without_a_display_no_browser_is_looked_for(displays):
    displays.setattr(browser.webbrowser, "open", lambda url: pytest.fail("it would take this terminal"))
    assert not browser.open_in_browser("file:///page.html")
