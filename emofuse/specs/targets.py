"""The specs of targets: what a head learns, from which columns of the manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from emofuse.specs.base import Spec
from emofuse.specs.factors import list_of_one
from emofuse.wording import join_first

_NAMED = 6  # columns in a sentence
_SEPARATOR = re.compile(r"[^\w]|_")


class ClassTarget(Spec):
    """One of several classes: the label of the manifest, or the labels in another column.

    Attributes:
        column: the column of another annotator's labels, such as the perceived emotion beside the intended one; None
            for the label of the manifest.
    """

    kind: Literal["class"] = "class"
    column: str | None = None

    def __str__(self) -> str:
        """Return what is learned, in words."""
        return "label" if self.column is None else f"labels of column {self.column!r}"


class DistributionTarget(Spec):
    """A distribution over classes: the votes of several annotators, or probabilities.

    Attributes:
        columns: class -> its column. A list of columns names each class by its column without the prefix that all have
            in common: `votes_anger` and `votes_fear` are `anger` and `fear`. A single column holds lists with a number
            for each class of the manifest, in its order.
        votes: whether the numbers are votes, which are divided by their sum. Probabilities must sum to 1.
        loss: cross-entropy or Kullback-Leibler divergence to the distribution. Their gradients are equal; the second is
            0 for a perfect answer.
        label: the class of a row in accuracy and F1: the one with most votes, or the label of the manifest.
    """

    kind: Literal["distribution"] = "distribution"
    columns: Mapping[str, str] | tuple[str, ...]
    votes: bool = True
    loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    label: Literal["majority", "manifest"] = "majority"

    @field_validator("columns", mode="before")
    @classmethod
    def _read_columns(cls, columns: Any) -> Mapping[str, str] | tuple[str, ...]:
        columns = list_of_one(columns)
        listed = list(columns.values()) if isinstance(columns, Mapping) else columns
        if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
            raise ValueError(f"expected a mapping of classes to columns, or a list of columns, got {columns!r}")
        if len(listed) < 1 + isinstance(columns, Mapping):
            raise ValueError(f"a distribution needs the columns of two classes or more, got {columns!r}")
        _different(tuple(listed))
        return (
            {str(name): column for name, column in columns.items()} if isinstance(columns, Mapping) else tuple(listed)
        )

    @property
    def column_of_class(self) -> dict[str, str]:
        """The column of each class; empty if one column holds the numbers of all classes."""
        if isinstance(self.columns, Mapping):
            return dict(self.columns)
        if len(self.columns) == 1:
            return {}
        return dict(zip(without_prefix(self.columns), self.columns, strict=True))

    def __str__(self) -> str:
        """Return what is learned, in words."""
        names = self.columns.values() if isinstance(self.columns, Mapping) else self.columns
        return f"{'votes' if self.votes else 'probabilities'} of {join_first(names, _NAMED)}"


Columns = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(list_of_one)]


class RegressionTarget(Spec):
    """One or several numbers, such as valence and arousal.

    Attributes:
        columns: the columns of the numbers.
        loss: the mean squared error, or 1 - the concordance correlation coefficient of a batch (Lin 1989), averaged
            over the columns.
        range: the lowest and the highest value that a column may have. Others are refused: AffectNet has a valence of
            -2 where nobody could tell it.
    """

    kind: Literal["regression"] = "regression"
    columns: Columns
    loss: Literal["mse", "ccc"] = "mse"
    range: tuple[float, float] | None = None

    @field_validator("columns", mode="after")
    @classmethod
    def _columns_differ(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _different(columns)

    @field_validator("range", mode="after")
    @classmethod
    def _range_ascends(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] >= limits[1]:
            raise ValueError(f"must be the lowest and the highest value, got {limits[0]:g} and {limits[1]:g}")
        return limits

    def __str__(self) -> str:
        """Return what is learned, in words."""
        return join_first(self.columns, _NAMED)


class MultilabelTarget(Spec):
    """Several labels, each of which a row has or has not.

    Attributes:
        columns: a column for each label, with 0 or 1 (false or true). A single column may hold lists of words instead:
            then every word is a label.
    """

    kind: Literal["multilabel"] = "multilabel"
    columns: Columns

    @field_validator("columns", mode="after")
    @classmethod
    def _columns_differ(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _different(columns)

    def __str__(self) -> str:
        """Return what is learned, in words."""
        return f"labels {join_first(self.columns, _NAMED)}"


TargetSpec = Annotated[
    ClassTarget | DistributionTarget | RegressionTarget | MultilabelTarget, Field(discriminator="kind")
]


def without_prefix(names: Sequence[str]) -> list[str]:
    """Return names without the prefix that all have in common, which ends at a character that is no letter or digit."""
    first, last = min(names), max(names)
    length = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    ends = [match.end() for match in _SEPARATOR.finditer(first[:length])]
    short = [name[ends[-1] :] for name in names] if ends else list(names)
    return short if all(short) else list(names)


def _different(columns: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise ValueError(f"a column is named twice: {', '.join(repeated)}")
    return columns
