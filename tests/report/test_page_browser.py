"""The page in a real browser: sorting, filtering, samples, themes, sizes. Skipped where no Chromium is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_up_runs import RunMaker
from PIL import Image

from emofuse.datasets.manifest import Manifest
from emofuse.report import write_report
from emofuse.results import read_predictions, run_dir

CLASSES = ("joy", "fear", "a long name of a label")
EVIL = '"><img src=x onerror="window.evil=1"></script><script>window.evil=2</script>'
SEEDS = 50
"""Runs of two configurations. With the one of the third, the list of runs is longer than a table that is HTML alone."""
ROWS = 2 * SEEDS + 1
CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with long tables, samples with pictures, and a configuration whose name is an attack."""
    folder = tmp_path_factory.mktemp("page")
    make = RunMaker(folder / "runs")
    dataset = {"name": "faces", "kind": "folder"}
    how = {"classes": CLASSES, "rows": 120, "epochs": 4, "dataset": dataset}
    for seed in range(SEEDS):
        record = make("LBP", ("lbp",), skill=0, seed=seed, **how)
        make("ResNet-50", ("resnet50",), skill=0, seed=seed, head="logistic", **how)
    make(EVIL, ("lbp", "resnet50"), skill=0.6, **how)
    ids = read_predictions(run_dir(make.folder, record.digest)).sample_id.tolist()
    (folder / "images").mkdir()
    for place, sample in enumerate(ids):
        colour = np.full((300, 200, 3), (place * 9 % 256, 90, 160), dtype=np.uint8)
        Image.fromarray(colour).save(folder / "images" / f"{sample}.png")
    (folder / "images" / f"{ids[0]}.png").unlink()
    table = pl.DataFrame({"sample_id": ids, "path": [f"{sample}.png" for sample in ids]}).with_columns(
        split=pl.lit("test"), label=pl.lit("joy"), problem=pl.lit(None, pl.String)
    )
    Manifest(table, CLASSES, folder / "images", dataset).write(folder / "features.manifest.parquet")
    return write_report(make.folder, folder / "report", command="emofuse run faces").page


@pytest.fixture
def tab(browser, page):
    """The page in a window of 1280 pixels, just opened."""
    browser.show(1280)
    browser.open(page)
    return browser


def run(browser, script):
    """Run a script with the functions of `page_checks.js`."""
    return browser.run(CHECKS + script)


def test_the_page_opens_without_an_error_and_asks_for_nothing(tab, page):
    assert tab.problems() == []
    assert {url for url in tab.requests() if not url.startswith("data:")} == {page.absolute().as_uri()}
    assert tab.run("return document.title") == "Fusion configurations on faces"


def test_interactive_figures_are_drawn_when_they_are_asked_for_and_names_of_the_data_are_not_run(tab):
    assert tab.run("return [typeof window.Plotly, document.querySelectorAll('.main-svg').length]") == ["undefined", 0]
    names = tab.run(
        """
        const figures = [...document.querySelectorAll("figure[data-chart]")];
        for (const each of figures) each.querySelector(".chart button").click();
        return figures.map((each) => each.dataset.chart);
        """
    )
    assert sorted(names) == ["parts", "scores", "training"]
    assert run(tab, "return await waitForCharts()") == [["yes", True]] * 3
    drawn = tab.run("return document.querySelector('[data-chart=scores] .chart-box').data[0].x")
    data = json.loads(tab.run("return byId('charts-data').textContent"))
    assert drawn == data["scores"]["scores"][0]["mean"]
    run(tab, "openAll()")
    assert EVIL in tab.run("return document.body.textContent")
    assert tab.run("return window.evil ?? null") is None
    assert tab.problems() == []
    tab.run("document.querySelector('[data-chart=scores] .chart button').click()")
    assert tab.run("return document.querySelector('[data-chart=scores] .chart-box').hidden")


