"""Names that datasets have for train, val and test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_SURE = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_NAMES = {
    **_SURE,
    "validate": "val",
    "validating": "val",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "publictest": "val",  # FER2013
    "testing": "test",
    "privatetest": "test",  # FER2013
}
_EVALUATION = frozenset({"eval", "evaluation"})  # of the epochs, or of the result: the other names of a dataset tell
KNOWN_SPLIT_NAMES = (
    "train or training, val or valid or validation or dev or PublicTest, test or testing or PrivateTest, eval"
)


def read_split_names(names: Iterable[str]) -> dict[str, str]:
    """Which of the names in a dataset mean train, val or test.

    Case, spaces, hyphens and underscores do not count, nor does a `set` or `split` behind a name (`train_set`). `eval`
    is val, unless the dataset has another name for val and none for test: then it is test.

    Args:
        names: all that a column holds, or of all folders.

    Returns:
        Those that are understood -> train, val or test, in their order.
    """
    plain = {name: _plain(name) for name in names}
    found = {name: _NAMES[word] for name, word in plain.items() if word in _NAMES}
    others = set(found.values())
    evaluation = "test" if "val" in others and "test" not in others else "val"
    return {name: found.get(name, evaluation) for name, word in plain.items() if name in found or word in _EVALUATION}


def read_split_folders(names: Iterable[str]) -> dict[str, str]:
    """Which folders of a root are splits, as `read_split_names`.

    A folder called `dev` or `eval` may be one of a label: such names count only where another folder is surely a
    split, or where all of them are such names.
    """
    names = list(names)
    found = read_split_names(names)
    is_sure = any(_plain(name) in _SURE for name in names) or len(found) == len(names)
    return found if is_sure else {}


def describe_split_names(found: Mapping[str, str]) -> str:
    """`'PublicTest' as val, 'PrivateTest' as test`: those names that do not say themselves how they are read."""
    return ", ".join(f"{name!r} as {split}" for name, split in found.items() if _plain(name) not in _SURE)


def _plain(name: str) -> str:
    word = re.sub(r"[\s_-]+", "", name.casefold())
    return re.sub(r"(?<=.)(set|split)$", "", word)
