"""Read the Markdown pages: code blocks with their markers, links, and the anchors of headings."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^(`{3,})([\w-]*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_LINK = re.compile(r"(?P<start>!?\[(?:[^\]\[]|\[[^\]]*\])*\]\()(?P<target>[^)\s]+)\)")
_CODE = re.compile(r"(`+)(?!`)(?:[^`]|(?!\1)`)+?\1(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the page that has it.
        line: the number of its first line of code.
        language: the language of the fence.
        text: the code.
        not_run: the reason why no test runs it; None where one does.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def file_name(self) -> str | None:
        """Return the name in a first line such as `# mine.yaml`, under which a reader saves the block."""
        named = re.match(r"# ([\w-]+\.(?:yaml|py|csv))(?:$|[ :])", self.text, re.MULTILINE)
        return named[1] if named else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return the pages that people write: the README, that of the benchmarks, and all of `docs/`."""
    return [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted(DOCS.glob("*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    place = 0
    while place < len(lines):
        fence = _FENCE.match(lines[place])
        if fence is None:
            place += 1
            continue
        first = place + 1
        last = next(end for end in range(first, len(lines)) if lines[end] == fence[1])
        before = next((line for line in reversed(lines[:place]) if line.strip()), "")
        marker = _NOT_RUN.match(before)
        text = "\n".join(lines[first:last]) + "\n"
        blocks.append(Block(page, first + 1, fence[2], text, marker[1] if marker else None))
        place = last + 1
    return blocks


def prose(text: str) -> str:
    """Return a page with all code replaced by spaces, so that every other character keeps its place."""
    lines: list[str] = []
    inside = ""
    for line in text.split("\n"):
        fence = re.match(r"^ *(`{3,})", line)
        if inside or fence:
            inside = "" if inside and fence and fence[1] == inside else inside or (fence[1] if fence else "")
            lines.append(" " * len(line))
        else:
            lines.append(line)
    return _CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), "\n".join(lines))


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures of a page, as they are written."""
    return [found["target"] for found in _LINK.finditer(prose(text))]


def replace_links(text: str, replaced: dict[str, str]) -> str:
    """Return a page whose links have other targets; code is left alone."""
    for found in reversed(list(_LINK.finditer(prose(text)))):
        begin, end = found.span("target")
        text = text[:begin] + replaced.get(found["target"], found["target"]) + text[end:]
    return text


def anchors(text: str) -> list[str]:
    """Return the anchors of a page's headings, as Python-Markdown makes them."""
    made: list[str] = []
    for line, without_code in zip(text.split("\n"), prose(text).split("\n"), strict=True):
        heading = re.match(r"#{1,6} ", without_code)
        if heading:
            anchor = _slug(line[heading.end() :])
            count = sum(each == anchor or bool(re.fullmatch(re.escape(anchor) + r"_\d+", each)) for each in made)
            made.append(f"{anchor}_{count}" if count else anchor)
    return made


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def link_problems() -> list[str]:
    """Return every link of a page that leads to no file, folder or heading of this repository."""
    problems = []
    known = {page: anchors(page.read_text(encoding="utf-8")) for page in pages()}
    for page in pages():
        for target in links(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.is_file():
                problems.append(f"{page.name}: no file {target}")
            elif anchor and anchor not in known.get(file, []):
                problems.append(f"{page.name}: no heading {target}")
    return problems
