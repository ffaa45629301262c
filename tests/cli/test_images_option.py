"""`--no-images` of the commands that write a report: it reaches what they call."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import ResultsError

PIPELINE = {
    "dataset": {"kind": "demo", "images": 64, "seed": 3},
    "cache": {"block_rows": 16, "streams": [{"kind": "lbp"}]},
    "runs": [{"name": "LBP", "features": {"streams": ["lbp"]}}],
}


@pytest.mark.parametrize(
    ("command", "function", "place"),
    [
        (["run", "small.yaml", "--workers", "0"], "emofuse.pipeline.run_pipeline", 1),
        (["sweep", "best", "some.zarr"], "emofuse.sweep.best.run_best", 3),
        (["evaluate", "--run", "a", "--cache", "b", "--out", "c"], "emofuse.evaluation.evaluate", 0),
    ],
)
def test_images_are_shown_unless_they_are_switched_off(tmp_path, monkeypatch, command, function, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(PIPELINE))
    given = []

    def stop(*arguments, **_):
        given.append(arguments[place].images)
        raise ResultsError("enough")

    monkeypatch.setattr(function, stop)
    monkeypatch.setattr("emofuse.cache.reader.open_cache", lambda path: path)
    for more in ([], ["--images"], ["--no-images"]):
        CliRunner().invoke(app, [*command, *more])
    assert given == [None if "run" in command else True, True, False]
