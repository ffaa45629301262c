"""Plugin files: Python files beside a pipeline that declare kinds of streams, heads, datasets or metrics.

Loading a file runs its code. A file is loaded only if the user names it (in a pipeline or cache spec, or with
`--plugin`), if they have named a file of the same SHA-256 before (see `is_trusted`), or in the workers of a build or
search that they started. The cache or run of another person never runs code by itself.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field

from emofuse.errors import PluginError
from emofuse.machine.home import user_folder
from emofuse.registry import FAMILIES, Family
from emofuse.specs.base import PLUGIN_ATTRIBUTE, Spec
from emofuse.stores import replace_file

RECORD = "plugin"
"""The key under which a recorded spec names the plugin file of its kind."""


class PluginFile(Spec):
    """A plugin file as runs and caches record it: its path, and its hash at the time of loading."""

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def load_plugins(paths: Iterable[Path]) -> tuple[PluginFile, ...]:
    """Run the plugin files that the user names, and remember that they named them.

    Raises:
        PluginError: a file is missing or faulty, or declares a kind that exists already; the first such file.
    """
    loaded = []
    for path in paths:
        plugin = load_plugin(path)
        _remember(plugin)
        loaded.append(plugin)
    return tuple(loaded)


def load_plugin(path: Path, *, sha256: str | None = None) -> PluginFile:
    """Run a plugin file, once for each content, and register its kinds.

    Args:
        path: the path of the file.
        sha256: the recorded hash, which the file must have.

    Raises:
        PluginError: the file is missing, has changed, raises, declares no kind, or declares a kind that exists already.
    """
    path = path.absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PluginError(f"plugin {path}: cannot be read ({error.strerror or error})") from None
    plugin = PluginFile(path=path, sha256=hashlib.sha256(source).hexdigest())
    if sha256 is not None and plugin.sha256 != sha256:
        raise PluginError(
            f"plugin {path}: its content has changed, SHA-256 is {plugin.sha256[:12]} and {sha256[:12]} was recorded. "
            "Restore the file as it was, or run the pipeline again with the new one"
        )
    if _module_name(plugin) not in sys.modules:
        _run(plugin, source)
    return plugin


def load_recorded(record: Mapping[str, Any]) -> None:
    """Run a plugin file that a cache or run records, if the user has named this content before.

    The file is searched at its recorded path, and then at the last paths where the user named it.

    Raises:
        PluginError: the user never named it, or it is missing or has changed.
    """
    try:
        plugin = PluginFile.model_validate(record)
    except ValueError:
        raise PluginError(f"not a record of a plugin file (path, sha256): {record!r}") from None
    if _module_name(plugin) in sys.modules:
        return
    known = _remembered().get(plugin.sha256, [])
    if not known:
        raise PluginError(
            f"plugin {plugin.path}: a cache or a run names this file, and you have never run this content (SHA-256 "
            f"{plugin.sha256[:12]}). Read the file: its code would run here. If you trust it, name it: --plugin FILE"
        )
    places = [path for path in (plugin.path, *map(Path, known)) if path.is_file()]
    unchanged = [path for path in places if hashlib.sha256(path.read_bytes()).hexdigest() == plugin.sha256]
    where = (unchanged or places or [plugin.path])[0]
    load_plugin(where, sha256=plugin.sha256)


def load_sent(path: str, sha256: str) -> ModuleType:
    """Return the module of a plugin file, for a worker that receives one of its specs from the user's process.

    Raises:
        PluginError: the worker does not find the file at this path, or the file has changed.
    """
    plugin = PluginFile(path=Path(path), sha256=sha256)
    if _module_name(plugin) not in sys.modules:
        load_plugin(plugin.path, sha256=sha256)
    return sys.modules[_module_name(plugin)]


def loaded_plugins() -> tuple[PluginFile, ...]:
    """Return every plugin file that this process has run, in the order of their paths, for workers that need them."""
    plugins = [getattr(module, PLUGIN_ATTRIBUTE, None) for module in list(sys.modules.values())]
    return tuple(sorted((each for each in plugins if isinstance(each, PluginFile)), key=lambda each: str(each.path)))


def plugins_with(family: Family[Any]) -> tuple[PluginFile, ...]:
    """Return the loaded plugin files that declare a kind of this family, in the order of their paths."""
    return tuple(plugin for plugin in loaded_plugins() if family.declared_in(sys.modules[_module_name(plugin)]))


def plugin_of(declared: type | ModuleType) -> PluginFile | None:
    """Return the plugin file that declares a class; None for classes of emofuse and of installed packages."""
    module = declared if isinstance(declared, ModuleType) else sys.modules.get(declared.__module__)
    plugin: PluginFile | None = getattr(module, PLUGIN_ATTRIBUTE, None)
    return plugin


def recorded(spec: Spec) -> dict[str, Any]:
    """Return a spec as plain JSON with the plugin file of its kind, as caches and runs record it."""
    plain = spec.model_dump(mode="json")
    plugin = plugin_of(type(spec))
    return plain if plugin is None else {**plain, RECORD: plugin.model_dump(mode="json")}


def is_trusted(sha256: str) -> bool:
    """Return whether the user has named a plugin file of this content on this machine."""
    return sha256 in _remembered()


def trusted_file() -> Path:
    """Return the file that lists the plugin files the user has named.

    It lies below `EMOFUSE_STATE_DIR`, or in the user's state folder (XDG).

    Raises:
        NoHomeError: neither is set, and the user has no home folder.
    """
    return user_folder("EMOFUSE_STATE_DIR", "XDG_STATE_HOME", ".local/state") / "plugins.json"


def _run(plugin: PluginFile, source: bytes) -> None:
    for package in ("emofuse.specs", "emofuse.metrics"):
        import_module(package)  # they create every family of kinds
    name = _module_name(plugin)
    module = ModuleType(name)
    module.__file__ = str(plugin.path)
    setattr(module, PLUGIN_ATTRIBUTE, plugin)
    sys.modules[name] = module  # pydantic resolves types by it
    origin = f"plugin {plugin.path}"
    try:
        exec(compile(source, str(plugin.path), "exec"), vars(module))  # noqa: S102 - the user names the file
        _add_kinds(module, origin)
    except PluginError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"{origin}{_line_of(error, plugin.path)}: {type(error).__name__}: {error}") from error


def _add_kinds(module: ModuleType, origin: str) -> None:
    kinds = [(family, kind) for family in FAMILIES for kind in family.declared_in(module)]
    if not kinds:
        nouns = ", ".join(family.noun for family in FAMILIES)
        raise PluginError(f"{origin}: it declares no kind ({nouns}); see 'Kinds of your own' in the README")
    for family in FAMILIES:
        family.remove(origin)  # the kinds of a former content of the same file
    for family, kind in kinds:
        family.add(kind, origin)


def _line_of(error: Exception, path: Path) -> str:
    """Return `, line 7` for an error that was raised in the file, else an empty text."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {lines[-1]}" if lines else ""


def _module_name(plugin: PluginFile) -> str:
    return f"emofuse_plugin_{plugin.sha256[:16]}"


def _remembered() -> dict[str, list[str]]:
    """Return SHA-256 -> paths of the plugin files that the user has named, the last one first."""
    try:
        known = json.loads(trusted_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(plugin: PluginFile) -> None:
    known = _remembered()
    paths = known.get(plugin.sha256, [])
    if paths[:1] == [str(plugin.path)]:
        return
    known[plugin.sha256] = [str(plugin.path), *(path for path in paths if path != str(plugin.path))]
    try:
        target = trusted_file()
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, json.dumps(known, indent=1))
    except OSError:
        return  # no home, or a read-only one: the file must be named again with --plugin
