"""Which names in a folder are pictures: the one rule of every command that lists a folder, of datasets and `predict`.

Light to import: nothing is decoded here, only names are looked at.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from enum import StrEnum

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "PNG": (".apng", ".png"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "AVIF": (".avif", ".avifs"),
}
"""Format, as Pillow calls it -> suffixes of its files. What is decoded and what is listed follow this table."""

IMAGE_SUFFIXES = tuple(sorted(suffix for suffixes in SUFFIXES.values() for suffix in suffixes))

# Pictures and videos that emofuse does not decode: left out, and told, because a user may take them for listed.
_OTHER_PICTURES = (
    ".3gp", ".arw", ".avi", ".bpg", ".cr2", ".cr3", ".dcm", ".dds", ".dib", ".dng", ".emf", ".eps", ".exr", ".flv",
    ".hdr", ".heic", ".heics", ".heif", ".hif", ".ico", ".icns", ".j2c", ".j2k", ".jls", ".jp2", ".jpc", ".jpf", ".jpm",
    ".jpx", ".jxl", ".jxr", ".m2ts", ".m4v", ".mkv", ".mng", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nef",
    ".ogv", ".orf", ".pcx", ".pef", ".psb", ".psd", ".qoi", ".raf", ".ras", ".raw", ".rw2", ".sgi", ".svg", ".svgz",
    ".tga", ".ts", ".vob", ".wdp", ".webm", ".wmf", ".wmv", ".xbm", ".xcf", ".xpm",
)  # fmt: skip

# What systems, network storage and unpacked archives leave beside the user's files, in lower case.
_DEBRIS = frozenset(
    {
        "__macosx",
        "__pycache__",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "found.000",
        "lost+found",
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
    }
)


class NameKind(StrEnum):
    """What the name of a file says of it."""

    IMAGE = "image"
    OTHER_PICTURE = "a picture or video that emofuse does not decode"
    OTHER = "anything else"


def is_debris(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or left by a system, a network storage, an archive."""
    return name.startswith(".") or name.lower() in _DEBRIS


def kind_of_name(name: str) -> NameKind:
    """What the suffix of a file says, in upper or lower case."""
    suffix = posixpath.splitext(name.lower())[1]
    if suffix in IMAGE_SUFFIXES:
        return NameKind.IMAGE
    return NameKind.OTHER_PICTURE if suffix in _OTHER_PICTURES else NameKind.OTHER


def is_written_by_emofuse(names: Iterable[str]) -> bool:
    """Whether what a folder holds says that emofuse made it: a cache or part of one, a saved run, a demo dataset."""
    held = set(names)
    return "zarr.json" in held or {"run.json", "predictions.npz"} <= held or {"demo.json", "info.json"} <= held


def holds_report(names: Iterable[str]) -> bool:
    """Whether a report of emofuse lies in a folder; its pictures are then in the folder `figures` below."""
    return {"index.html", "per_class.csv", "runs.csv", "figures"} <= set(names)


def printable(path: str) -> str:
    r"""The path with `\xe9` for each byte that is not UTF-8, so that it can be kept in a table and told from others."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return path
