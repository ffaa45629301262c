"""Which row of a cache is which row of the dataset as it is now, also when ids or paths changed.

Ids of a folder or a table are made from paths, and a file that comes or goes may give an old picture another id: there
the path says which row it is. A picture that was moved (into another label's folder) is known by its bytes. So the rows
of a cache keep their ids, and none is extracted again because of another.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.checksum import crc32c
from emofuse.datasets.files import map_in_threads
from emofuse.datasets.manifest import Manifest
from emofuse.specs.datasets import DATASETS
from emofuse.stores import is_remote

NOWHERE = -1


def match_rows(old: Manifest, new: Manifest) -> npt.NDArray[np.int64]:
    """For each row of the cache its place in the dataset: (rows of `old`,) int64, `NOWHERE` for those that are gone."""
    places = np.full(len(old), NOWHERE, dtype=np.int64)
    kind = DATASETS.find(str(new.info.get("kind")))
    if kind is not None and kind.ids_from_paths:
        _match_column(old, new, "path", places)
    _match_column(old, new, "sample_id", places)
    _match_content(old, new, places)
    return places


def kept_ids(old: Manifest, new: Manifest, places: npt.NDArray[np.int64]) -> pl.Series:
    """Ids of the dataset's rows: those of the cache where they are its rows, and unlike all of these elsewhere."""
    ids: list[str] = new.table["sample_id"].to_list()
    found = np.flatnonzero(places != NOWHERE)
    of_cache = old.table["sample_id"].to_list()
    matched = {int(places[row]): of_cache[row] for row in found.tolist()}
    taken = set(of_cache)
    paths = new.table["path"].to_list()
    for place, sample_id in enumerate(ids):
        if place in matched:
            ids[place] = matched[place]
            continue
        candidate, count = sample_id, 1
        while candidate in taken:
            candidate = paths[place] if count == 1 and paths[place] else f"{sample_id}#{count + 1}"
            count += 1
        ids[place] = candidate
        taken.add(candidate)
    return pl.Series("sample_id", ids, dtype=pl.String)


def _match_column(old: Manifest, new: Manifest, column: str, places: npt.NDArray[np.int64]) -> None:
    """Matches rows that neither side has matched yet by a value that each side has once."""

    def once(table: pl.DataFrame, name: str, is_free: npt.NDArray[np.bool_]) -> pl.DataFrame:
        rows = table.select(column).with_row_index(name).filter(pl.Series(is_free))
        return rows.filter((pl.col(column) != "") & pl.col(column).is_unique())

    had = once(old.table, "row", places == NOWHERE)
    has = once(new.table, "place", _free_places(new, places))
    both = had.join(has, on=column, how="inner")
    places[both["row"].to_numpy()] = both["place"].to_numpy()


def _free_places(new: Manifest, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    is_free = np.ones(len(new), dtype=np.bool_)
    is_free[places[places != NOWHERE]] = False
    return is_free


def _match_content(old: Manifest, new: Manifest, places: npt.NDArray[np.int64]) -> None:
    """Matches moved pictures by length and CRC-32C. Only new files as long as a lost one are read."""
    if is_remote(new.root):
        return
    lengths, sums = (old.known_files[name].to_list() for name in ("bytes", "crc32c"))
    lost = [row for row in np.flatnonzero(places == NOWHERE).tolist() if lengths[row] and sums[row] is not None]
    wanted = {lengths[row] for row in lost}
    now, problems = new.known_files["bytes"].to_list(), new.table["problem"].to_list()
    free = np.flatnonzero(_free_places(new, places)).tolist()
    candidates = [place for place in free if now[place] in wanted and problems[place] is None]
    old_paths, new_paths = old.table["path"].to_list(), new.table["path"].to_list()
    found = map_in_threads(file_sum, [str(new.root / new_paths[place]) for place in candidates])
    by_content: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, crc in zip(candidates, found, strict=True):
        if crc is not None:
            by_content[now[place], crc].append(place)
    for row in lost:
        same = by_content[lengths[row], sums[row]]
        if same:  # files with the same bytes have the same features; the same name is the likelier one
            name = PurePosixPath(old_paths[row]).name
            place = next((place for place in same if PurePosixPath(new_paths[place]).name == name), same[0])
            same.remove(place)
            places[row] = place


def file_sum(path: str) -> int | None:
    """CRC-32C of the bytes of a file, None if it cannot be read."""
    try:
        return crc32c(Path(path).read_bytes())
    except OSError:
        return None
