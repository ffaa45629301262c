"""Record runs whose loss stopped being finite, so that none of them is trained again.

A divergence is one file, `runs/<digest, 16 hex digits>.diverged.json`, beside the folders of finished runs (see
`emofuse.results`). The same run on the same machine diverges again; to train it again, delete the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emofuse.errors import ResultsError
from emofuse.stores import replace_file

FORMAT = 1
LARGE_DECAY = 10.0
"""The weight decay from which on it is named as a reason of a divergence; usual ones are below 1."""


@dataclass(frozen=True)
class Divergence:
    """The record of a run that diverged, which has no test scores.

    Attributes:
        digest: the digest of the run, see `emofuse.results.RunRecord`.
        spec: its `RunSpec` as plain data.
        epoch: the epoch in which the loss was not finite, counted from 1.
        device: the device that it trained on.
        created: the time of the record, UTC, ISO 8601.
    """

    digest: str
    spec: Mapping[str, Any]
    epoch: int
    device: str
    created: str
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The name of its configuration."""
        return str(self.spec["name"])

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return int(self.spec["train"]["seed"])

    def __str__(self) -> str:
        train = self.spec["train"]
        decay = train.get("weight_decay", 0.0)
        large = f" and weight_decay {decay:g}" if decay >= LARGE_DECAY else ""
        return (
            f"run {self.name!r} (seed {self.seed}): the loss is not finite in epoch {self.epoch} with learning_rate "
            f"{train['learning_rate']:g}{large}: the training diverged. Lower the "
            f"{'weight decay or the ' if large else ''}learning rate"
        )


def divergence_path(runs: Path, digest: str) -> Path:
    """Return the file of the divergence of the run with this digest."""
    return runs / f"{digest[:16]}.diverged.json"


def write_divergence(runs: Path, divergence: Divergence) -> Path:
    """Write the divergence of a run beside the runs, and return its path."""
    runs.mkdir(parents=True, exist_ok=True)
    path = divergence_path(runs, divergence.digest)
    replace_file(path, json.dumps(asdict(divergence), indent=1, ensure_ascii=False) + "\n")
    return path


def read_divergence(runs: Path, digest: str) -> Divergence | None:
    """Read the divergence of a run; None if it is not known to diverge.

    Raises:
        ResultsError: damaged, or written by another format version.
    """
    path = divergence_path(runs, digest)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.get("format")
        if version == FORMAT:
            return Divergence(**data)
    except (ValueError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: damaged ({error}); delete it and the run is trained again") from None
    raise ResultsError(
        f"{path}: format {version}, this emofuse reads format {FORMAT}; delete it to train the run again"
    )
