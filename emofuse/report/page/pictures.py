"""Thumbnails of samples, read from the dataset that the manifest beside the runs describes.

The dataset may be gone, on another machine, or of sounds. Then there are no thumbnails, and a sentence says why.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.names import NameKind, kind_of_name
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import Source, sources_of
from emofuse.errors import DatasetError, DecodeError, EmofuseError
from emofuse.media.decode import read_image
from emofuse.media.files import open_source
from emofuse.media.video import iterate_frames
from emofuse.report.configurations import Results
from emofuse.specs import ClipSpec, DecodeSpec

SIDE_PX = 112
"""The longest side of a thumbnail."""
MOST_PICTURES = 600
MOST_BYTES = 1_800_000
"""The most thumbnails of a page, and their most bytes."""
_QUALITY = 60
_MANIFEST = "features.manifest.parquet"


Truth = str | tuple[float, ...]
"""The class of a sample, or its true values."""


@dataclass(frozen=True)
class Pictures:
    """Thumbnails of samples.

    Attributes:
        uris: sample id -> the thumbnail as WebP in base64.
        note: the sentence on samples without a thumbnail; an empty text if all that should have one do.
    """

    uris: Mapping[str, str]
    note: str = ""


def read_pictures(
    results: Results, runs: Path, samples: Mapping[str, Truth], *, manifest: Path | None = None
) -> Pictures:
    """Read the thumbnails of samples, in the order of their importance, as far as a page has room.

    Args:
        results: the configurations, whose dataset the manifest must describe.
        runs: the folder of the saved runs.
        samples: the id of each sample -> its class, or its true values.
        manifest: the manifest of their dataset; looked for beside the runs unless given.
    """
    if not samples:
        return Pictures({})
    found = find_manifest(results, runs, samples) if manifest is None else _read_manifest(manifest)
    if found is None:
        return Pictures({}, "No pictures are shown, because the manifest of the dataset is not beside the runs.")
    sources = _sources(found, list(samples))
    uris: dict[str, str] = {}
    problems: list[str] = []
    total = 0
    for sample in samples:
        if len(uris) == MOST_PICTURES or total > MOST_BYTES:
            rest = f"Pictures are shown for the first {len(uris):,} of {len(samples):,} listed samples."
            return Pictures(uris, f"{rest} The page would grow too large with more.")
        try:
            uris[sample] = _thumbnail(sources.get(sample), results)
            total += len(uris[sample])
        except (EmofuseError, OSError) as error:
            problems.append(str(error))
            if not uris and len(problems) == 5:  # the dataset is elsewhere: do not try thousands of files
                break
    if not uris:
        return Pictures({}, f"No pictures are shown, because they cannot be read from {found.root}: {problems[0]}.")
    note = (
        f"{len(problems):,} listed sample{'s have' if len(problems) > 1 else ' has'} no picture: {problems[0]}."
        if problems
        else ""
    )
    return Pictures(uris, note)


def find_manifest(results: Results, runs: Path, samples: Mapping[str, Truth]) -> Manifest | None:
    """Return the manifest of the dataset of the runs: beside them, or of a pipeline beside their sweep.

    A manifest counts if it describes a dataset of this name and kind and has all samples. That of a pipeline must also
    have their classes as labels, or their true values, because it may be of other data.

    Args:
        results: the configurations.
        runs: the folder of the saved runs.
        samples: the id of each sample -> its class, or its true values.
    """
    wanted = pl.DataFrame({"sample_id": list(samples), "place": range(len(samples))})
    above = runs.absolute().parent
    for path in (above / _MANIFEST, runs.absolute() / _MANIFEST, *sorted(above.parent.glob(f"*/{_MANIFEST}"))):
        manifest = _read_manifest(path)
        if manifest is None or any(manifest.info.get(key) != results.dataset.get(key) for key in ("name", "kind")):
            continue
        found = wanted.join(manifest.table, on="sample_id").sort("place")
        is_beside = path.parent in {above, runs.absolute()}
        if len(found) == len(wanted) and (is_beside or _has_truth(found, results, list(samples.values()))):
            return manifest
    return None


def _has_truth(rows: pl.DataFrame, results: Results, truth: Sequence[Truth]) -> bool:
    """Return whether rows of a manifest have these classes as labels, or these values in the columns of the target."""
    if isinstance(truth[0], str):
        return rows["label"].to_list() == list(truth)
    columns = results.runs[0].spec.get("target", {}).get("columns", ())
    if not set(columns) <= set(rows.columns):
        return False
    try:
        values = rows.select(pl.col(list(columns)).cast(pl.Float64)).to_numpy()
    except pl.exceptions.PolarsError:
        return False
    return bool(np.allclose(values, np.array(truth, np.float64), rtol=1e-5, atol=1e-6))


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.read(path)
    except (DatasetError, OSError, pl.exceptions.PolarsError):
        return None


def _sources(manifest: Manifest, samples: Sequence[str]) -> dict[str, Source | None]:
    rows = manifest.table.filter(pl.col("sample_id").is_in(list(samples)))
    files = open_files(manifest.root, follow_links=follows_links(manifest))
    return dict(zip(rows["sample_id"].to_list(), sources_of(rows, manifest.root, files), strict=True))


def _thumbnail(source: Source | None, results: Results) -> str:
    """Return a picture, or the middle frame of a clip, as WebP in base64."""
    if source is None:
        raise DecodeError("its row in the manifest is bad, or leads out of the dataset")
    image = Image.fromarray(_pixels(source, results.runs[0].cache_spec))
    if source.face_box is not None:
        left, top, width, height = source.face_box
        image = image.crop((round(left), round(top), round(left + width), round(top + height)))
    image.thumbnail((SIDE_PX, SIDE_PX))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _pixels(source: Source, cache_spec: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    kind = kind_of_name(source.member or source.path.name)
    if kind is NameKind.SOUND:
        raise DecodeError("samples are sounds")
    decode = DecodeSpec()
    if kind is not NameKind.CLIP and not cache_spec.get("clip"):
        return read_image(source, decode)
    with open_source(source, "clip") as opened:
        frames = iterate_frames(opened, source, ClipSpec(frames=1), decode)
        return next(iter(frames))[1]
