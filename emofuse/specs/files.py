"""Specs read from YAML files, by path or by the name of a file that comes with emofuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from emofuse.errors import PluginError, SpecError, did_you_mean
from emofuse.specs.base import Spec
from emofuse.specs.caches import CacheSpec
from emofuse.specs.faults import describe_faults
from emofuse.specs.label_maps import LabelMapSpec
from emofuse.specs.pipelines import PipelineSpec
from emofuse.specs.plugins import load_plugins
from emofuse.specs.sweeps import SweepSpec
from emofuse.specs.yaml_text import YamlFaults, parse_yaml

SpecT = TypeVar("SpecT", bound=Spec)
Bundle = Literal["cache_specs", "label_maps", "pipelines", "sweeps"]

_NOUNS: dict[Bundle, str] = {
    "cache_specs": "cache spec",
    "label_maps": "label map",
    "pipelines": "pipeline",
    "sweeps": "sweep",
}


def parse_spec(model: type[SpecT], data: Any, where: str) -> SpecT:
    """Validate plain data and return the spec.

    Raises:
        SpecError: the data has faults; the message lists each with its place in the data.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise SpecError(where, describe_faults(error, data, model)) from None


def read_cache_spec(name_or_path: str | Path) -> CacheSpec:
    """Read a cache spec by the name of a file in `cache_specs/` or by path.

    Raises:
        SpecError: the file is missing, is not YAML, or has faults.
    """
    path = _find_yaml("cache_specs", name_or_path)
    data = {"name": path.stem, **_absolute_paths(read_yaml(path), path.absolute().parent)}
    _load_plugins(data, path)
    return parse_spec(CacheSpec, data, str(path))


def read_label_map(name_or_path: str | Path) -> LabelMapSpec:
    """Read a label map by the name of a file in `label_maps/` or by path.

    Raises:
        SpecError: the file is missing, is not YAML, or has faults.
    """
    path = _find_yaml("label_maps", name_or_path)
    return parse_spec(LabelMapSpec, {"name": path.stem, **read_yaml(path)}, str(path))


def is_cache_spec(path: str | Path) -> bool:
    """Return whether a YAML file is a cache spec and not a pipeline or sweep: it lists `streams` itself.

    Raises:
        SpecError: the file is not YAML.
    """
    return "streams" in read_yaml(Path(path))


def read_pipeline_spec(name_or_path: str | Path) -> PipelineSpec:
    """Read a pipeline by the name of a file in `pipelines/` or by path, and the cache spec that it names.

    The `defaults` of the file (features, head, train, split) are merged into every run, whose own values win; a head or
    split of another kind takes none of them. `runs` may be the name or path of another pipeline: then its runs are
    taken, with the defaults of this file.

    Raises:
        SpecError: the file is missing, is not YAML, is a sweep, or has faults.
    """
    path = _find_yaml("pipelines", name_or_path)
    data = {"name": path.stem, **_absolute_paths(read_yaml(path), path.absolute().parent)}
    if _is_sweep(data):
        raise SpecError(str(path), [f"this is a sweep (it has `factors`), start it by: emofuse sweep {name_or_path}"])
    _load_plugins(data, path)
    if isinstance(data.get("cache"), dict):
        _load_plugins(data["cache"], path)
    defaults = data.pop("defaults", {})
    if isinstance(data.get("runs"), str):
        with _named_by("runs", path):
            data["runs"] = _runs_of_pipeline(data["runs"], path.parent)
    if isinstance(data.get("runs"), list) and isinstance(defaults, dict):
        data["runs"] = [_merge(defaults, run) for run in data["runs"]]
    if isinstance(data.get("cache"), str):
        beside = path.parent / data["cache"]
        with _named_by("cache", path):
            data["cache"] = read_cache_spec(beside if beside.is_file() else data["cache"])
    return parse_spec(PipelineSpec, data, str(path))


def read_sweep_spec(name_or_path: str | Path) -> SweepSpec:
    """Read a sweep by the name of a file in `pipelines/` or by path. A file with `factors` is a sweep.

    Its `pipeline` is the name of a bundled one or a path; a path relative to the file becomes one that can be opened.

    Raises:
        SpecError: the file is missing, is not YAML, is a pipeline, or has faults.
    """
    path = _find_yaml("sweeps", name_or_path)
    data = {"name": path.stem, **_absolute_paths(read_yaml(path), path.absolute().parent)}
    if not _is_sweep(data):
        if "runs" in data:
            problem = f"this is a pipeline (it has `runs`), start it by: emofuse run {name_or_path}"
        else:
            problem = "factors: is missing; a sweep names what varies, for example `factors: {streams: all}`"
        raise SpecError(str(path), [problem])
    _load_plugins(data, path)
    problems = []
    if isinstance(data.get("pipeline"), str):
        beside = path.parent / data["pipeline"]
        data["pipeline"] = str(beside) if beside.is_file() else data["pipeline"]
        try:
            pipeline_path = _find_yaml("pipelines", data["pipeline"])
            pipeline = read_yaml(pipeline_path)
            _load_plugins(pipeline, pipeline_path)  # the variants of its streams are factors
            if _is_sweep(pipeline):
                problems.append(
                    f"pipeline: {data['pipeline']} is a sweep itself, name the pipeline that makes the cache"
                )
        except SpecError as error:
            problems += [f"pipeline: {data['pipeline']!r}: {problem}" for problem in error.problems]
    try:
        spec = parse_spec(SweepSpec, data, str(path))
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(str(path), problems)
    return spec


