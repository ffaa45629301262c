"""Folders of generated datasets: written once as a whole, recognised by a file with the truth, never overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emofuse.errors import DatasetError
from emofuse.stores import making_folder

Identity = Mapping[str, int]
"""What the files follow from: `generator_version`, the number of rows, and `seed`."""


def write_once(root: Path, truth_file: str, noun: str, identity: Identity, write: Callable[[Path], None]) -> None:
    """Write a generated dataset, unless it is there.

    It is written under another name and renamed when it is complete. So a folder with the final name is always a
    complete dataset, even after earlier attempts failed.

    Args:
        root: the folder to make, which must not exist or must be empty.
        truth_file: the name of the file in it that states the identity, as JSON.
        noun: what the dataset is called in messages, such as `demo dataset`.
        identity: the identity that the dataset must have.
        write: writes the dataset into a folder.

    Raises:
        DatasetError: `root` holds something else.
    """
    if _is_generated(root, truth_file, noun, identity):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with making_folder(root) as partial:
            write(partial)
    except OSError:
        # Another process may have finished the same dataset meanwhile.
        if not _is_generated(root, truth_file, noun, identity):
            raise


def read_truth(root: Path, truth_file: str, noun: str, *, version: int | None = None) -> dict[str, Any]:
    """Read the file with the truth on a generated dataset.

    Args:
        root: the folder of the dataset.
        truth_file: the name of the file.
        noun: what the dataset is called in messages.
        version: the version of the generator that is needed; None for any.

    Raises:
        DatasetError: there is no such file, it is damaged, or it is from another version of the generator.
    """
    path = root / truth_file
    if not path.is_file():
        raise DatasetError(
            f"{root}: no generated {noun} (it has no {truth_file}); name a folder that does not exist yet"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: not valid JSON ({error}); delete the folder and generate it again") from None
    if not isinstance(data, dict):
        raise DatasetError(
            f"{path}: must be an object, got {type(data).__name__}; delete the folder and generate it again"
        )
    there = data.get("generator_version")
    if version is not None and there != version:
        raise DatasetError(
            f"{root}: a {noun} of generator version {there}, expected {version}; "
            "delete the folder and generate it again, or name another folder"
        )
    return data


def write_json(path: Path, data: Any, indent: int | None = None) -> None:
    """Write data as JSON."""
    path.write_text(json.dumps(data, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_generated(root: Path, truth_file: str, noun: str, identity: Identity) -> bool:
    """Return whether `root` holds the requested dataset; False if it can be generated there.

    Raises:
        DatasetError: `root` holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    data = read_truth(root, truth_file, noun)
    present = {key: data.get(key) for key in identity}
    if present != identity:
        there, asked = (", ".join(f"{key} {value}" for key, value in which.items()) for which in (present, identity))
        raise DatasetError(
            f"{root}: holds the {noun} of {there}; asked for was {asked}. Name another folder, or delete this one first"
        )
    return True
