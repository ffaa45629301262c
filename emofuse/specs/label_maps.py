"""Label maps: which label of one taxonomy counts as which label of another, for tests on other datasets.

A map is a YAML file. The ones in `label_maps/` come with emofuse and are known by their names::

    from: Mikels 8
    to: Ekman 6
    labels: {amusement: happiness, awe: null, contentment: happiness, ...}
    lossy: {amusement: one of three kinds of happiness, awe: no basic emotion}

A label that maps to null has no counterpart. `emofuse.evaluation` says which side of a test a map is applied to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from emofuse.errors import did_you_mean
from emofuse.specs.base import Spec

_SPELLINGS = (
    ("anger", "angry"),
    ("contempt", "contemptuous"),
    ("disgust", "disgusted"),
    ("fear", "fearful", "afraid", "scared"),
    ("happiness", "happy", "joy"),
    ("sadness", "sad"),
    ("surprise", "surprised"),
)
"""The words for one emotion in published datasets."""
_FIRST_SPELLING = {word: words[0] for words in _SPELLINGS for word in words}


class LabelMapSpec(Spec):
    """A map from the labels of one taxonomy to those of another.

    Attributes:
        name: the name of the file.
        source: the name of the taxonomy that is mapped, `from` in YAML.
        target: the name of the taxonomy that it is mapped to, `to` in YAML.
        labels: label -> the label that it counts as; None for a label without a counterpart.
        lossy: label -> what is lost by its mapping.
    """

    name: str
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    labels: Mapping[str, str | None] = Field(min_length=1)
    lossy: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("labels", "lossy", mode="after")
    @classmethod
    def _is_not_blank(cls, labels: Mapping[str, str | None]) -> Mapping[str, str | None]:
        blank = [key for key, value in labels.items() if not key.strip() or (value is not None and not value.strip())]
        if blank:
            raise ValueError(f"blank text at {', '.join(map(repr, blank))}; write null for a label without counterpart")
        return labels

    @model_validator(mode="after")
    def _maps_something(self) -> Self:
        if not any(self.labels.values()):
            raise ValueError("labels: all are null, so that there is nothing to test")
        unknown = [label for label in self.lossy if label not in self.labels]
        if unknown:
            hints = ", ".join(f"{label!r}{did_you_mean(label, self.labels)}" for label in unknown)
            raise ValueError(f"lossy: {hints}: no label of this map")
        return self

    @property
    def merged(self) -> dict[str, list[str]]:
        """The labels that several labels count as, each with these."""
        sources: dict[str, list[str]] = {}
        for label, counts_as in self.labels.items():
            if counts_as is not None:
                sources.setdefault(counts_as, []).append(label)
        return {counts_as: labels for counts_as, labels in sources.items() if len(labels) > 1}


def find_label(label: str, labels: Iterable[str]) -> str | None:
    """Return which of these labels means the same: the equal one, or the only one in another spelling; None without.

    Spellings are upper and lower case, and the words of one emotion: `happy`, `happiness` and `joy`.
    """
    known = list(labels)
    if label in known:
        return label
    same = [other for other in known if _spelled(other) == _spelled(label)]
    return same[0] if len(same) == 1 else None


def _spelled(label: str) -> str:
    word = label.strip().casefold()
    return _FIRST_SPELLING.get(word, word)
