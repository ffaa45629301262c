"""Plain data parsed into a spec of the kind that it names."""

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
    """Return the kind that a spec class declares by its field `kind`; None for other objects."""
    if not (inspect.isclass(value) and issubclass(value, base)) or "kind" not in value.model_fields:
        return None
    kind = value.model_fields["kind"].default
    return kind if isinstance(kind, str) else None


def parse_by_kind(family: Family[type[Base]], base: type[Base], value: Any, default: str | None = None) -> Base:
    """Parse plain data into a spec of the kind that it names; a spec is returned itself.

    Args:
        family: the family of the kinds.
        base: the base class of their specs.
        value: plain data with a `kind`, or a spec. The data that a cache or run has recorded also names the plugin file
            of the kind, which is loaded if the user has named it before.
        default: the kind of data that names none.
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
