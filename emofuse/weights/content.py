"""Checks of the bytes of a file that should hold weights."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from emofuse.datasets.files import is_lfs_pointer

_HEAD_BYTES = 1024
_WEB_PAGE = re.compile(rb"^\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|\?xml)\b", re.IGNORECASE | re.DOTALL)


def why_no_model(path: Path) -> str | None:
    """Return why the first bytes of a file are not those of a model, as a phrase; None if they may be."""
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
    """Return whether the first bytes of a file are those of an HTML or XML page."""
    return _WEB_PAGE.match(head) is not None


def why_damaged(path: Path) -> str | None:
    """Return what is wrong with a zip archive or a safetensors file by its own directory, or None if nothing is.

    This check stands in for the hash of files whose publisher states none. Safetensors have no checksums: only that
    the file is complete is checked.
    """
    if ".safetensors" in path.suffixes:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy"):
                return None
        except SafetensorError as error:
            return f"is not a complete safetensors file ({error})"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        return "is not a complete zip archive, as models of this kind are"
    return None if damaged is None else f"is damaged: the checksum of {damaged} inside it is wrong"
