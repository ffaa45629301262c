"""Pictures of local binary patterns."""

from __future__ import annotations

import numpy as np

from emofuse.analysis.code_plot import pattern_of, plot_codes
from emofuse.streams.texture import lbp_codes


def test_a_pattern_is_the_one_that_the_stream_gives_its_code():
    rng = np.random.default_rng(0)
    for _ in range(20):
        bits = rng.random(8) < 0.5
        grey = np.full((3, 3), 100, np.uint8)
        for (row, column), bright in zip(
            ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)), bits, strict=True
        ):
            grey[row, column] = 200 if bright else 10
        code = int(lbp_codes(grey, 1)[0, 0])
        assert pattern_of(f"r1_{code:03d}") == tuple(bits)
    assert pattern_of("lip_corner_lift (AU 12)") is None


def test_every_code_has_its_picture_beside_its_row():
    figure = plot_codes(["r1_255", "r2_000"], ["joy", "fear"], [[0.1, -0.1], [0.0, 0.2]])
    _, first, second = figure.axes
    colours = [[patch.get_facecolor()[0] for patch in axes.patches[:8]] for axes in (first, second)]
    assert min(colours[0]) == 1.0  # all neighbours are as bright
    assert max(colours[1]) < 0.2
    assert first.get_position().y0 > second.get_position().y1
    assert first.get_position().x0 > 1
