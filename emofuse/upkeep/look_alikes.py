"""Confirm pictures that look the same by the features of a cache: copies are each other's nearest rows.

Near duplicates are found by hashes and pixels (`emofuse.datasets.near_duplicates`). A backbone sees what is
in a picture. A group is confirmed if each of its pictures is nearer to another one of them than to every row outside
of it, by the cosine of standardised features. No threshold has to fit the dataset. MobileNetV2 confirms 379 of the 415
groups that pixels find in 14,707 faces of FER2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.reader import Cache
from emofuse.datasets.duplicates import DuplicateGroup
from emofuse.errors import CacheError
from emofuse.status import Status

BACKBONES = frozenset({"backbone", "places365"})
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class FeatureMatch:
    """The distances between the features of the pictures of a group.

    Attributes:
        cosine: the smallest cosine of a picture of the group to its nearest other one; NaN if fewer than two of them
            have features.
        elsewhere: the largest cosine of a picture of the group to a row outside of it.
    """

    cosine: float
    elsewhere: float

    @property
    def is_confirmed(self) -> bool:
        """Whether every picture of the group is nearer to another one of it than to all other rows."""
        return self.cosine > self.elsewhere

    def __str__(self) -> str:
        """Return both cosines in words."""
        if np.isnan(self.cosine):
            return "fewer than two of them have features"
        return f"cosine {self.cosine:.3f}, to other rows up to {self.elsewhere:.3f}"


def match_features(cache: Cache, groups: Sequence[DuplicateGroup], stream: str | None = None) -> list[FeatureMatch]:
    """Compare the features of pictures that look the same with those of all other rows.

    Args:
        cache: a cache of the same dataset. Samples that it does not have are left out.
        groups: the pictures that look the same.
        stream: the name of a stream of vectors; by default the largest one of a backbone.

    Returns:
        One match for each group.

    Raises:
        CacheError: there is no such stream, or a chunk is damaged.
        IncompleteCacheError: blocks of the stream have not been computed yet.
    """
    features, has_features = _unit_rows(backbone_of(cache, stream))
    ids = cache.manifest.table["sample_id"].to_list()
    row_of = {sample_id: row for row, sample_id in enumerate(ids) if has_features[row]}
    return [
        _match(features, np.array([row_of[each] for each in group.sample_ids if each in row_of], dtype=np.int64))
        for group in groups
    ]


def backbone_of(cache: Cache, stream: str | None = None) -> CachedStream:
    """Return the stream of a cache that confirms duplicates.

    Raises:
        CacheError: there is none of this name, or no backbone.
    """
    vectors = {name: each for name, each in cache.streams.items() if len(each.shape) == 1}
    named = [vectors[stream]] if stream in vectors else []
    found = named if stream else [each for each in vectors.values() if each.kind in BACKBONES]
    if not found:
        wanted = f"stream of vectors named {stream!r}" if stream else "stream of a backbone"
        raise CacheError(f"{cache.path}: there is no {wanted} (streams: {', '.join(cache.streams)})")
    return max(found, key=lambda each: each.dim)


def _unit_rows(stream: CachedStream) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return standardised features with length 1, float32 (N, D), zeros where there are none; and where there are."""
    features, status = stream.read(dtype=np.float32)
    is_there = status == Status.OK
    if is_there.any():
        deviation = features.std(axis=0, dtype=np.float64, where=is_there[:, None])
        features -= features.mean(axis=0, dtype=np.float64, where=is_there[:, None]).astype(np.float32)
        features /= np.where(deviation > 0, deviation, 1.0).astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    features[~is_there] = 0
    return features, is_there


def _match(features: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> FeatureMatch:
    if len(rows) < 2:
        return FeatureMatch(float("nan"), float("nan"))
    inside = features[rows] @ features[rows].T
    np.fill_diagonal(inside, -np.inf)
    elsewhere = -1.0
    for start in range(0, len(features), _ROWS_AT_ONCE):
        part = features[start : start + _ROWS_AT_ONCE] @ features[rows].T
        part[rows[(rows >= start) & (rows < start + len(part))] - start] = -np.inf
        elsewhere = max(elsewhere, float(part.max()))
    return FeatureMatch(float(inside.max(axis=1).min()), elsewhere)
