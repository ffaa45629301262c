"""The page of a report: one HTML file that a reader opens without a network, and that works without scripts.

Every text, table and static figure is in the HTML. Scripts add sorting, filtering, the samples behind the cells of
confusion matrices, a switch between light and dark, and interactive figures.

Folders: `parts/` has the templates, `styles/` the style sheets and `scripts/` the scripts. They are put into the page
when it is rendered. The page loads nothing; its content security policy allows its own scripts by their SHA-256.

**Interactive figures are drawn by plotly.js** (MIT). It comes with the required dependency `plotly`, so that reports
are the same on every machine. Its 4.8 MB are in the page once, as 1.96 MB of gzip in base64. The browser unpacks and
runs them only when a reader asks for an interactive figure, so that they cost no time when the page opens. Smaller
libraries that are kept come from npm alone and not from PyPI, and zoom, hover and export would have to be written here.
The static SVG figures stay for print and for readers without scripts.

Measured in Chromium 2026-11 on two busy cores: the page of 2,000 runs of 250 configurations has 5.7 MB (0.5 MB of rows)
and is loaded in 0.4 to 1.4 s; sorting its runs takes 0.02 to 0.06 s, the first interactive figures some seconds. The
page of 180 runs on 840 faces with an analysis has 6.6 MB, of which 3.4 MB are static figures and 0.8 MB thumbnails.
"""

from emofuse.report.page.numbers import page_numbers
from emofuse.report.page.render import render_page
from emofuse.report.page.samples import SampleAnswers, gather_samples
from emofuse.report.page.value_samples import ValueSamples, gather_value_samples

__all__ = [
    "SampleAnswers",
    "ValueSamples",
    "gather_samples",
    "gather_value_samples",
    "page_numbers",
    "render_page",
]
