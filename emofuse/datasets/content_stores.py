"""Content stores: folders that belong to a dataset although they are outside of its root.

Tools that fetch or version data keep every file once, named by its hash, and make the dataset out of links to it:

- Hugging Face hub: `<repo>/snapshots/<revision>/x -> ../../blobs/<hash>`
- git-annex: `<repo>/x -> .git/annex/objects/...`
- DVC with `cache.type symlink`: `<repo>/x -> .dvc/cache/...`

Links to such a folder are always followed. A store that is itself a link does not count: it could lead anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_HUB = "blobs"
_HUB_LEVELS = 3  # `blobs` is beside the root, which is a snapshot, or beside its parents if the root is deeper
_OF_REPOSITORIES = ((".git", "annex/objects"), (".dvc", "cache"))


def content_stores(real_root: str) -> tuple[str, ...]:
    """Return the absolute paths of the content stores of a dataset, without any link in them.

    Args:
        real_root: the root of the dataset, absolute and with all links resolved.
    """
    return tuple(dict.fromkeys(str(store) for store in _candidates(Path(real_root)) if _is_real_folder(store)))


def _candidates(root: Path) -> Iterator[Path]:
    for parent in root.parents[:_HUB_LEVELS]:
        yield parent / _HUB
    for folder, content in _OF_REPOSITORIES:
        repository = next((above for above in (root, *root.parents) if os.path.isdir(above / folder)), None)  # noqa: PTH112
        if repository is not None:
            yield repository / folder / content


def _is_real_folder(path: Path) -> bool:
    return os.path.isdir(path) and os.path.realpath(path) == str(path)  # noqa: PTH112 - Path.is_dir raises if refused
