"""The names that datasets use for train, val and test."""

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
_EVALUATION = frozenset({"eval", "evaluation"})  # val or test, depending on the other names of the dataset
KNOWN_SPLIT_NAMES = (
    "train or training, val or valid or validation or dev or PublicTest, test or testing or PrivateTest, eval"
)


def read_split_names(names: Iterable[str]) -> dict[str, str]:
    """Return which of the names in a dataset mean train, val or test.

    Case, spaces, hyphens, underscores and a final `set` or `split` (`train_set`) are ignored. `eval` means val, unless
    the dataset has another name for val and none for test: then it means test.

    Args:
        names: all names in a column, or of all folders.

    Returns:
        Each known name -> train, val or test, in the given order.
    """
    plain = {name: _plain(name) for name in names}
    known = {name: _NAMES[word] for name, word in plain.items() if word in _NAMES}
    splits = set(known.values())
    evaluation = "test" if "val" in splits and "test" not in splits else "val"
    return {name: known.get(name, evaluation) for name, word in plain.items() if name in known or word in _EVALUATION}


def read_split_folders(names: Iterable[str]) -> dict[str, str]:
    """Return which folders of a root are splits, as `read_split_names` does.

    A folder `dev` or `eval` may be that of a label. So such names count only if another folder is certainly a split, or
    if all folders have such names.
    """
    names = list(names)
    splits = read_split_names(names)
    is_sure = any(_plain(name) in _SURE for name in names) or len(splits) == len(names)
    return splits if is_sure else {}


def describe_split_names(splits: Mapping[str, str]) -> str:
    """Return how the names that are not self-explanatory are read: `'PublicTest' as val, 'PrivateTest' as test`."""
    return ", ".join(f"{name!r} as {split}" for name, split in splits.items() if _plain(name) not in _SURE)


def _plain(name: str) -> str:
    word = re.sub(r"[\s_-]+", "", name.casefold())
    return re.sub(r"(?<=.)(set|split)$", "", word)
