"""Pictures of a dataset that look the same: encoded again, scaled, cropped a little, brighter, or mirrored.

Two perceptual hashes of 64 bits (ImageHash: pHash by the discrete cosine transform, dHash by differences) find the
candidates, without a comparison of all pairs: hashes that differ in up to `MOST_BITS` bits have a quarter that differs
in at most one bit, so that quarters are sorted and looked up (multi-index hashing, Norouzi et al., CVPR 2012). Faces of
one dataset have similar hashes. So each candidate is confirmed by pixels, in 32 x 32 grey values and where one of them
may be cropped by up to a tenth: by the correlation of the values, and by that of their differences to the next pixel,
which tells apart two faces in the same light. Of 14,707 faces of FER2013, all pairs above both limits that were looked
at are copies; different people who pass the first reach 0.73 of the second.
"""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.datasets.duplicates import DuplicateGroup
from emofuse.datasets.files import map_in_threads
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.members import read_content
from emofuse.datasets.names import NameKind, kind_of_name
from emofuse.datasets.sources import Source, named_paths
from emofuse.errors import DatasetError
from emofuse.progress import step

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BITS = 7
"""The largest number of bits in which the hashes of candidates differ."""
LEAST_CORRELATION = 0.95
"""The smallest correlation of the grey values of pictures that count as the same."""
LEAST_DETAIL = 0.75
"""The smallest correlation of the differences between neighbouring pixels of such pictures."""

_HASHES = ("phash", "dhash")
_BAND_BITS = 16
_BANDS = 4
_KEPT_PX = 48  # the grey picture that is kept of each file
_COMPARED_PX = 32
_CROPPED_PX = (46, 43)  # of the kept picture: 4 and 10 %
_LEAST_CONTRAST = 3.0  # grey values of 255: below, hash and correlation compare noise
_HOPELESS = 0.5  # no small crop makes 0.95 of a lower correlation
_PAIRS_AT_ONCE = 1 << 20
_FILES_PER_TASK = 16


@dataclass(frozen=True)
class NearDuplicates:
    """The groups of pictures that look the same, and what was not compared.

    Attributes:
        groups: the rows of each group, first those with contradicting labels, then those in several splits.
        unreadable: the number of files that cannot be decoded.
        flat: the number of pictures that have almost no contrast.
    """

    groups: tuple[DuplicateGroup, ...]
    unreadable: int
    flat: int


def find_near_duplicates(manifest: Manifest) -> NearDuplicates:
    """Find the pictures that look the same; bad rows, clips and sounds are left out.

    Mirrored pictures count: a head that trains on flipped views has seen them. Pictures that are linked by others
    are one group.

    Args:
        manifest: the manifest of a dataset that was just read.

    Raises:
        DatasetError: the package ImageHash is not installed.
        StoreError: the store that the dataset lies on does not answer.
    """
    _load_imagehash()
    rows = manifest.table.filter(pl.col("problem").is_null())
    media = {NameKind.CLIP, NameKind.SOUND}
    rows = rows.filter(pl.Series([kind_of_name(path) not in media for path in named_paths(rows)], dtype=pl.Boolean))
    members = rows["member"] if "member" in rows.columns else [None] * rows.height
    sources = [Source(manifest.root / path, member) for path, member in zip(rows["path"], members, strict=True)]
    pictures, unreadable = _read_pictures(sources)
    rows = rows.select("sample_id", "label", "split", path=named_paths(rows))
    contrast = pictures.grey.std(axis=(1, 2)) if len(pictures.rows) else np.zeros(0)
    flat = int(np.sum(contrast < _LEAST_CONTRAST))
    pictures = pictures.only(contrast >= _LEAST_CONTRAST)
    links: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for one, other, is_mirrored in _confirmed(pictures):
        links[one].append((other, is_mirrored))
        links[other].append((one, is_mirrored))
    groups = [_group(rows, pictures.rows, component) for component in _components(links)]
    groups.sort(key=lambda group: (not group.has_contradicting_labels, not group.is_in_several_splits))
    return NearDuplicates(tuple(groups), unreadable, flat)


