"""Check the HTML of a built site: links that lead nowhere, and resources of other hosts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
_LOADED_RELATIONS = {"stylesheet", "preconnect", "preload", "icon", "modulepreload", "dns-prefetch", "manifest"}


class _Page(HTMLParser):
    """The ids, links and loaded resources of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to."""
        values = {name: value or "" for name, value in attrs}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and _LOADED_RELATIONS & set(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        if tag in _LOADED and values.get(_LOADED[tag]):
            self.loaded.append(values[_LOADED[tag]])
        self.loaded += re.findall(r"url\(['\"]?(https?:[^'\")]+)", values.get("style", ""))


def site_problems(site: Path) -> list[str]:
    """Return the broken links of all pages of a site, and everything that they load from another host."""
    pages = {file: _read(file) for file in sorted(site.rglob("*.html")) if "files" not in file.relative_to(site).parts}
    problems = []
    for file, page in pages.items():
        name = file.relative_to(site).as_posix()
        problems += [f"{name}: loads {each}" for each in page.loaded if _is_foreign(each)]
        if file.name == "404.html":
            continue  # its links are absolute, from the root of a host
        for link in [*page.links, *page.loaded]:
            if _is_foreign(link) or link.startswith(("mailto:", "data:")):
                continue
            parts = urlsplit(link)
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                problems.append(f"{name}: no file {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                problems.append(f"{name}: no anchor {link}")
    for style in sorted(site.rglob("*.css")):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?(https?:[^'\")\s]+)", style.read_text(encoding="utf-8"))
        problems += [f"{style.relative_to(site).as_posix()}: loads {each}" for each in found]
    return problems


def _read(file: Path) -> _Page:
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def _is_foreign(target: str) -> bool:
    return bool(re.match(r"(https?:)?//", target))
