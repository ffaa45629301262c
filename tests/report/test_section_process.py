"""The second process that draws figures: what it draws is what this process would draw."""

from __future__ import annotations

import pytest

from emofuse.report import section_process
from emofuse.report.figures import draw_figures
from emofuse.report.fonts import choose_lettering
from emofuse.report.grouping import group_runs


@pytest.fixture
def results(make_run):
    runs = [make_run(name, classes=("joy", "fear"), rows=40, epochs=2) for name in ("a", "b")]
    return group_runs(runs, "runs")


def test_figures_of_a_second_process_have_the_same_bytes_in_the_same_order(results, unmeasured, monkeypatch):
    here = draw_figures(results, unmeasured).sections
    monkeypatch.setattr(section_process, "_FEWEST", 2)
    monkeypatch.setattr(section_process.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(section_process, "draw_section", None)  # nothing is drawn here
    lettering = choose_lettering(results)
    items = [(item, item.label) for item in results.featured]
    with section_process.drawing_sections(items, results, unmeasured, {}, lettering) as sections:
        assert sections() == here


def test_what_a_second_process_cannot_draw_is_drawn_here(results, unmeasured, monkeypatch):
    asked = []
    monkeypatch.setattr(section_process, "_FEWEST", 2)
    monkeypatch.setattr(section_process.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(section_process, "command", lambda module: asked.append(module) or ["false"])
    monkeypatch.setattr(section_process, "draw_section", lambda item, *_: item.label)
    lettering = choose_lettering(results)
    items = [(item, item.label) for item in results.featured]
    with section_process.drawing_sections(items, results, unmeasured, {}, lettering) as sections:
        assert sections() == tuple(item.label for item in results.featured)
    assert asked == ["emofuse.report.section_process"]
