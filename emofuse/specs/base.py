"""The base of all specs, and the digest that identifies the results of a spec."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

PLUGIN_ATTRIBUTE = "__emofuse_plugin__"
"""The attribute of a plugin's module that holds its file (see `emofuse.specs.plugins`)."""


class Spec(BaseModel):
    """The base of all specs: immutable, with finite numbers, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def written_keys(cls) -> set[str]:
        """Return the keys that the spec may have in YAML."""
        return set(cls.model_fields)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the spec of a plugin with the path and hash of the file, which the other process loads first."""
        plugin = getattr(sys.modules.get(type(self).__module__), PLUGIN_ATTRIBUTE, None)
        if plugin is None:
            return super().__reduce_ex__(protocol)
        return _load_spec, (str(plugin.path), plugin.sha256, type(self).__qualname__, self.model_dump())


class ExtendedSpec(Spec):
    """The base of specs with fields that were added after digests of them had been saved.

    Attributes:
        added: the names of these fields. They are not written where they have their default, so that the digests of
            what was made before stay the same.
    """

    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self.written(write(self))

    def written(self, written: dict[str, Any]) -> dict[str, Any]:
        """Return what is written of all fields."""
        fields = type(self).model_fields
        unchanged = {name for name in self.added if getattr(self, name) == fields[name].default}
        return {name: value for name, value in written.items() if name not in unchanged}


def _load_spec(path: str, sha256: str, name: str, fields: dict[str, Any]) -> Spec:
    """Unpickle the spec of a plugin."""
    plugins = import_module("emofuse.specs.plugins")
    module = plugins.load_sent(path, sha256)
    spec: Spec = getattr(module, name).model_validate(fields)
    return spec


def canonical_json(value: Any) -> str:
    """Return plain data as JSON with sorted keys and without spaces: equal data gives equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of plain data or of a spec."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()
