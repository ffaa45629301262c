"""YAML files to specs, and every fault of one in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from emofuse.errors import SpecError, did_you_mean
from emofuse.specs.base import Spec
from emofuse.specs.caches import CacheSpec
from emofuse.specs.pipelines import PipelineSpec

SpecT = TypeVar("SpecT", bound=Spec)


def parse_spec(model: type[SpecT], data: Any, where: str) -> SpecT:
    """Validates plain data into a spec.

    Raises:
        SpecError: with every fault of the data, each with its place in it.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors()
        inner = [fault["loc"] for fault in faults if fault["type"] != "too_short"]
        # A tuple whose items are all faulty is also reported as too short: only the items' own faults are news.
        faults = [
            fault
            for fault in faults
            if fault["type"] != "too_short" or all(loc[: len(fault["loc"])] != fault["loc"] for loc in inner)
        ]
        problems = [_describe(dict(fault)) for fault in faults]
        raise SpecError(where, problems) from None


def read_cache_spec(name_or_path: str | Path) -> CacheSpec:
    """A cache spec by the name of a file in `cache_specs/` or by path.

    Raises:
        SpecError: no such file, no YAML, or faults in it.
    """
    path = _find_yaml("cache_specs", name_or_path)
    return parse_spec(CacheSpec, {"name": path.stem, **_load_yaml(path)}, str(path))


def read_pipeline_spec(name_or_path: str | Path) -> PipelineSpec:
    """A pipeline by the name of a file in `pipelines/` or by path; names of cache specs in it are resolved.

    In the file, `defaults` (features, head, train, split) are merged under every run.

    Raises:
        SpecError: no such file, no YAML, or faults in it.
    """
    path = _find_yaml("pipelines", name_or_path)
    data = {"name": path.stem, **_load_yaml(path)}
    defaults = data.pop("defaults", {})
    if isinstance(data.get("runs"), list) and isinstance(defaults, dict):
        data["runs"] = [_merge(defaults, run) for run in data["runs"]]
    if isinstance(data.get("cache"), str):
        beside = path.parent / data["cache"]
        data["cache"] = read_cache_spec(beside if beside.is_file() else data["cache"])
    return parse_spec(PipelineSpec, data, str(path))


def bundled_specs(folder: str) -> list[str]:
    """Names of the YAML files that travel with emofuse in `cache_specs` or `pipelines`."""
    return sorted(path.stem for path in _bundled_dir(folder).glob("*.yaml"))


def _bundled_dir(folder: str) -> Path:
    """`cache_specs/` or `pipelines/`: inside the installed wheel, or at the root of a checkout."""
    installed = Path(str(resources.files("emofuse"))) / folder
    return installed if installed.is_dir() else installed.parent.parent / folder


def _find_yaml(folder: str, name_or_path: str | Path) -> Path:
    given = Path(name_or_path)
    if given.is_file():
        return given
    bundled = _bundled_dir(folder) / f"{given}.yaml"
    if given.suffix == "" and bundled.is_file():
        return bundled
    names = bundled_specs(folder)
    there_are = f"{did_you_mean(str(given), names)} (there are: {', '.join(names)})"
    raise SpecError(
        str(name_or_path),
        [f"no such file, and no {folder.replace('_', ' ').removesuffix('s')} of this name{there_are}"],
    )


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SpecError(str(path), [f"not valid YAML: {str(error).replace(chr(10), ' ')}"]) from None
    except UnicodeDecodeError:
        raise SpecError(str(path), ["not a text file in UTF-8"]) from None
    if not isinstance(data, dict):
        raise SpecError(str(path), [f"must be a mapping of keys to values, got {type(data).__name__}"])
    return data


def _merge(under: Mapping[str, Any], over: Any) -> Any:
    if not isinstance(over, Mapping):
        return over
    merged = dict(under)
    for key, value in over.items():
        both_maps = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_maps else value
    return merged


def _describe(fault: dict[str, Any]) -> str:
    """One pydantic fault in emofuse's words: place, what was found, what is expected."""
    stream_tags = {"lbp", "landmarks", "action_units", "backbone", "places365", "objects", "custom"}
    head_tags = {"concat", "linear", "gated", "late", "attention"}
    place = ""
    parts = list(fault["loc"])
    for index, part in enumerate(parts):
        if isinstance(part, int):
            place += f"[{part}]"
            continue
        before = parts[index - 1] if index else None
        is_tag = (isinstance(before, int) and part in stream_tags) or (before == "head" and part in head_tags)
        if not is_tag:
            place += f".{part}" if place else str(part)
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            text = "unknown key"
        case "missing":
            text = "is missing"
        case "union_tag_invalid":
            place = f"{place}.kind" if place else "kind"
            text = _describe_kind(str(context["tag"]), str(context["expected_tags"]))
        case "union_tag_not_found":
            place, text = (f"{place}.kind" if place else "kind"), "is missing"
        case "greater_than_equal":
            text = f"must be >= {context['ge']}, got {fault['input']!r}"
        case "greater_than":
            text = f"must be > {context['gt']}, got {fault['input']!r}"
        case "less_than":
            text = f"must be < {context['lt']}, got {fault['input']!r}"
        case "value_error":
            text = str(context["error"])
        case _:
            text = f"{fault['msg']}, got {fault['input']!r}"
    return f"{place}: {text}" if place else text


def _describe_kind(found: str, expected_tags: str) -> str:
    expected = [tag.strip().strip("'") for tag in expected_tags.split(",")]
    expected = [tag for tag in expected if tag != "custom"]
    choices = f", expected one of {', '.join(expected)}"
    return (
        f"is missing{choices}" if found == "None" else f"{found!r} is unknown{did_you_mean(found, expected) or choices}"
    )
