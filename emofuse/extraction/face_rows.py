"""Rows for each face of a picture: the faces of all pictures are found first, then the manifest gets a row a face.

Rows are fixed before anything is extracted, so the boxes of all faces are a small cache of their own beside the cache
(`features.zarr` -> `features.faces.zarr`). It is built like any other, and so by all workers, in blocks that are kept
if the build is stopped, and anew only for pictures that were added or replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from emofuse.cache.reader import open_cache
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.sources import FACE_BOX, face_boxes
from emofuse.errors import DatasetError
from emofuse.specs import CacheSpec, ImportedSpec
from emofuse.specs.streams import looks_at_faces
from emofuse.status import Status
from emofuse.streams.face_boxes import FaceBoxesSpec, boxes_of

FACE_BOXES = FaceBoxesSpec(name="face_boxes")
"""The stream of the cache of face boxes."""
_INFO = "face_rows"


def gives_rows_to_faces(spec: CacheSpec) -> bool:
    """Return whether each face of a picture is a row of its own in the cache of a spec.

    A cache that holds nothing of faces but the boxes of all has a row a picture.
    """
    extracted = (stream for stream in spec.streams if not isinstance(stream, ImportedSpec))
    return spec.face.which == "all" and any(looks_at_faces(stream.needs - {"faces"}) for stream in extracted)


def faces_path(cache: Path) -> Path:
    """Return the path of the cache of face boxes beside a cache: `features.zarr` -> `features.faces.zarr`."""
    return cache.with_name(f"{cache.name.removesuffix('.zarr')}.faces.zarr")


def faces_spec(spec: CacheSpec) -> CacheSpec:
    """Return the spec of the cache of face boxes: the decoding and detection of a spec, without views."""
    return CacheSpec(
        name=f"{spec.name}-faces", block_rows=spec.block_rows, decode=spec.decode, face=spec.face, streams=(FACE_BOXES,)
    )


def with_face_rows(
    path: Path, manifest: Manifest, spec: CacheSpec, build: Callable[[Path, Manifest, CacheSpec], object]
) -> Manifest:
    """Return the manifest with a row for each face of a picture, if the spec asks for it.

    A row that already says which face it means, or that is bad, stays as it is. A picture without a face keeps its row.

    Args:
        path: the path of the cache.
        manifest: the manifest of the dataset.
        spec: the spec of the cache.
        build: builds the cache of face boxes at a path from a manifest and a spec.

    Raises:
        EmofuseError: for the reasons for which a build raises.
        DatasetError: two rows would have the same id.
    """
    if not gives_rows_to_faces(spec):
        return manifest
    beside = faces_path(path)
    build(beside, manifest, faces_spec(spec))
    cache = open_cache(beside)
    stream = cache.streams[FACE_BOXES.name]
    features, status = stream.read()
    boxes = {
        sample_id: [tuple(box) for box in boxes_of(row).tolist()]
        for sample_id, row, code in zip(cache.manifest.table["sample_id"].to_list(), features, status, strict=True)
        if code == Status.OK
    }
    return _expanded(manifest, boxes)


def with_known_face_rows(path: Path, manifest: Manifest, spec: CacheSpec) -> Manifest:
    """Return the manifest with a row for each face as far as the faces were found before; nothing is built."""
    beside = faces_path(path)
    if not gives_rows_to_faces(spec) or not (beside / "zarr.json").is_file():
        return manifest
    return with_face_rows(path, manifest, spec, lambda *_: None)


def _expanded(manifest: Manifest, boxes: dict[str, list[tuple[float, ...]]]) -> Manifest:
    table = manifest.table
    given = face_boxes(table)
    rows: list[int] = []
    ids: list[str] = []
    places: list[tuple[float, ...] | None] = []
    for row, (sample_id, own) in enumerate(zip(table["sample_id"].to_list(), given, strict=True)):
        found = boxes.get(sample_id, []) if own is None else []
        rows += [row] * max(1, len(found))
        ids += [f"{sample_id}#{number}" for number in range(1, len(found) + 1)] or [sample_id]
        places += found or [own]
    _check_unique(ids)
    group = pl.coalesce("group", "sample_id").alias("group")
    expanded = table.with_columns(group)[rows].with_columns(
        pl.Series("sample_id", ids),
        *(
            pl.Series(name, [None if box is None else box[index] for box in places], dtype=pl.Float64)
            for index, name in enumerate(FACE_BOX)
        ),
    )
    note = f"each face is a row: {len(ids)} rows of {len(manifest)} pictures, {len(boxes)} of them with a face"
    info = {**manifest.info, _INFO: True, "notes": [*manifest.info.get("notes", ()), note]}
    files = None if manifest.files is None else manifest.files[rows]
    return Manifest(expanded, manifest.classes, manifest.root, info, files)


def _check_unique(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        twice = next(sample_id for sample_id in ids if ids.count(sample_id) > 1)
        raise DatasetError(
            f"face.which: all gives the first face of a picture the id {twice!r}, which another row of the dataset has"
        )
