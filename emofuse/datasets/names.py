"""The rule by which a name is a picture, for every command that lists a folder of a dataset or for `predict`.

Only names are examined here, so this module is light to import.
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
"""Pillow's name of a format -> the suffixes of its files; both the decoder and the listing of folders follow it."""

IMAGE_SUFFIXES = tuple(sorted(suffix for suffixes in SUFFIXES.values() for suffix in suffixes))

CLIP_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
)  # fmt: skip
SOUND_SUFFIXES = (
    ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav",
    ".wma",
)  # fmt: skip

# Pictures that emofuse does not decode: notes count them, because a user may expect them to be listed.
_OTHER_PICTURES = (
    ".arw", ".bpg", ".cr2", ".cr3", ".dcm", ".dds", ".dib", ".dng", ".emf", ".eps", ".exr", ".hdr", ".heic", ".heics",
    ".heif", ".hif", ".ico", ".icns", ".j2c", ".j2k", ".jls", ".jp2", ".jpc", ".jpf", ".jpm", ".jpx", ".jxl", ".jxr",
    ".mng", ".nef", ".orf", ".pcx", ".pef", ".psb", ".psd", ".qoi", ".raf", ".ras", ".raw", ".rw2", ".sgi", ".svg",
    ".svgz", ".tga", ".wdp", ".wmf", ".xbm", ".xcf", ".xpm",
)  # fmt: skip

# Names that systems, network storage and unpacked archives leave beside the user's files, in lower case.
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
    """The kind of a file by its name."""

    IMAGE = "image"
    CLIP = "clip"
    SOUND = "sound"
    OTHER_PICTURE = "a picture that emofuse does not decode"
    OTHER = "anything else"


SUFFIXES_OF = {NameKind.IMAGE: IMAGE_SUFFIXES, NameKind.CLIP: CLIP_SUFFIXES, NameKind.SOUND: SOUND_SUFFIXES}


def is_debris(name: str) -> bool:
    """Return whether a file or folder is not the user's: hidden, or left by a system, network storage or archive."""
    return name.startswith(".") or name.lower() in _DEBRIS


def kind_of_name(name: str) -> NameKind:
    """Return the kind of a file by its suffix, in upper or lower case."""
    suffix = posixpath.splitext(name.lower())[1]
    if suffix in IMAGE_SUFFIXES:
        return NameKind.IMAGE
    if suffix in CLIP_SUFFIXES:
        return NameKind.CLIP
    if suffix in SOUND_SUFFIXES:
        return NameKind.SOUND
    return NameKind.OTHER_PICTURE if suffix in _OTHER_PICTURES else NameKind.OTHER


def is_written_by_emofuse(names: Iterable[str]) -> bool:
    """Return whether a folder with these names was made by emofuse: (part of) a cache, a saved run, a demo dataset."""
    present = set(names)
    return "zarr.json" in present or {"run.json", "predictions.npz"} <= present or {"demo.json", "info.json"} <= present


def holds_report(names: Iterable[str]) -> bool:
    """Return whether a folder with these names holds a report of emofuse, whose pictures are in `figures` below."""
    return {"index.html", "per_class.csv", "runs.csv", "figures"} <= set(names)


def printable(path: str) -> str:
    r"""Return the path with `\xe9` for each byte that is not UTF-8, so that tables can hold it and it stays unique."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return path
