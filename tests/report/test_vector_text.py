"""SVG files are made shorter without a visible change."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from urllib.parse import unquote

from emofuse.report.vector_text import round_coordinates, svg_data_uri

SVG = """<svg xmlns="http://www.w3.org/2000/svg" clip-path="url(#a)" viewBox="0 0 519.28 233.884688" width="519.28pt">
<!-- 50 % of "a" & 1.23456 -->
<path id="m1" d="M 29.680000 -0.000001
L 141.644444 1e-05
z
" style="stroke-width: 0.123456"/>
<use x="56.24678" y="87.603164" transform="translate(48.600001 1.239) scale(0.015625 -0.015625)"/>
</svg>"""


def test_coordinates_are_rounded_and_scales_and_styles_are_kept():
    rounded = round_coordinates(SVG)
    assert 'viewBox="0 0 519.28 233.88"' in rounded
    assert 'd="M29.68 0L141.64 1e-05z"' in rounded
    assert 'style="stroke-width: 0.123456"' in rounded
    assert '<use x="56.25" y="87.6" transform="translate(48.6 1.24) scale(0.015625 -0.015625)"/>' in rounded
    assert '<!-- 50 % of "a" & 1.23456 -->' in rounded
    assert round_coordinates(rounded) == rounded
    ET.fromstring(rounded)


def test_a_data_uri_holds_the_file_and_no_character_that_means_something_in_html():
    uri = svg_data_uri(SVG.replace("1.23456", "\u0394 + 1").encode())
    assert "http://" not in uri
    assert "url(" not in uri
    head, _, content = uri.partition(",")
    assert head == "data:image/svg+xml;charset=utf-8"
    assert not set(content) & set("<>\"'&#\n")
    assert unquote(content).split() == SVG.replace("1.23456", "\u0394 + 1").split()
