"""The pages as a whole: links, the site, numbers, and what a page says of tests and files."""

from __future__ import annotations

import json
import re
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from workshop import DOCS, ROOT

from docs_site import numbers
from docs_site.build import COMMANDS_MARK, assemble, build
from docs_site.html import site_problems
from docs_site.markdown import anchors, link_problems, links, replace_links


def test_links_lead_to_files_and_headings():
    assert link_problems() == []


def test_links_are_found_across_lines_and_not_in_code():
    text = (
        "# A `b` c\n\n[two\nlines](x.md) `[no](y.md)` [`z`](z.md#a)\n\n```text\n[no](w.md)\n# no\n```\n\n![p](p.png)\n"
    )
    assert links(text) == ["x.md", "z.md#a", "p.png"]
    assert replace_links(text, {"x.md": "other.md"}) == text.replace("x.md", "other.md")
    assert anchors(text) == ["a-b-c"]


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert set(re.findall(r": ([\w-]+\.md)$", nav, re.MULTILINE)) >= {page.name for page in DOCS.glob("*.md")}


def test_the_tables_of_numbers_are_those_of_the_results():
    outdated = sorted(numbers.outdated())
    assert not outdated, f"out of date: {', '.join(outdated)}. Run: python -m docs_site.numbers"


def test_a_number_that_changes_by_hand_is_noticed():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    wrong = page.replace("| LBP | 0.328", "| LBP | 0.999", 1)
    assert numbers.update(wrong, "../benchmarks/results/") == page != wrong
    with pytest.raises(KeyError, match="no table of numbers is named 'colours'; there are: all-results, "):
        numbers.update("<!-- numbers: colours -->\n<!-- end of numbers -->", "")


def test_every_results_file_is_on_the_page_of_benchmarks():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for file in (ROOT / "benchmarks/results").glob("*.json"):
        if not file.stem.endswith("_smoke"):
            assert f"/{file.name})" in page
            assert {"command", "date", "machine"} <= set(json.loads(file.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def site():
    """The site, built once for the tests of this file."""
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    assert build() == []
    return ROOT / "build/site"


def test_the_site_is_built_whole(site):
    reference = (site / "api.html").read_text(encoding="utf-8")
    for name in (
        "cache.reader.open_cache",
        "extraction.build_cache",
        "datasets.read_dataset",
        "errors.StaleCacheError",
    ):
        assert f'id="emofuse.{name}"' in reference
    assert "emofuse cache build" in (site / "commands.html").read_text(encoding="utf-8")
    assert "corrected_resampled_t" in (site / "api-statistics.html").read_text(encoding="utf-8")
    assert "learning_rate" in (site / "specs.html").read_text(encoding="utf-8")
    assert COMMANDS_MARK in (DOCS / "commands.md").read_text(encoding="utf-8")


def test_the_site_loads_nothing_from_elsewhere_and_fits_in_a_window(site, browser):
    """In a real browser, from a server of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}/"
    try:
        for name in ("index.html", "benchmarks.html", "specs.html"):
            for width in (1280, 390):
                browser.show(width)
                browser.open(here + name)
                assert browser.problems() == []
                assert not [each for each in browser.requests() if not each.startswith((here, "data:", "blob:"))]
                assert browser.run("return document.documentElement.scrollWidth") <= width
    finally:
        server.shutdown()


def test_a_site_with_broken_links_and_foreign_resources_is_refused(tmp_path):
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="https://fonts.example/a.css"><h1 id="here"></h1>'
        '<a href="#here"></a><a href="#gone"></a><a href="gone.html"></a><a href="https://example.org"></a>'
        '<img src="//cdn.example/x.png">'
    )
    (tmp_path / "a.css").write_text("@import 'https://fonts.example/b.css'; a { background: url(b.png) }")
    assert site_problems(tmp_path) == [
        "index.html: loads https://fonts.example/a.css",
        "index.html: loads //cdn.example/x.png",
        "index.html: no anchor #gone",
        "index.html: no file gone.html",
        "a.css: loads https://fonts.example/b.css",
    ]


def test_files_that_pages_link_to_are_copied_into_the_site(tmp_path):
    assemble(tmp_path / "docs")
    text = (tmp_path / "docs/emoset.md").read_text(encoding="utf-8")
    assert "(files/pipelines/emoset118k.yaml)" in text
    assert (tmp_path / "docs/files/pipelines/emoset118k.yaml").is_file()
    assert "](tutorial.md)" in (tmp_path / "docs/index.md").read_text(encoding="utf-8")


def test_the_readme_is_one_screen():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 90
    assert (DOCS / "report.png").stat().st_size < 300_000


def test_the_wheel_has_no_pages():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["packages"] == ["emofuse"]
    assert set(wheel["force-include"]) == {"cache_specs", "label_maps", "pipelines"}


def test_every_extra_has_its_licence_on_the_page_of_installation():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (DOCS / "install.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert set(extras) - {"test"} <= named
    packages = [package for name, group in extras.items() if name != "test" for package in group]
    names = {re.split(r"(?:-python|-skinny|_torch)?[<>=\[]", package)[0] for package in packages} - {"emofuse"}
    plain = re.sub(r"[_-]", "", text.lower())
    assert not [name for name in names if re.sub(r"[_-]", "", name.lower()) not in plain]


def test_every_test_that_holds_a_protection_exists():
    rows = [line for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| Fault |", "| --- |"))]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`([^`]+\.py)::(test_\w+)`", row)
        assert named, f"no test holds: {row}"
        for file, function in named:
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", text, flags=re.MULTILINE), f"{file} has no {function}"


def test_the_page_for_contributors_names_every_part_of_the_package():
    page = (DOCS / "contributing.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    parts = {
        path.stem for path in (ROOT / "emofuse").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert named == parts - {"__init__"}
