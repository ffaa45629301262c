"""Folders of generated datasets: complete or absent, recognised by a file with the truth, never overwritten.

An interrupted drawing keeps what it has drawn in a hidden folder beside, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from emofuse.errors import DatasetError
from emofuse.progress import Advance
from emofuse.stores import PARTIAL_SUFFIX

_MOST_THREADS = 8
_RECORDS = "records"

Sample = TypeVar("Sample")

Identity = Mapping[str, int]
"""The parameters that determine the files: `generator_version`, the number of rows, and `seed`."""


def write_once(root: Path, truth_file: str, noun: str, identity: Identity, write: Callable[[Path], None]) -> None:
    """Write a generated dataset, unless it is there.

    It is written under another name and renamed when it is complete. So a folder with the final name is always a
    complete dataset, even after earlier attempts failed. What an interrupted attempt has drawn is kept under that name.

    Args:
        root: the folder to make, which must not exist or must be empty.
        truth_file: the name of the file in it that states the identity, as JSON.
        noun: what the dataset is called in messages, such as `demo dataset`.
        identity: the identity that the dataset must have.
        write: writes the dataset into a folder, which may hold what an interrupted call has drawn.

    Raises:
        DatasetError: `root` holds something else.
    """
    if _is_generated(root, truth_file, noun, identity):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _unfinished_folder(root, identity) as partial:
            write(partial)
    except OSError:
        # Another process may have finished the same dataset meanwhile.
        if not _is_generated(root, truth_file, noun, identity):
            raise


@contextmanager
def _unfinished_folder(root: Path, identity: Identity) -> Iterator[Path]:
    """Give the hidden folder of an unfinished dataset, which becomes `root` when the block ends without an error.

    An error deletes it. An interrupt does not, nor does the end of the process.
    """
    name = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:8]
    partial = root.with_name(f".{root.name}.{name}{PARTIAL_SUFFIX}")
    partial.mkdir(exist_ok=True)
    try:
        yield partial
        partial.replace(root)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def draw_all(
    root: Path, samples: Sequence[Sample], draw: Callable[[int, Sample], dict[str, Any]], advance: Advance
) -> list[dict[str, Any]]:
    """Draw all samples that are not drawn yet, in threads, and return the records of all of them.

    Args:
        root: the unfinished folder, where the records of drawn samples are kept until `remove_records`.
        samples: the samples.
        draw: writes the files of a sample, given its index, and returns its record, plain JSON.
        advance: receives how many are done, and of how many.
    """
    (root / _RECORDS).mkdir(exist_ok=True)

    def draw_once(index: int, sample: Sample) -> dict[str, Any]:
        record = root / _RECORDS / f"{index}.json"
        if not record.is_file():
            unfinished = record.with_suffix(PARTIAL_SUFFIX)
            write_json(unfinished, draw(index, sample))
            unfinished.replace(record)  # after the files of the sample, so that a record means whole files
        drawn: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return drawn

    records = []
    threads = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        for record in threads.map(draw_once, range(len(samples)), samples):
            records.append(record)
            advance(len(records), len(samples))
    finally:
        threads.shutdown(cancel_futures=True)
    return records


def remove_records(root: Path) -> None:
    """Delete the records of the single samples, when all are drawn and the dataset is complete."""
    shutil.rmtree(root / _RECORDS)


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
