"""Figures of contributions: what they show, and what they leave out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from emofuse.analysis.attributions import Attribution, StreamAttribution
from emofuse.analysis.sections.attributions import attributions_section


def test_a_stream_without_contributions_has_a_table_and_no_figure_of_zeros():
    target = SimpleNamespace(part="class")
    item = SimpleNamespace(streams=("moves", "still"), random_streams=(), target=target)
    tested = SimpleNamespace(label="both", classes=("joy", "fear"), item=item)
    streams = {
        name: StreamAttribution(("first", "second"), size * np.array([[1.0, -1.0], [0.5, 0.2]]), np.full(2, size))
        for name, size in (("moves", 0.3), ("still", 1e-6))
    }
    found = Attribution(("joy", "fear"), np.array([[0.3, 0.0], [0.2, 0.0]]), streams, 10, 1e-4, 1.0)
    section = attributions_section(tested, found)
    stems = ["attribution_of_streams", "attribution_of_moves", "attribution_of_still"]
    assert [figure.stem for figure in section.figures] == stems[:2]
    assert [table.stem for table in section.tables] == stems
