"""The folders in which emofuse keeps files of the user, also in containers, where there often is no user."""

from __future__ import annotations

import os
from pathlib import Path


class NoHomeError(OSError):
    """There is no home folder, and no environment variable names another folder."""


def user_folder(variable: str, xdg: str, below_home: str, name: str = "") -> Path:
    """Return the folder that an environment variable names, or else a folder of emofuse in one of the XDG folders.

    Args:
        variable: the variable that names the folder itself.
        xdg: the variable that names the folder above `emofuse`.
        below_home: the folder above `emofuse` where `xdg` is not set, relative to the home folder.
        name: the name of the folder below `emofuse`.

    Raises:
        NoHomeError: there is no home folder, and neither variable is set or one begins with `~`.
    """
    chosen, above = os.environ.get(variable), os.environ.get(xdg)
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(above) if above else Path.home() / below_home) / "emofuse" / name
    except RuntimeError:  # HOME is not set, and the system does not know this user
        raise NoHomeError(f"this user has no home folder; set {variable} (or {xdg}) to a folder") from None


def without_tilde(path: Path) -> Path:
    """Return a path with the home folder in place of a leading `~`.

    Raises:
        NoHomeError: there is no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise NoHomeError(f"{path}: this user has no home folder; write the whole path") from None
