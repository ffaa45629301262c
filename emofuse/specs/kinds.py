"""Plain data to a spec of the kind that it names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic_core import PydanticCustomError, PydanticKnownError

from emofuse.errors import PluginError
from emofuse.registry import Family
from emofuse.specs.base import Spec
from emofuse.specs.plugins import RECORD, load_recorded

Base = TypeVar("Base", bound=Spec)


def kind_of_class(value: object, base: type[Spec]) -> str | None:
    """The kind that a spec class declares as the default of its field `kind`; None for what is no such class."""
    if not (inspect.isclass(value) and issubclass(value, base)) or "kind" not in value.model_fields:
        return None
    kind = value.model_fields["kind"].default
    return kind if isinstance(kind, str) else None


def parse_by_kind(family: Family[type[Base]], base: type[Base], value: Any, default: str | None = None) -> Base:
    """A spec of the kind that plain data names; what is a spec already stays it.

    Args:
        family: whose kinds these are.
        base: of their specs.
        value: plain data with a `kind`, or a spec. What a cache or run has recorded also names the plugin file of the
            kind, which is then loaded if the user has named it before.
        default: the kind of data without one.
    """
    if isinstance(value, base):
        return value
    if not isinstance(value, Mapping):
        raise PydanticKnownError("dict_type")
    value = dict(value)
    name = value.get("kind", default)
    record = value.pop(RECORD, None)
    try:
        if record is not None:
            load_recorded(record)
        spec = family.find(str(name))
        known = family.names()
    except PluginError as error:
        raise PydanticCustomError("plugin", "{reason}", {"reason": str(error)}) from None
    if spec is None:
        tags = ", ".join(repr(kind) for kind in known)
        raise PydanticKnownError(
            "union_tag_invalid", {"discriminator": "kind", "tag": str(name), "expected_tags": tags}
        )
    return spec.model_validate(value)
