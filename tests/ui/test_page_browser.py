"""The page in a real browser: it follows what runs, keeps focus and opened parts, and fits both widths."""

from __future__ import annotations

import asyncio

import pytest
from chromium import LEAKS, open_chromium
from saved_runs import write_made_up_run

from emofuse.progress import TrainingState
from emofuse.progress_file import keep_progress
from emofuse.ui import WatchPage

LONG = "LBP+landmarks+action_units+places365+objects+resnet50+blendshapes+head_pose" * 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


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
    async def steps(page):
        await page.open(opened.url, 1280)
        before = await page.value("document.querySelectorAll('article').length")
        card = "[...document.querySelectorAll('article')].find(each => each.querySelector('details'))"
        await page.value(f"{card}.querySelector('details').open = true")
        await page.value(f"{card}.querySelector('summary').focus()")
        for done in (1, 2):
            follower.update(TrainingState(runs=done, total=9, what="training", epoch=done, epochs=50))
            await page.until(f"document.body.textContent.includes('epoch {done} of 50')")
        kept = f"{card}.querySelector('details').open && document.activeElement === {card}.querySelector('summary')"
        return before, await page.value(kept), await page.value("document.title"), page.problems

    with WatchPage(root) as opened, keep_progress(root / "demo", "pipeline", "demo", planned=9) as follower:
        before, is_kept, title, problems = browser.visit(steps)
    assert before == 2
    assert is_kept
    assert title == "1 running, 1 not running · emofuse"
    assert problems == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_leaks_out_of_the_page(browser, root, width, scheme):
    async def steps(page):
        await page.open(opened.url, width, scheme=scheme)
        await page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        back = await page.value("getComputedStyle(document.body).backgroundColor")
        is_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return await page.value(LEAKS), await page.value(is_wide), back, page.problems

    with WatchPage(root) as opened:
        leaks, is_wide, back, problems = browser.visit(steps)
    assert leaks == []
    assert not is_wide
    assert back == {"light": "rgb(245, 246, 249)", "dark": "rgb(18, 22, 29)"}[scheme]
    assert problems == []


def test_a_report_opens_and_its_scripts_have_no_way_to_this_server(browser, root):
    async def steps(page):
        await page.open(f"{opened.url}files/demo/report/index.html", 1280)
        origin = await page.value("document.getElementById('out').textContent")
        tried = await page.value(f"fetch({opened.url!r}).then(() => 'reached', () => 'refused')")
        return origin, tried

    with WatchPage(root) as opened:
        assert browser.visit(steps) == ("null", "refused")


def test_the_page_says_when_its_server_has_ended(browser, root):
    async def steps(page):
        await page.open(opened.url, 390)
        await asyncio.to_thread(opened.close)
        await page.until("document.body.textContent.includes('emofuse ui does not answer any more')")

    opened = WatchPage(root)
    browser.visit(steps)


def test_links_and_parts_are_reached_by_the_keyboard(browser, root):
    async def steps(page):
        await page.open(opened.url, 1280)
        seen = []
        for _ in range(4):
            await page.press("Tab")
            seen.append(await page.value("document.activeElement.tagName"))
        return seen

    with WatchPage(root) as opened:
        seen = browser.visit(steps)
    assert {"SUMMARY", "A"} <= set(seen)
