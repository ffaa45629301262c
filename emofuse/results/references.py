"""The notes on the reference models of a folder of runs, `references.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from emofuse.errors import ResultsError
from emofuse.results.record import json_text
from emofuse.stores import replace_file

_FILE = "references.json"


def write_reference_notes(runs: Path, notes: Sequence[str]) -> None:
    """Keep the notes on the reference models of a folder of runs, in place of former ones."""
    path = runs / _FILE
    text = json_text({"notes": list(notes)})
    if not notes:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != text.encode():
        runs.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)


def read_reference_notes(runs: Path) -> list[str]:
    """Return the notes on the reference models of a folder of runs; none if there are none.

    Raises:
        ResultsError: the file is damaged.
    """
    path = runs / _FILE
    if not path.is_file():
        return []
    try:
        return [str(note) for note in json.loads(path.read_text(encoding="utf-8"))["notes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path}: damaged ({error!r}); delete it, the next run of the pipeline or sweep writes it again"
        ) from None
