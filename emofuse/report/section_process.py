"""A second process that draws the figures of the configurations, while this one draws those of all of them together.

Matplotlib draws on one core, and figures in three formats are most of the time of a report.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.style

from emofuse.machine.interpreter import command
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.drawing import STYLE
from emofuse.report.fonts import PLAIN, Lettering
from emofuse.report.part_plots import AnsweredValues
from emofuse.report.rendering import ReportFigure
from emofuse.report.section_figures import draw_section

_FEWEST = 4
"""The fewest configurations that are worth the start of a process, which takes as long as six figures."""

Sections = tuple[tuple[ReportFigure, ...], ...]
Items = Sequence[tuple[ReportedConfiguration, str]]


@contextmanager
def drawing_sections(
    items: Items,
    results: Results,
    uncertainty: Uncertainty,
    values: Mapping[str, AnsweredValues],
    lettering: Lettering,
) -> Iterator[Callable[[], Sections]]:
    """Begin to draw the figures of each configuration, and give a function that waits for them.

    They are drawn by that function where a second process does not pay, or if it fails: it raises what is wrong. Fonts
    other than matplotlib's own are known to this process alone.

    Args:
        items: the configurations, each with the name of its files.
        results: all configurations.
        uncertainty: their intervals and tests.
        values: the answers of a regression.
        lettering: the fonts.
    """

    def draw() -> Sections:
        return tuple(draw_section(item, slug, results, uncertainty, values) for item, slug in items)

    if len(items) < _FEWEST or (os.cpu_count() or 1) < 2 or lettering.families != (PLAIN,):
        yield draw
        return
    data = pickle.dumps((items, results, uncertainty, values))
    with ThreadPoolExecutor(1) as waiting:
        drawn = waiting.submit(_ask, data)
        yield lambda: drawn.result() or draw()


def main(_: Sequence[str]) -> None:
    """Draw the figures of the configurations that come on standard input, and write them to standard output."""
    items, results, uncertainty, values = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  from the parent process
    with mpl.style.context(["default", STYLE, {"font.family": [PLAIN]}]):
        sections = tuple(draw_section(item, slug, results, uncertainty, values) for item, slug in items)
    sys.stdout.buffer.write(pickle.dumps(sections))


def _ask(data: bytes) -> Sections | None:
    """Return what a second process draws; None if it fails."""
    done: Any = subprocess.run(command(__name__), input=data, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        return None
    sections: Sections = pickle.loads(done.stdout)  # noqa: S301  from a process that this one started
    return sections
