"""The page in a real browser: it follows what runs, keeps focus and opened parts, and fits both widths."""

from __future__ import annotations

import pytest
from saved_runs import write_made_up_run

from emofuse.progress import TrainingState
from emofuse.results.progress import keep_progress
from emofuse.ui import WatchPage

LONG = "LBP+landmarks+action_units+places365+objects+resnet50+blendshapes+head_pose" * 2
LEAKS = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = ({ parentElement: parent }) =>
    parent && (getComputedStyle(parent).overflowX !== "visible" || scrolls(parent));
  const leaks = each => {
    const box = each.getBoundingClientRect();
    return box.width && (box.right > width + 1 || box.left < -1) && !scrolls(each);
  };
  return [...document.body.querySelectorAll("*")].filter(leaks)
    .map(each => each.tagName + "." + each.className + " " + each.textContent.slice(0, 40));
})()"""
"""The elements that leak out of the page sideways, apart from those in boxes that scroll."""


@pytest.fixture
def root(tmp_path, write_cache):
    import numpy as np

    write_made_up_run(tmp_path / "demo" / "runs", LONG)
    write_made_up_run(tmp_path / "other" / "runs", "<b>other</b>")
    streams = {"a_stream_with_a_long_name": ("backbone", np.ones((8, 2), np.float32), np.ones(8, np.uint8))}
    write_cache(tmp_path / "demo" / "features.zarr", ("joy",), np.zeros(8, np.int64), ["train"] * 8, streams)
    report = tmp_path / "demo" / "report"
    report.mkdir()
    (report / "index.html").write_text(
        "<!doctype html><title>R</title><link rel=icon href=data:,><p id=out>no</p><script>"
        "try { document.getElementById('out').textContent = String(origin) } catch (e) {}</script>"
    )
    (report / "report.json").write_text("{}")
    return tmp_path


def test_the_page_follows_a_run_without_losing_the_place_of_its_reader(browser, root):
    browser.show(1280)
    card = "[...document.querySelectorAll('article')].find(each => each.querySelector('details'))"
    with WatchPage(root) as opened, keep_progress(root / "demo", "pipeline", "demo", planned=9) as follower:
        browser.open(opened.url)
        assert browser.value("document.querySelectorAll('article').length") == 2
        browser.run(f"{card}.querySelector('details').open = true; {card}.querySelector('summary').focus()")
        for done in (1, 2):
            follower.update(TrainingState(runs=done, total=9, what="training", epoch=done, epochs=50))
            browser.until(f"document.body.textContent.includes('epoch {done} of 50')")
        assert browser.value(f"{card}.querySelector('details').open")
        assert browser.value(f"document.activeElement === {card}.querySelector('summary')")
        assert browser.value("document.title") == "1 running, 1 not running · emofuse"
        assert browser.problems() == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_leaks_out_of_the_page(browser, root, width, theme):
    browser.show(width, theme=theme)
    with WatchPage(root) as opened:
        browser.open(opened.url)
        browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert browser.value(LEAKS) == []
        assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        back = browser.value("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(245, 246, 249)", "dark": "rgb(18, 22, 29)"}[theme]
        assert browser.problems() == []


def test_a_report_opens_and_its_scripts_have_no_way_to_this_server(browser, root):
    browser.show(1280)
    with WatchPage(root) as opened:
        browser.open(f"{opened.url}files/demo/report/index.html")
        assert browser.value("document.getElementById('out').textContent") == "null"
        assert browser.value(f"fetch({opened.url!r}).then(() => 'reached', () => 'refused')") == "refused"


def test_the_page_says_when_its_server_has_ended(browser, root):
    browser.show(390)
    opened = WatchPage(root)
    browser.open(opened.url)
    opened.close()
    browser.until("document.body.textContent.includes('emofuse ui does not answer any more')")


def test_links_and_parts_are_reached_by_the_keyboard(browser, root):
    browser.show(1280)
    with WatchPage(root) as opened:
        browser.open(opened.url)
        seen = []
        for _ in range(4):
            browser.press("Tab")
            seen.append(browser.value("document.activeElement.tagName"))
    assert {"SUMMARY", "A"} <= set(seen)
