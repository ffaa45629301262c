"""The reference of the YAML of specs: every key with its type, default, limits and meaning, from the models."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

MODULES = (
    "emofuse.specs.pipelines",
    "emofuse.specs.runs",
    "emofuse.specs.train",
    "emofuse.specs.head_kinds",
    "emofuse.specs.targets",
    "emofuse.specs.sweeps",
    "emofuse.specs.reports",
    "emofuse.specs.factors",
    "emofuse.specs.caches",
    "emofuse.specs.audio",
    "emofuse.specs.weights",
    "emofuse.specs.datasets",
    "emofuse.specs.label_maps",
)
_WORDS = {
    "str": "text",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "HeadSpecBase": "a head",
    "DatasetSpecBase": "a dataset",
    "StreamSpecBase": "a stream",
}
_PLURALS = {"text": "texts", "whole number": "whole numbers", "number": "numbers"}
_FAMILIES = {"Streams": "emofuse.specs.streams:STREAMS", "Datasets": "emofuse.specs.datasets:DATASETS"}


def spec_tables() -> str:
    """Return all specs in Markdown, by the module that they are of, then the kinds of streams and datasets."""
    parts = []
    for name in MODULES:
        module = import_module(name)
        models = [each for each in vars(module).values() if _is_spec(each) and each.__module__ == name]
        parts.append(f"## {name.rpartition('.')[2].replace('_', ' ').capitalize()}\n")
        parts += [line for model in models for line in _describe(model)]
    for title, place in _FAMILIES.items():
        registry = getattr(import_module(place.partition(":")[0]), place.partition(":")[2])
        parts.append(f"## {title}\n")
        parts += [line for kind in registry.names() for line in _describe(registry.find(kind))]
    return "\n".join(parts)


def _is_spec(candidate: Any) -> bool:
    return inspect.isclass(candidate) and issubclass(candidate, BaseModel) and bool(candidate.model_fields)


def _describe(model: type[BaseModel]) -> Iterator[str]:
    kind = model.model_fields.get("kind")
    named = f" `kind: {kind.default}`" if kind is not None and isinstance(kind.default, str) else ""
    yield f"### {model.__name__}{named}\n"
    about, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("\n\nAttributes:\n")
    said = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", attributes, re.MULTILINE))
    yield about + "\n"
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        limits = ", ".join(_limit(each) for each in field.metadata if _limit(each))
        text = field.description or said.get(name, "")
        default = "required" if field.is_required() else f"`{_value(field)}`"
        if name == "name" and kind is not None and field.is_required():
            default = "the kind, or the model"
        yield f"| `{name}` | {_cell(_type(field.annotation))} {limits} | {_cell(default)} | {_cell(text)} |"
    yield ""


def _value(field: Any) -> str:
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    if isinstance(value, BaseModel):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        return str(changed or "its defaults")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value) or "''"


def _limit(metadata: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "at least", "max_length": "at most"}
    return ", ".join(
        f"{sign} {getattr(metadata, name)}" for name, sign in signs.items() if getattr(metadata, name, None) is not None
    )


def _type(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "null"
    origin = get_origin(annotation)
    if origin is Literal:
        return " \\| ".join(f"`{each}`" for each in get_args(annotation))
    if origin is not None:
        inner = [_type(each) for each in get_args(annotation) if each is not Ellipsis]
        if str(origin) in {"typing.Union", "<class 'types.UnionType'>"}:
            return " or ".join(dict.fromkeys(inner))
        name = {"tuple": "list", "dict": "mapping"}.get(getattr(origin, "__name__", ""), "")
        if name:
            return f"{name} of {', '.join(dict.fromkeys(_PLURALS.get(each, each) for each in inner))}"
        return inner[0] if inner else "any"
    name = getattr(annotation, "__name__", "any")
    return _WORDS.get(name, name)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace("[[", "\\[[")