def test_an_interactive_figure_keeps_its_height_when_the_window_changes(browser, page):
    browser.show(1280)
    browser.open(page)
    browser.run("document.querySelector('[data-chart=scores] .chart button').click()")
    height = "document.querySelector('[data-chart=scores] .main-svg').getBoundingClientRect().height"
    assert run(browser, "return (await waitForCharts()).length") == 1
    before = browser.value(height)
    assert before > 150
    width = "document.querySelector('[data-chart=scores] .main-svg').getBoundingClientRect().width"
    browser.show(390)
    browser.until(f"{width} < 390")
    assert browser.value(height) == before


def test_runs_are_sorted_by_buttons_that_say_how(tab):
    first = run(tab, 'sortBy("Test accuracy"); return column("Test accuracy")')
    assert first == sorted(first, reverse=True)
    assert run(tab, 'return head("Test accuracy").getAttribute("aria-sort")') == "descending"
    everything = run(tab, 'return JSON.parse(figure.querySelector("script.rows").textContent)')
    accuracies = [row[run(tab, 'return place("Test accuracy")')] for row in everything]
    assert first[0] == max(accuracies)
    run(tab, 'head("Test accuracy").querySelector("button").focus()')
    tab.press("Enter")
    assert run(tab, 'return column("Test accuracy")')[0] == min(accuracies)
    assert run(tab, 'return head("Test accuracy").getAttribute("aria-sort")') == "ascending"
    assert run(tab, 'return figure.querySelectorAll("th[aria-sort]").length') == 1


def test_short_tables_are_sorted_with_undefined_values_last(tab):
    falling, rising = tab.run(
        """
        const isScores = (each) => each.textContent.includes("Scores on the test");
        const table = [...document.querySelectorAll("figure.table")].find(isScores).querySelector("table");
        const cells = [...table.tHead.rows[0].cells];
        const place = cells.findIndex((head) => head.textContent.includes("accuracy"));
        const values = () => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent.trim().split(" ")[0]);
        cells[place].querySelector("button").click();
        const falling = values();
        cells[place].querySelector("button").click();
        return [falling, values()];
        """
    )
    numbers = [float(value.replace("−", "-")) for value in falling[:-1]]
    assert len(numbers) == 2
    assert numbers == sorted(numbers, reverse=True)
    assert falling[-1] == rising[-1] == "–"
    assert rising[:-1] == falling[:-1][::-1]


def test_runs_are_filtered_by_words_and_menus_and_the_number_of_rows_is_said(tab):
    assert run(tab, "return status()") == f"All {ROWS} rows."
    said, heads = run(tab, 'find("logistic resnet-50"); return [status(), column("Head")]')
    assert said == f"{SEEDS} of {ROWS} rows match."
    assert set(heads) == {"logistic"}
    nothing = run(tab, 'find("nothing of this kind"); return [status(), column("Head")]')
    assert nothing == [f"0 of {ROWS} rows match.", []]
    assert run(tab, 'find(""); choose("Has stream", "lbp"); return status()') == f"{SEEDS + 1} of {ROWS} rows match."
    assert run(tab, 'choose("Head", "concat"); return status()') == f"{SEEDS + 1} of {ROWS} rows match."
    assert run(tab, 'choose("Configuration", "LBP"); return status()') == f"{SEEDS} of {ROWS} rows match."
    assert run(tab, 'choose("Has stream", "resnet50"); return status()') == f"0 of {ROWS} rows match."


def test_long_tables_are_turned_page_by_page(tab):
    pages = 'const [before, after] = figure.querySelectorAll(".pages button");'
    state = "return [before.disabled, column('Run').length, figure.querySelector('.pages span').textContent]"
    assert run(tab, pages + state) == [True, 25, f"1–25 of {ROWS}"]
    first = run(tab, "return column('Run')")
    second = run(tab, pages + "after.click(); return column('Run')")
    assert len(set(first) | set(second)) == 50
    assert run(tab, pages + "while (!after.disabled) after.click(); return column('Run').length") == ROWS % 25


