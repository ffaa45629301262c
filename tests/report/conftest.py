"""Fixtures of the tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_runs import RunMaker

from emofuse.report import rendering
from emofuse.report.comparisons import Uncertainty
from emofuse.statistics import Resampling


@pytest.fixture
def unmeasured() -> Uncertainty:
    """No interval and no comparison: for what does not show them."""
    return Uncertainty(Resampling(), {}, {}, 0, ())


@pytest.fixture
def svg_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without PNG and PDF, for tests of many figures that look at captions, names and SVG files."""
    render = rendering._bytes

    def without_others(figure: object, ending: str, box: object) -> bytes:
        return render(figure, ending, box) if ending == "svg" else b""

    monkeypatch.setattr("emofuse.report.rendering._bytes", without_others)


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """Writes a made-up run into `make_run.folder`."""
    return RunMaker(tmp_path / "runs")