@dataclass(frozen=True)
class _HashedPictures:
    """The n pictures that can be decoded.

    Attributes:
        rows: their rows, int64 (n,), ascending.
        grey: uint8 (n, 48, 48).
        hashes: uint64 (n, 2), one column for each of `_HASHES`.
        mirrored: uint64 (n, 2), the hashes of the mirrored pictures.
    """

    rows: npt.NDArray[np.int64]
    grey: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.uint64]
    mirrored: npt.NDArray[np.uint64]

    def only(self, kept: npt.NDArray[np.bool_]) -> _HashedPictures:
        return _HashedPictures(self.rows[kept], self.grey[kept], self.hashes[kept], self.mirrored[kept])


def _load_imagehash() -> Any:
    try:
        import imagehash
    except ImportError:
        raise DatasetError(
            "near duplicates are found by the package ImageHash: pip install 'emofuse[duplicates]'"
        ) from None
    return imagehash


def _read_pictures(sources: Sequence[Source]) -> tuple[_HashedPictures, int]:
    found: list[tuple[int, npt.NDArray[np.uint8], list[int], list[int]]] = []
    with step("hashing pictures", len(sources), "pictures") as advance:
        read = map_in_threads(_read_picture, sources, paths_per_task=_FILES_PER_TASK)
        for row, picture in enumerate(read):
            if picture is not None:
                found.append((row, *picture))
            advance(row + 1, len(sources))
    pictures = _HashedPictures(
        np.array([row for row, *_ in found], dtype=np.int64),
        np.array([grey for _, grey, _, _ in found], dtype=np.uint8).reshape(-1, _KEPT_PX, _KEPT_PX),
        np.array([hashes for *_, hashes, _ in found], dtype=np.uint64).reshape(-1, len(_HASHES)),
        np.array([hashes for *_, hashes in found], dtype=np.uint64).reshape(-1, len(_HASHES)),
    )
    return pictures, len(sources) - len(found)