@contextmanager
def _named_by(key: str, path: Path) -> Iterator[None]:
    """Name the file and the key that another file is named by, where that one cannot be read."""
    try:
        yield
    except SpecError as error:
        raise SpecError(str(path), [f"{key}: {error.where!r}: {problem}" for problem in error.problems]) from None


def _runs_of_pipeline(name_or_path: str, folder: Path) -> Any:
    """Return the runs of a pipeline as they are written, without its defaults; a path may be relative to `folder`."""
    beside = folder / name_or_path
    path = _find_yaml("pipelines", beside if beside.is_file() else name_or_path)
    data = _absolute_paths(read_yaml(path), path.absolute().parent)
    _load_plugins(data, path)
    return data.get("runs")


def bundled_specs(bundle: Bundle) -> list[str]:
    """Return the names of the YAML files that come with emofuse. `pipelines/` holds both pipelines and sweeps."""
    paths = sorted(_bundled_dir(bundle).glob("*.yaml"))
    if bundle in {"cache_specs", "label_maps"}:
        return [path.stem for path in paths]
    return [path.stem for path in paths if _is_sweep(read_yaml(path)) == (bundle == "sweeps")]


def _bundled_dir(bundle: Bundle) -> Path:
    """Return the folder of a bundle's YAML files, in the installed wheel or at the root of a checkout."""
    folder = "pipelines" if bundle == "sweeps" else bundle
    installed = Path(str(resources.files("emofuse"))) / folder
    return installed if installed.is_dir() else installed.parent.parent / folder


def _is_sweep(data: Mapping[str, Any]) -> bool:
    """Return whether the data of a file in `pipelines/` is a sweep and not a pipeline."""
    return "factors" in data


def _find_yaml(bundle: Bundle, name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = _bundled_dir(bundle) / f"{path}.yaml"
    if path.suffix == "" and bundled.is_file():
        return bundled
    names = bundled_specs(bundle)
    if path.is_dir():
        hint = f": emofuse run PIPELINE --data {path}" if bundle == "pipelines" else ""
        raise SpecError(
            str(name_or_path),
            [f"a folder, where a {_NOUNS[bundle]} is expected (a YAML file, or one of {', '.join(names)}){hint}"],
        )
    there_are = f"{did_you_mean(str(path), names)} (there are: {', '.join(names)})"
    raise SpecError(str(name_or_path), [f"no such file, and no {_NOUNS[bundle]} of this name{there_are}"])


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        SpecError: the file is not YAML, not text, or holds something else.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except YamlFaults as error:
        raise SpecError(str(path), error.problems) from None
    except UnicodeDecodeError:
        raise SpecError(str(path), ["not a text file in UTF-8"]) from None
    if data is None:
        raise SpecError(str(path), ["the file is empty"])
    if not isinstance(data, dict):
        found = "a list" if isinstance(data, list) else repr(data)
        raise SpecError(str(path), [f"must be a mapping of keys to values, got {found}"])
    return data


def _absolute_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the data of a file in which `dataset.root` and `weights.path` are relative to the file's folder."""

    def absolute(key: str, value: Any, parent: str) -> Any:
        if isinstance(value, dict):
            return {name: absolute(name, each, key) for name, each in value.items()}
        if isinstance(value, list):
            return [absolute(key, each, parent) for each in value]
        is_path = (parent, key) in {("dataset", "root"), ("weights", "path")} and isinstance(value, str) and value
        return str(folder / value) if is_path and not value.startswith("~") and "://" not in value else value

    return {key: absolute(key, value, "") for key, value in data.items()}


def _load_plugins(data: dict[str, Any], path: Path) -> None:
    """Remove `plugins` from a file's data and run these Python files, whose paths are relative to the file.

    Raises:
        SpecError: `plugins` is not a list of paths, or a Python file is missing or faulty.
    """
    names = data.pop("plugins", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SpecError(str(path), [f"plugins: expected a list of Python files, got {names!r}"])
    try:
        load_plugins(path.absolute().parent / name for name in names)
    except PluginError as error:
        raise SpecError(str(path), [f"plugins: {error}"]) from error


def _merge(under: Mapping[str, Any], over: Any) -> Any:
    """Return `over` with what only `under` has; another kind takes nothing, since it has other options."""
    if not isinstance(over, Mapping):
        return over
    kinds = {kind for kind in (under.get("kind"), over.get("kind")) if kind is not None}
    if len(kinds) > 1:
        return over
    merged = dict(under)
    for key, value in over.items():
        both_maps = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_maps else value
    return merged
