"""Saved runs and a report for trackers."""

from __future__ import annotations

import pytest
from PIL import Image
from saved_runs import write_made_up_run

from emofuse.results import list_runs
from emofuse.tracking import find_results


@pytest.fixture
def place(tmp_path):
    """The results of a small sweep: two runs, a reference model, a report."""
    out = tmp_path / "out"
    write_made_up_run(out / "runs", "net", seed=0, score=0.5, notes=["One row is left out."])
    write_made_up_run(out / "runs", "net", seed=1, score=0.625)
    report = out / "report"
    (report / "figures").mkdir(parents=True)
    (report / "index.html").write_text("<p>The page.</p>")
    (report / "summary.md").write_text("| a |\n| - |\n| 1 |\n")
    Image.new("RGB", (4, 3)).save(report / "figures" / "progression.png")
    return find_results(out)


@pytest.fixture
def records(place):
    return list_runs(place.runs)