def _read_picture(source: Source) -> tuple[npt.NDArray[np.uint8], list[int], list[int]] | None:
    """Return the grey picture (48, 48), its hashes and those of its mirror image; None for a file that is none."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata or many pixels
            with Image.open(io.BytesIO(read_content(source))) as image:
                image.draft("L", (256, 256))  # a JPEG is decoded no larger than needed
                grey = ImageOps.exif_transpose(image).convert("L")
    except Exception:  # noqa: BLE001 - Pillow raises errors of any kind for a damaged file, which is counted
        return None
    kept = np.asarray(grey.resize((_KEPT_PX, _KEPT_PX), Image.Resampling.BOX))
    return kept, _hashes(grey), _hashes(ImageOps.mirror(grey))


def _hashes(grey: Image) -> list[int]:
    imagehash = _load_imagehash()
    hashes = (getattr(imagehash, name)(grey).hash for name in _HASHES)
    return [int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big") for bits in hashes]


def _confirmed(pictures: _HashedPictures) -> Iterator[tuple[int, int, bool]]:
    """Yield the pairs of pictures that look the same: both places, and whether one is mirrored."""
    for is_mirrored in (False, True):
        others = pictures.mirrored if is_mirrored else pictures.hashes
        found = [_near_pairs(pictures.hashes[:, kind], others[:, kind]) for kind in range(len(_HASHES))]
        pairs = np.unique(np.concatenate(found), axis=0)
        name = "comparing mirrored pictures" if is_mirrored else "comparing pictures"
        with step(name, len(pairs), "pairs") as advance:
            crops: dict[int, npt.NDArray[np.float32]] = {}
            for number, (one, other) in enumerate(pairs.tolist(), start=1):
                second = pictures.grey[other][:, ::-1] if is_mirrored else pictures.grey[other]
                if _look_the_same(_cropped(crops, one, pictures.grey[one]), _cropped(crops, ~other, second)):
                    yield one, other, is_mirrored
                advance(number, len(pairs))


def _near_pairs(hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the pairs i < j whose `hashes[i]` and `others[j]` differ in up to `MOST_BITS` bits, int64 (pairs, 2)."""
    found = [np.empty((0, 2), np.int64)]
    for band in range(_BANDS):
        shift, mask = np.uint64(band * _BAND_BITS), np.uint64((1 << _BAND_BITS) - 1)
        ours, theirs = (hashes >> shift) & mask, (others >> shift) & mask
        order = np.argsort(theirs, kind="stable")
        ordered = theirs[order]
        for flipped in (0, *(1 << bit for bit in range(_BAND_BITS))):
            wanted = ours ^ np.uint64(flipped)
            first, stop = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
            for part in _parts(stop - first):
                counts = (stop - first)[part]
                one = np.repeat(np.arange(part.start, part.stop), counts)
                offsets = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
                other = order[np.repeat(first[part], counts) + offsets]
                near = (one < other) & (_differing_bits(hashes[one] ^ others[other]) <= MOST_BITS)
                found.append(np.stack([one[near], other[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _parts(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of rows with about a million pairs each."""
    bounds = np.flatnonzero(np.diff(np.cumsum(counts) // _PAIRS_AT_ONCE)) + 1
    edges = [0, *bounds.tolist(), len(counts)]
    for start, stop in pairwise(edges):
        if counts[start:stop].any():
            yield slice(start, stop)


def _differing_bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the number of set bits of each value, int64 (n,)."""
    as_bytes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    bits: npt.NDArray[np.int64] = np.unpackbits(as_bytes, axis=1).sum(axis=1, dtype=np.int64)
    return bits


def _cropped(
    known: dict[int, npt.NDArray[np.float32]], key: int, grey: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the whole picture and its crops with mean 0 and length 1, float32 (crops, 1024)."""
    from PIL import Image

    if key not in known:
        image = Image.fromarray(np.ascontiguousarray(grey))
        boxes = [(0, 0, _KEPT_PX, _KEPT_PX)]
        for size in _CROPPED_PX:
            places = (0, (_KEPT_PX - size) // 2, _KEPT_PX - size)
            boxes += [(left, top, left + size, top + size) for left in places for top in places]
        size_px = (_COMPARED_PX, _COMPARED_PX)
        crops = [np.asarray(image.resize(size_px, Image.Resampling.BILINEAR, box=box), np.float32) for box in boxes]
        rows = np.stack(crops).reshape(len(boxes), -1)
        rows -= rows.mean(axis=1, keepdims=True)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        known[key] = rows
    return known[key]


def _look_the_same(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> bool:
    """Return whether two pictures correlate in values and details, if need be after one of them is cropped."""
    if ours[0] @ theirs[0] < _HOPELESS:
        return False
    of_theirs, of_ours = theirs @ ours[0], ours @ theirs[0]
    one, other = ours[0], theirs[int(of_theirs.argmax())]
    if of_ours.max() > of_theirs.max():
        one, other = ours[int(of_ours.argmax())], theirs[0]
    if one @ other < LEAST_CORRELATION:
        return False
    return float(_details(one) @ _details(other)) >= LEAST_DETAIL


def _details(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the differences of pixels to their right and lower neighbours, with length 1, float32 (1984,)."""
    picture = values.reshape(_COMPARED_PX, _COMPARED_PX)
    found = np.concatenate([np.diff(picture, axis=0).ravel(), np.diff(picture, axis=1).ravel()])
    details: npt.NDArray[np.float32] = found / max(float(np.linalg.norm(found)), 1e-6)
    return details


def _components(links: dict[int, list[tuple[int, bool]]]) -> Iterator[dict[int, bool]]:
    """Yield the groups of linked pictures: each place -> whether the picture is mirrored against the first one."""
    seen: set[int] = set()
    for start in sorted(links):
        if start in seen:
            continue
        component, left = {start: False}, [start]
        while left:
            place = left.pop()
            for other, is_mirrored in links[place]:
                if other not in component:
                    component[other] = component[place] != is_mirrored
                    left.append(other)
        seen |= component.keys()
        yield component


def _group(rows: pl.DataFrame, places: npt.NDArray[np.int64], component: dict[int, bool]) -> DuplicateGroup:
    ordered = sorted(component)
    table = rows[places[ordered].tolist()]
    return DuplicateGroup.of(table, mirrored=tuple(component[place] for place in ordered), sign=" ~ ")
