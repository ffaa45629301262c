"""Registries of the kinds of streams, heads, datasets and metrics, which YAML files refer to by name.

A family finds its kinds in three places: modules of emofuse, Python entry points of installed packages (group
`emofuse.streams`, `emofuse.heads`, `emofuse.datasets` or `emofuse.metrics`), and plugin files that a pipeline names
(see `emofuse.specs.plugins`). A kind never replaces another one: two kinds with one name are an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from emofuse.errors import PluginError

Kind = TypeVar("Kind")

FAMILIES: list[Family[Any]] = []
"""All families, in the order of their creation."""


@dataclass
class Family(Generic[Kind]):
    """All kinds of streams, of heads, of datasets or of metrics.

    Attributes:
        noun: the word for one of them, for messages.
        group: the group of entry points.
        name_of: a function that returns the kind that an object declares; None for an object without a kind.
        load_own: a function that loads emofuse's own kinds; it runs once.
    """

    noun: str
    group: str
    name_of: Callable[[object], str | None]
    load_own: Callable[[], Iterable[Kind]]
    _kinds: dict[str, Kind] = field(default_factory=dict)
    _origins: dict[str, str] = field(default_factory=dict)
    _entries: dict[str, EntryPoint] | None = None
    _loads_own: bool = False

    def __post_init__(self) -> None:
        FAMILIES.append(self)

    def names(self) -> list[str]:
        """Return the names of all kinds in alphabetical order, without loading entry points."""
        self._find()
        return sorted({*self._kinds, *(self._entries or {})})

    def find(self, name: str) -> Kind | None:
        """Return the kind of this name; None if there is none. An entry point is loaded.

        Raises:
            PluginError: the entry point cannot be loaded, or declares another kind.
        """
        self._find()
        if name not in self._kinds and name in (self._entries or {}):
            self._load_entry(name)
        return self._kinds.get(name)

    def all(self) -> Mapping[str, Kind]:
        """Return every kind by its name. Entry points are loaded.

        Raises:
            PluginError: an entry point cannot be loaded.
        """
        for name in self.names():
            self.find(name)
        return dict(self._kinds)

    def add(self, kind: Kind, origin: str) -> None:
        """Add a kind.

        Args:
            kind: the class or object.
            origin: the place of its declaration, for messages. A kind added again from the same place replaces itself.

        Raises:
            PluginError: another place has declared a kind of this name.
        """
        self._find()
        name = self.name_of(kind)
        if name is None:
            raise PluginError(f"{origin}: {kind!r} declares no kind of a {self.noun}")
        entry = (self._entries or {}).get(name)
        other = self._origins.get(name) or (entry and _origin(entry))
        if other is not None and other != origin:
            raise PluginError(
                f"{origin}: the kind {name!r} of a {self.noun} is also that of {other}. Give one of them another `kind`"
            )
        self._kinds[name] = kind
        self._origins[name] = origin

    def remove(self, origin: str) -> None:
        """Remove the kinds of one place."""
        for name in [name for name, place in self._origins.items() if place == origin]:
            del self._kinds[name], self._origins[name]

    def declared_in(self, module: object) -> list[Kind]:
        """Return the kinds that a module declares itself, without those that it imports."""
        declared: list[Any] = [
            value
            for value in vars(module).values()
            if self.name_of(value) is not None and _module_of(value) in {None, getattr(module, "__name__", None)}
        ]
        return list({id(value): value for value in declared}.values())

    def _find(self) -> None:
        if self._loads_own:
            return
        self._loads_own = True
        for kind in self.load_own():
            self.add(kind, "emofuse")
        self._entries = {}
        for entry in entry_points(group=self.group):
            other = self._origins.get(entry.name) or (
                _origin(self._entries[entry.name]) if entry.name in self._entries else None
            )
            if other is not None and other != _origin(entry):
                raise PluginError(
                    f"{_origin(entry)}: the kind {entry.name!r} of a {self.noun} is also that of {other}. "
                    "Uninstall one of them, or give it another name"
                )
            self._entries[entry.name] = entry

    def _load_entry(self, name: str) -> None:
        entry = (self._entries or {})[name]
        try:
            kind = entry.load()
        except Exception as error:
            raise PluginError(
                f"{_origin(entry)}: kind {name!r} of a {self.noun} cannot be loaded, {type(error).__name__}: {error}"
            ) from error
        if self.name_of(kind) != name:
            raise PluginError(
                f"{_origin(entry)}: its entry point {name!r} in {self.group} is {kind!r}, expected a {self.noun} "
                f"of kind {name!r}"
            )
        self.add(kind, _origin(entry))


def _origin(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist else f"entry point {entry.value}"


def _module_of(value: object) -> str | None:
    """Return the module that defines a class; None for other objects, which do not record it."""
    return value.__module__ if inspect.isclass(value) else None
