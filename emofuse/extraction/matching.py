"""Matching of the rows of a cache with the rows of the dataset now, also when ids or paths changed.

The ids of a folder or a table are made from paths, and a file that is added or removed may change the id of an old
image: there the path decides. An image that was moved (into the folder of another label) is recognised by its bytes.
The rows of a cache therefore keep their ids, and no row is extracted again because of another one.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.datasets.files import map_in_threads
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import Source, named_paths, sources_of
from emofuse.errors import DecodeError
from emofuse.media.files import FileSums, read_file
from emofuse.specs.datasets import DATASETS
from emofuse.stores import is_remote

NOWHERE = -1


def match_rows(old: Manifest, new: Manifest) -> npt.NDArray[np.int64]:
    """Return the place of each cached row in the dataset, int64 (rows of `old`,), `NOWHERE` for rows that are gone."""
    places = np.full(len(old), NOWHERE, dtype=np.int64)
    kind = DATASETS.find(str(new.info.get("kind")))
    if kind is not None and kind.ids_from_paths:
        _match_names(named_paths(old.table), named_paths(new.table), places)
    _match_names(old.table["sample_id"], new.table["sample_id"], places)
    _match_content(old, new, places)
    return places


def kept_ids(old: Manifest, new: Manifest, places: npt.NDArray[np.int64]) -> pl.Series:
    """Return the ids of the dataset's rows: the cache's ids for its rows, and ids that differ from all of them else."""
    ids: list[str] = new.table["sample_id"].to_list()
    of_cache = old.table["sample_id"].to_list()
    matched = {int(places[row]): of_cache[row] for row in np.flatnonzero(places != NOWHERE).tolist()}
    taken = set(of_cache)
    paths = named_paths(new.table).to_list()
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


def _match_names(old: pl.Series, new: pl.Series, places: npt.NDArray[np.int64]) -> None:
    """Match the rows that are still free on both sides by a name that occurs once on each side."""

    def once(names: pl.Series, index: str, is_free: npt.NDArray[np.bool_]) -> pl.DataFrame:
        rows = names.alias("name").to_frame().with_row_index(index).filter(pl.Series(is_free))
        return rows.filter((pl.col("name") != "") & pl.col("name").is_unique())

    had = once(old, "row", places == NOWHERE)
    has = once(new, "place", _free_places(len(new), places))
    both = had.join(has, on="name", how="inner")
    places[both["row"].to_numpy()] = both["place"].to_numpy()


def _free_places(count: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    is_free = np.ones(count, dtype=np.bool_)
    is_free[places[places != NOWHERE]] = False
    return is_free


def _match_content(old: Manifest, new: Manifest, places: npt.NDArray[np.int64]) -> None:
    """Match moved images by length and CRC-32C. Only new files with the length of a lost file are read.

    The length of a member is not recorded: if members are lost, all new members are read.
    """
    if is_remote(new.root):
        return
    lengths, sums = _lengths(old), old.known_files["crc32c"].to_list()
    missing = np.flatnonzero(places == NOWHERE).tolist()
    lost = [row for row in missing if lengths[row] is not None and sums[row] is not None]
    wanted = {lengths[row] for row in lost}
    now, problems = _lengths(new), new.table["problem"].to_list()
    free = np.flatnonzero(_free_places(len(new), places)).tolist()
    candidates = [place for place in free if now[place] in wanted and problems[place] is None]
    old_paths, new_paths = named_paths(old.table).to_list(), named_paths(new.table).to_list()
    files = open_files(new.root, follow_links=follows_links(new))
    new_sums = map_in_threads(source_sum, sources_of(new.table[candidates], new.root, files))
    by_content: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, crc in zip(candidates, new_sums, strict=True):
        if crc is not None:
            by_content[now[place], crc].append(place)
    for row in lost:
        same = by_content[lengths[row], sums[row]]
        if same:  # all have the same features; a file with the same name is the most likely one
            name = PurePosixPath(old_paths[row]).name
            place = next((place for place in same if PurePosixPath(new_paths[place]).name == name), same[0])
            same.remove(place)
            places[row] = place


def _lengths(manifest: Manifest) -> list[int | None]:
    """Return the length of every file (n,), None if it is unknown or 0; 0 for members, whose length is unknown."""
    lengths = manifest.known_files["bytes"].replace(0, None)
    if "member" in manifest.table.columns:
        lengths = lengths.set(manifest.table["member"].is_not_null(), 0)
    return list(lengths)


def source_sum(source: Source | None) -> int | None:
    """Return the CRC-32C of what a source is extracted from, as a build records it, or None if it cannot be read."""
    if source is None:
        return None
    sums = FileSums()
    try:
        read_file(source, sums.add)
        if source.audio_path is not None:
            read_file(Source(source.audio_path), sums.add)
    except DecodeError:
        return None
    return sums.crc
