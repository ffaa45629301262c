"""The root of a dataset, and the files below it."""

from __future__ import annotations

from pathlib import Path

from emofuse.datasets.files import DatasetFiles
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.remote_files import RemoteFiles
from emofuse.errors import DatasetError
from emofuse.stores import as_path, is_remote

Files = DatasetFiles | RemoteFiles


def check_root(root: Path | None, kind: str) -> Path:
    """Return the root folder of a dataset, which must exist.

    Raises:
        DatasetError: the root is not set, or there is no such folder.
    """
    root = as_path(check_root_given(root, kind))
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {problem}; set the root of the {kind} dataset with --data PATH")
    return root


def check_root_given(root: Path | None, kind: str) -> Path:
    """Return the root folder of a dataset, which may not exist yet.

    Raises:
        DatasetError: the root is not set.
    """
    if root is None:
        raise DatasetError(
            f"the {kind} dataset has no root: say where it is with --data PATH, or `root:` in the pipeline"
        )
    return root


def open_files(root: Path, *, follow_links: bool = False) -> Files:
    """Return the files below a root, on this machine or on a store; with `follow_links`, links may lead out of it."""
    return RemoteFiles(root) if is_remote(root) else DatasetFiles(root, follow_links=follow_links)


def follows_links(manifest: Manifest) -> bool:
    """Return whether the manifest was made with `follow_links`: links in the dataset may lead out of its root."""
    return manifest.info.get("follow_links") is True
