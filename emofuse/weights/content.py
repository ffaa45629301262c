"""What a file is by its bytes: its hash, and whether it is plainly no model at all."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from emofuse.datasets.files import is_lfs_pointer

_HEAD_BYTES = 1024
_WEB_PAGE = re.compile(rb"^\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|\?xml)\b", re.IGNORECASE | re.DOTALL)


def why_no_model(path: Path) -> str | None:
    """Why a file cannot be a model by its first bytes, readable after its name; None if nothing speaks against it."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "is empty"
    if is_web_page(head):
        return "is a web page, not a model (a login page, an error page or a proxy's?)"
    if is_lfs_pointer(head):
        return "is a git-lfs pointer, not the file it stands for (run: git lfs pull)"
    return None


def is_web_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an HTML or XML page."""
    return _WEB_PAGE.match(head) is not None


def why_damaged_zip(path: Path) -> str | None:
    """What is wrong with a zip archive by its own directory and checksums; None if it is whole.

    Stands in for the hash of files whose publisher gives none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        return "is no whole zip archive, which a model of this kind is"
    return None if damaged is None else f"is damaged: the checksum of {damaged} inside it is wrong"
