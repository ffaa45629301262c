"""Plugin files: Python files beside a pipeline that declare kinds of streams, heads, datasets or metrics.

Loading one runs its code. That happens only for a file that the user names (in a pipeline or cache spec that they run,
or with `--plugin`), for one whose very content they have named before (by its SHA-256, see `is_trusted`), and in the
workers of a build or search that they started. A cache or run of somebody else never makes code run by itself.
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
from emofuse.home import user_folder
from emofuse.registry import FAMILIES, Family
from emofuse.specs.base import PLUGIN_ATTRIBUTE, Spec
from emofuse.stores import replace_file

RECORD = "plugin"
"""Key under which the record of a spec names the file that its kind is from."""


class PluginFile(Spec):
    """A plugin file as it was when it was loaded: what runs and caches record of it."""

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def load_plugins(paths: Iterable[Path]) -> tuple[PluginFile, ...]:
    """Runs the plugin files that the user names, and remembers that they did.

    Raises:
        PluginError: the first one that is missing or faulty, or has a kind that is there already.
    """
    loaded = []
    for path in paths:
        plugin = load_plugin(path)
        _remember(plugin)
        loaded.append(plugin)
    return tuple(loaded)


def load_plugin(path: Path, *, sha256: str | None = None) -> PluginFile:
    """Runs a plugin file, once for each content, and makes its kinds known.

    Args:
        path: of the file.
        sha256: what it must be, if it was recorded.

    Raises:
        PluginError: it is missing, has changed, raises, declares nothing, or has a kind that is there already.
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
    """Runs a plugin file that a cache or run names, if the user has named this content before.

    It is looked for where the record says, and then where the user last had it.

    Raises:
        PluginError: the user never named it, it is not there any more, or it has changed.
    """
    try:
        plugin = PluginFile.model_validate(record)
    except ValueError:
        raise PluginError(f"no record of a plugin file: {record!r}") from None
    if _module_name(plugin) in sys.modules:
        return
    known = _remembered().get(plugin.sha256, [])
    if not known:
        raise PluginError(
            f"plugin {plugin.path}: it is named by a cache or a run, and you have never run this content (SHA-256 "
            f"{plugin.sha256[:12]}). Read the file: its code would run here. If you trust it, name it: --plugin FILE"
        )
    places = [path for path in (plugin.path, *map(Path, known)) if path.is_file()]
    unchanged = [path for path in places if hashlib.sha256(path.read_bytes()).hexdigest() == plugin.sha256]
    where = (unchanged or places or [plugin.path])[0]
    load_plugin(where, sha256=plugin.sha256)


def load_sent(path: str, sha256: str) -> ModuleType:
    """The module of a plugin file, for a worker that was sent a spec of it by a process of the user's.

    Raises:
        PluginError: the worker does not find the file there, or it has changed.
    """
    plugin = PluginFile(path=Path(path), sha256=sha256)
    if _module_name(plugin) not in sys.modules:
        load_plugin(plugin.path, sha256=sha256)
    return sys.modules[_module_name(plugin)]


def loaded_plugins() -> tuple[PluginFile, ...]:
    """Every plugin file that this process has run, in the order of their paths: for workers that need the same."""
    plugins = [getattr(module, PLUGIN_ATTRIBUTE, None) for module in list(sys.modules.values())]
    return tuple(sorted((each for each in plugins if isinstance(each, PluginFile)), key=lambda each: str(each.path)))


def plugins_with(family: Family[Any]) -> tuple[PluginFile, ...]:
    """Return the loaded plugin files that declare a kind of this family, in the order of their paths."""
    return tuple(plugin for plugin in loaded_plugins() if family.declared_in(sys.modules[_module_name(plugin)]))


def plugin_of(declared: type | ModuleType) -> PluginFile | None:
    """The plugin file that a class was declared in; None for those of emofuse and of installed packages."""
    module = declared if isinstance(declared, ModuleType) else sys.modules.get(declared.__module__)
    plugin: PluginFile | None = getattr(module, PLUGIN_ATTRIBUTE, None)
    return plugin


def recorded(spec: Spec) -> dict[str, Any]:
    """A spec as plain JSON, with the plugin file that its kind is from: what is kept in caches and runs."""
    plain = spec.model_dump(mode="json")
    plugin = plugin_of(type(spec))
    return plain if plugin is None else {**plain, RECORD: plugin.model_dump(mode="json")}


def is_trusted(sha256: str) -> bool:
    """Whether the user has named a plugin file of this content on this machine."""
    return sha256 in _remembered()


def trusted_file() -> Path:
    """Where it is kept what plugin files the user has named: `EMOFUSE_STATE_DIR`, or the user's state folder (XDG).

    Raises:
        NoHomeError: neither is set, and the user has no home folder.
    """
    return user_folder("EMOFUSE_STATE_DIR", "XDG_STATE_HOME", ".local/state") / "plugins.json"


def _run(plugin: PluginFile, source: bytes) -> None:
    for package in ("emofuse.specs", "emofuse.metrics"):
        import_module(package)  # every family of kinds must be there
    name = _module_name(plugin)
    module = ModuleType(name)
    module.__file__ = str(plugin.path)
    setattr(module, PLUGIN_ATTRIBUTE, plugin)
    sys.modules[name] = module  # pydantic looks types up there
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
        raise PluginError(f"{origin}: it declares no kind of any sort ({nouns}); see 'Kinds of your own' in the README")
    for family in FAMILIES:
        family.remove(origin)  # those of a former content of the same file
    for family, kind in kinds:
        family.add(kind, origin)


def _line_of(error: Exception, path: Path) -> str:
    """`, line 7`: where in the file an error came from, as far as it did."""
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
    """SHA-256 -> paths of the plugin files that the user has named, the last one first."""
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
        return  # no home, or one that may only be read: such a file must be named again with --plugin
