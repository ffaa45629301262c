"""The columns of a Parquet file by their types, and by the metadata of Hugging Face's datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emofuse.errors import DatasetError


def read_features(schema: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return Hugging Face's metadata of each column; {} if there are none that can be read."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def image_column(path: Path, schema: Any) -> str:
    """Return the column that holds images, by the metadata or as the only one with bytes.

    Raises:
        DatasetError: there is none, or several.
    """
    features = read_features(schema)
    images = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    with_bytes = [name for name in schema.names if _has_bytes(schema.field(name).type)]
    for found in (images, with_bytes):
        if len(found) == 1:
            return found[0]
        if found:
            raise DatasetError(
                f"{path}: several columns could hold the images: set `image_column` ({', '.join(found)})"
            )
    raise DatasetError(
        f"{path}: no column holds bytes of images; set `image_column` (columns: {', '.join(schema.names)})"
    )


def _has_bytes(kind: Any) -> bool:
    """Return whether a type is bytes, or a structure with the field `bytes`."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def is_content(kind: Any) -> bool:
    """Return whether a type is no number or word: bytes, a list or a structure."""
    from pyarrow import types

    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))
