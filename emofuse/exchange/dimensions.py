"""The dimensions of imported arrays: vectors, sequences, maps, and sequences of maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from emofuse.errors import CacheError

VECTOR = ("feature",)
SEQUENCE = "time"
"""The name of the first dimension of every sequence."""
_FORMS = "feature | time,feature | channel,y,x | time,channel,y,x"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = ("sample", "view")


def parse_dimensions(text: str) -> tuple[str, ...]:
    """Return the names of dimensions that are written with commas.

    Raises:
        CacheError: they are not those of a vector, a sequence, a map or a sequence of maps.
    """
    names = tuple(name.strip() for name in text.split(","))
    is_sequence = names[0] == SEQUENCE
    inner = names[1:] if is_sequence else names
    fault = ""
    if not all(_NAME.fullmatch(name) for name in names):
        fault = "a name is empty or no word"
    elif len(set(names)) < len(names):
        fault = "a name is there twice"
    elif set(names) & set(_TAKEN):
        fault = f"{' and '.join(_TAKEN)} are axes that the cache adds itself"
    elif SEQUENCE in inner:
        fault = f"{SEQUENCE} must come first"
    elif len(inner) not in {1, 3}:
        fault = "a row, or a step of a sequence, is a vector (one name) or a map (three)"
    if fault:
        raise CacheError(f"--dimensions: {text!r}: {fault}. Write one of: {_FORMS}")
    return names


def check_shape(
    file: Any, name: str, shape: Sequence[int], dtype: np.dtype[Any], dimensions: tuple[str, ...]
) -> tuple[int, ...]:
    """Return the shape of one row of an array, and raise unless the array has these dimensions after its rows.

    Vectors may have an axis of length one, a single view, between rows and features.

    Raises:
        CacheError: the array has other dimensions, or holds no numbers.
    """
    row = tuple(shape[1:])
    if dimensions == VECTOR and len(shape) == 3 and shape[1] == 1:
        row = tuple(shape[2:])
    if dtype.kind in "fiu" and len(row) == len(dimensions) and 0 not in shape:
        return row
    wanted = "D" if dimensions == VECTOR else ", ".join(dimensions)
    hint = ""
    if dtype.kind in "fiu" and len(shape) > 2 and dimensions == VECTOR:
        hint = f". Name the dimensions of a row with --dimensions: {_FORMS}"
    raise CacheError(f"{file}: {name!r} must be (n, {wanted}) of numbers, got {tuple(shape)} {dtype}{hint}")
