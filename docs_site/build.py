"""Build the site: `python -m docs_site.build`, or `make docs`.

    README.md, docs/, CHANGELOG.md, --help, docstrings -> build/docs/ -> Zensical -> build/site/ -> check

The pages link to files of the repository, as they do in a checkout. Those files are copied into the site, so that the
site is whole by itself. Every link is checked twice: in the pages, and in the HTML, which must load nothing from
another host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs_site.api import write_api_pages
from docs_site.commands import reference
from docs_site.html import site_problems
from docs_site.markdown import DOCS, ROOT, link_problems, links, replace_links

CONFIG = ROOT / "mkdocs.yml"
SOURCE = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
COMMANDS_MARK = "<!-- Here follows, on the site, the reference of all options. -->"
_FILES = "files"


def assemble(target: Path) -> None:
    """Write the pages from which Zensical makes the site.

    Args:
        target: a folder, which is made anew.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copied = {
        "index.md": ROOT / "README.md",
        "changelog.md": ROOT / "CHANGELOG.md",
        "benchmark-scripts.md": ROOT / "benchmarks/README.md",
        **{page.name: page for page in sorted(DOCS.glob("*.md"))},
    }
    names = {page.resolve(): name for name, page in copied.items()}
    for name, page in copied.items():
        text = page.read_text(encoding="utf-8")
        replaced = {each: _place(page, each, names, target) for each in links(text)}
        text = replace_links(text, replaced)
        if name == "commands.md":
            text = text.replace(COMMANDS_MARK, f"## All options\n\n{reference()}")
        (target / name).write_text(text, encoding="utf-8")
    write_api_pages(target)
    shutil.copy(Path(__file__).with_name("site.css"), target)


def _place(page: Path, link: str, names: dict[Path, str], target: Path) -> str:
    """Return where a link of a page leads on the site; a file that is no page is copied there."""
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return link
    name, mark, anchor = link.partition("#")
    file = (page.parent / name).resolve()
    if file in names:
        return names[file] + mark + anchor
    place = Path(_FILES) / file.relative_to(ROOT)
    (target / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target / place)
    return place.as_posix()


def build(site: Path = SITE) -> list[str]:
    """Build the site and return its problems: broken links, and what would be loaded from another host."""
    problems = link_problems()
    if problems:
        return problems
    assemble(SOURCE)
    shutil.rmtree(site, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(CONFIG)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return [done.stdout + done.stderr]
    return site_problems(site)


if __name__ == "__main__":
    found = build()
    print("\n".join(found) if found else f"{SITE.relative_to(ROOT) / 'index.html'}", file=sys.stderr)
    sys.exit(bool(found))