def test_a_cell_opens_its_samples_and_escape_closes_them(tab):
    count = tab.run(
        """
        const isLbp = (each) => each.dataset.configuration === "LBP";
        const table = [...document.querySelectorAll("table.confusion")].find(isLbp);
        const button = table.querySelector('td[data-cell="0,1"] button');
        button.focus();
        return button.querySelector(".count").textContent;
        """
    )
    tab.press("Enter")
    shown = tab.run(
        """
        const dialog = document.querySelector("dialog"), images = [...dialog.querySelectorAll("img")];
        await Promise.all(images.map((each) => each.decode()));
        return {
          open: dialog.open, title: dialog.querySelector("h2").textContent, text: byId("cell-text").textContent,
          cards: [...dialog.querySelectorAll(".card")].map((each) => each.innerText),
          sizes: images.map((each) => [each.naturalWidth, each.naturalHeight]),
        };
        """
    )
    assert shown["open"]
    assert shown["title"] == "Label joy, answer fear"
    assert f"LBP answered fear {count} times to samples labelled joy." in shown["text"]
    assert "1 listed sample has no picture: no such file." in shown["text"]
    for card in shown["cards"]:
        assert "Label: joy\nAnswer: fear" in card
        assert f"of {SEEDS} runs" in card
        assert "lbp: " in card
        assert "resnet50: " in card
    assert shown["sizes"]
    assert max(max(size) for size in shown["sizes"]) <= 160
    tab.press("Escape")
    closed = "return [document.querySelector('dialog').open, document.activeElement.closest('td').dataset.cell]"
    assert tab.run(closed) == [False, "0,1"]


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_leaks_out_of_its_box(browser, page, width):
    browser.show(width)
    browser.open(page)
    assert run(browser, "return leaks()") == []
    figures = run(browser, "return figureSizes()")
    assert len(figures) > 10
    assert all(scale > 90 or is_wide_window for scale, is_wide_window in figures)
    assert all(gap >= 12 for gap in run(browser, "return buttonGaps()"))
    wide = "document.querySelector('main').append(make('p', { style: 'width: 3000px; max-width: none' }, 'wide'));"
    assert run(browser, wide + "return leaks().length") >= 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_enough_contrast_in_both_themes(browser, page, theme):
    browser.show(1280, theme=theme)
    browser.open(page)
    count, poor = run(browser, "return poorTexts()")
    assert count > 500
    assert poor == []
    pale = "document.querySelector('.lead').style.color = 'color-mix(in srgb, var(--ink) 40%, var(--paper))';"
    assert run(browser, pale + "return poorTexts()[1].length") == 1


def test_the_page_is_printed_whole(browser, page):
    browser.show(720, theme="dark")
    browser.open(page)
    try:
        browser.send("Emulation.setEmulatedMedia", media="print")
        wide, images, paper = browser.run(
            """
            for (const each of document.querySelectorAll("details")) each.open = true;
            const images = [...document.querySelectorAll("main img")];
            await Promise.all(images.map((each) => each.decode().catch(() => null)));
            return [document.documentElement.scrollWidth - innerWidth, images.map((each) => each.naturalWidth > 0),
              getComputedStyle(document.body).backgroundColor];
            """
        )
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
    assert wide <= 0
    assert len(images) > 10
    assert all(images)
    assert paper == "rgb(255, 255, 255)"


def test_the_theme_follows_the_system_until_the_reader_switches(browser, page):
    browser.show(1280, theme="dark")
    browser.open(page)
    paper = "return getComputedStyle(document.body).backgroundColor"
    dark = browser.run(paper)
    assert browser.run("return byId('theme').textContent") == "Light theme"
    browser.run("byId('theme').click()")
    assert browser.run(paper) == "rgb(255, 255, 255)"
    assert dark != "rgb(255, 255, 255)"
    browser.run("byId('theme').click(); localStorage.removeItem('emofuse-theme')")
    assert browser.run(paper) == dark


def test_without_scripts_the_page_has_its_tables_and_says_where_all_rows_are(browser, page):
    browser.show(1280)
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        text = browser.run("return document.body.innerText")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert f"The first 25 of {ROWS} rows; runs.csv has all of them." in text
    assert "Most confident mistakes" in text
    assert "Samples that fusion rescued" in text
    assert "Dark theme" not in text
    assert "Choose a cell" not in text
    assert "Interactive figure" not in text
