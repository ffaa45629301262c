"""Folders of the user that things are kept in, also where there is no user: in containers there often is none."""

from __future__ import annotations

import os
from pathlib import Path


class NoHomeError(OSError):
    """There is no home folder, and no variable says what to use instead."""


def user_folder(own: str, xdg: str, below_home: str, name: str = "") -> Path:
    """The folder that a variable names, else one of emofuse's in a folder that XDG knows.

    Args:
        own: variable that names the folder itself.
        xdg: variable that names the folder above `emofuse`.
        below_home: what that is if it is not set.
        name: of the folder below `emofuse`.

    Raises:
        NoHomeError: neither variable is set, or with a `~`, and there is no home folder.
    """
    chosen, above = os.environ.get(own), os.environ.get(xdg)
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(above) if above else Path.home() / below_home) / "emofuse" / name
    except RuntimeError:  # no HOME, and no entry for this user
        raise NoHomeError(f"this user has no home folder; set {own} (or {xdg}) to a folder of your own") from None


def without_tilde(path: Path) -> Path:
    """A path with the home folder in place of a `~`.

    Raises:
        NoHomeError: there is none.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise NoHomeError(f"{path}: this user has no home folder; write the whole path") from None
