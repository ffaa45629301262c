"""Heads of runs that are not finished, kept on disk so that an interrupted ensemble loses none that is trained.

A run of several trainings (an ensemble, or a second training on all rows) may take several groups. After each group,
the heads of runs that lack others are written, one file each, whole or not at all::

    runs/.unfinished/<digest of the run, 16 hex digits>/<training>.safetensors

The next call takes them up, and the folder goes when the run is written. A file that is damaged, or of another run, is
passed over and its head is trained again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.results.arrays import write_arrays
from emofuse.stores import replacing
from emofuse.training.members import MemberResult
from emofuse.training.targets import TargetScale

FOLDER = ".unfinished"
_WEIGHTS = "head."


@dataclass(frozen=True)
class KeptHead:
    """What is kept of one training of one head.

    Attributes:
        result: its result.
        seconds: the seconds of the training.
    """

    result: MemberResult
    seconds: float


class KeptHeads:
    """The heads of unfinished runs in a folder of runs."""

    def __init__(self, runs: Path) -> None:
        self._folder = runs / FOLDER

    def write(self, digest: str, training: str, head: KeptHead) -> None:
        """Keep a head. If the disk refuses it, training goes on: the head is then trained again after an interruption.

        Args:
            digest: the digest of the run.
            training: the name of the training within the run.
            head: the trained head.
        """
        path = self._path(digest, training)
        arrays = {f"{_WEIGHTS}{name}": np.asarray(array, order="C") for name, array in head.result.weights.items()}
        if head.result.target_scale is not None:
            arrays |= head.result.target_scale.arrays("")
        described = {
            "run": digest,
            "history": list(head.result.history),
            "best_epoch": head.result.best_epoch,
            "last_epoch": head.result.last_epoch,
            "ended": head.result.ended,
            "seconds": head.seconds,
            "sha256": _hash_arrays(arrays),
        }
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                write_arrays(partial, arrays, {"head": json.dumps(described)})

    def read(self, digest: str, training: str) -> KeptHead | None:
        """Return a kept head; None if there is none, or if its file is damaged."""
        from safetensors import SafetensorError, safe_open

        path = self._path(digest, training)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="np") as file:
                described = json.loads((file.metadata() or {})["head"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            if described["run"] != digest or described["sha256"] != _hash_arrays(arrays):
                return None
            names = ("history", "best_epoch", "last_epoch", "ended")
            weights = {
                name.removeprefix(_WEIGHTS): array for name, array in arrays.items() if name.startswith(_WEIGHTS)
            }
            result = MemberResult(weights, **{name: described[name] for name in names})
            return KeptHead(replace(result, target_scale=TargetScale.saved(arrays, "")), described["seconds"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def remove(self, digest: str) -> None:
        """Remove the kept heads of a run, and the folder of all unfinished runs if it is empty."""
        folder = self._path(digest, "").parent
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                self._folder.rmdir()

    def _path(self, digest: str, training: str) -> Path:
        return self._folder / digest[:16] / f"{training}.safetensors"


def _hash_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of arrays with their names, types and shapes."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        hashed.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()
