"""The faults that pydantic finds in a spec, in plain words: the place, the value and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from emofuse.errors import did_you_mean
from emofuse.registry import Family
from emofuse.specs.base import Spec

# Joins the faults in the message of a check that finds several.
SEPARATOR = " | "
# Begins the message of a check whose fault is in another key than the checked field; that key follows.
BESIDE = "^"

# The base of the specs of a family -> the family, as `note_family` registers it.
_FAMILIES: dict[type[BaseModel], Family[Any]] = {}

_A_NUMBER = "expected a number, got {found!r}"
_A_WHOLE_NUMBER = "expected a whole number, got {found!r}"
_A_MAPPING = "expected a mapping of keys to values, got {found!r}"
_ARE_NO_MAPPING = frozenset({"dict_type", "model_type", "model_attributes_type"})
_TEXTS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "union_tag_not_found": "is missing",
    "greater_than_equal": "must be >= {ge}, got {found!r}",
    "greater_than": "must be > {gt}, got {found!r}",
    "less_than_equal": "must be <= {le}, got {found!r}",
    "less_than": "must be < {lt}, got {found!r}",
    "literal_error": "must be {expected}, got {found!r}",
    "int_type": _A_WHOLE_NUMBER,
    "int_parsing": _A_WHOLE_NUMBER,
    "int_from_float": _A_WHOLE_NUMBER,
    "float_type": _A_NUMBER,
    "float_parsing": _A_NUMBER,
    "tuple_type": "expected a list, got {found!r}",
    "too_short": "needs at least {min_length}, got {found!r}",
    "string_too_short": "must not be empty, got {found!r}",
    **dict.fromkeys(_ARE_NO_MAPPING, _A_MAPPING),
}


def note_family(base: type[BaseModel], family: Family[Any]) -> None:
    """Register that a field of this type accepts the specs of all kinds of a family."""
    _FAMILIES[base] = family


def describe_faults(error: ValidationError, data: Any, model: type[BaseModel]) -> list[str]:
    """Describe every fault of plain data, each with its place in the data.

    Args:
        error: the error of the validation.
        data: the data that was validated.
        model: the model that refused the data. The nearest of its keys is named beside an unknown key.
    """
    faults = error.errors()
    # Pydantic also reports a tuple of faulty items as too short: keep the faults of the items alone.
    faults = [
        fault
        for fault in faults
        if fault["type"] != "too_short" or len(fault["input"]) < dict(fault["ctx"])["min_length"]
    ]
    return [problem for fault in faults for problem in _describe(dict(fault), data, model)]


def _describe(fault: dict[str, Any], data: Any, model: type[BaseModel]) -> list[str]:
    place = _place(fault["loc"], data, ends_with_key=fault["type"] in {"extra_forbidden", "missing"})
    if fault["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        place = f"{place}.kind" if place else "kind"
    texts = str(fault["ctx"]["error"]).split(SEPARATOR) if fault["type"] == "value_error" else [_text(fault)]
    if fault["type"] == "extra_forbidden":
        *parents, key = fault["loc"]
        texts = [texts[0] + did_you_mean(str(key), _keys_at(model, parents, data))]
    if fault["type"] in _ARE_NO_MAPPING and (kinds := _kinds_at(model, fault["loc"], data)):
        texts = [_a_kind_needed(kinds, fault["input"])]
    if fault["type"] == "string_pattern_mismatch" and (form := _form_at(model, fault["loc"], data)):
        texts = [f"expected {form}, got {fault['input']!r}"]
    parent = _place(fault["loc"][:-1], data, ends_with_key=False)
    return [_at(parent if text.startswith(BESIDE) else place, text) for text in texts]


def _at(place: str, text: str) -> str:
    """Join a fault and its place. A text that begins with `BESIDE` names the last part of the place itself."""
    if text.startswith(BESIDE):
        return f"{place}.{text.removeprefix(BESIDE)}" if place else text.removeprefix(BESIDE)
    return f"{place}: {text}" if place else text


def _place(parts: Sequence[int | str], data: Any, *, ends_with_key: bool) -> str:
    """Return the path into the data, `streams[1].weights.name`, without the kinds that pydantic's path contains."""
    place, here, tagged = "", data, False
    for position, part in enumerate(parts):
        if isinstance(part, int):
            place += f"[{part}]"
            # A single value that stands for a list of one has no items in the data.
            here = here[part] if isinstance(here, list | tuple) and part < len(here) else here
            tagged = False
        elif not tagged and not (ends_with_key and position == len(parts) - 1) and _is_tag(part, here):
            tagged = True
        else:
            place += f".{part}" if place else part
            here = here.get(part) if isinstance(here, Mapping) else None
            tagged = False
    return place


def _keys_at(model: type[BaseModel], parts: Sequence[int | str], data: Any) -> set[str]:
    """Return the keys that a place in the data may have; where a kind is chosen, the keys of this kind."""
    return {key for spec in _specs_at(model, parts, data) for key in _written_keys(spec)}


def _kinds_at(model: type[BaseModel], parts: Sequence[int | str], data: Any) -> list[str]:
    """Return the kinds of the mapping that is expected at a place in the data; nothing where it has none."""
    specs = _specs_at(model, parts, data)
    of_families = {name for spec in specs if spec in _FAMILIES for name in _FAMILIES[spec].names()}
    given = {str(spec.model_fields["kind"].default) for spec in specs if "kind" in spec.model_fields}
    return sorted(of_families or given)


def _form_at(model: type[BaseModel], parts: Sequence[int | str], data: Any) -> str:
    """Return the description of a field with a pattern, for people; an empty text without one."""
    *parents, key = parts
    fields = [spec.model_fields[str(key)] for spec in _specs_at(model, parents, data) if key in spec.model_fields]
    return next((field.description for field in fields if field.description), "")


def _a_kind_needed(kinds: Sequence[str], found: Any) -> str:
    """Return what is expected where a spec with a kind is, and not this value."""
    if isinstance(found, str) and found in kinds:
        return f"expected a mapping, write {{kind: {found}}}"
    return f"expected a mapping with a kind ({', '.join(kinds)}), got {found!r}"


def _specs_at(model: type[BaseModel], parts: Sequence[int | str], data: Any) -> set[type[BaseModel]]:
    """Return the specs that a place in the data may hold; where a kind is chosen, the spec of this kind."""
    here = {model}
    for part in parts:
        fields = [spec.model_fields[part] for spec in here if isinstance(part, str) and part in spec.model_fields]
        if isinstance(part, int):
            data = data[part] if isinstance(data, list | tuple) and part < len(data) else None
        elif isinstance(data, Mapping):
            data = data.get(part, data)
        if fields:
            here = {spec for field in fields for spec in _models_in(field.annotation)}
        else:
            here = {
                spec for spec in here if "kind" in spec.model_fields and spec.model_fields["kind"].default == part
            } or here
        here = {_of_its_kind(spec, data) for spec in here}
    return here


def _written_keys(spec: type[BaseModel]) -> set[str]:
    return spec.written_keys() if issubclass(spec, Spec) else set(spec.model_fields)


def _of_its_kind(spec: type[BaseModel], data: Any) -> type[BaseModel]:
    """Return the spec of the kind that the data names, where a field accepts every kind of a family."""
    family = _FAMILIES.get(spec)
    kind = data.get("kind") if isinstance(data, Mapping) else None
    return (family.find(str(kind)) or spec) if family is not None else spec


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in get_args(annotation) for model in _models_in(part)}


def _is_tag(part: str, here: Any) -> bool:
    """Return whether a part of pydantic's path is the kind of the data at this place, and not a key of it."""
    if isinstance(here, Mapping):
        return part == here.get("kind") or ("kind" not in here and part not in here)
    return part == here or part.startswith("(")


def _text(fault: dict[str, Any]) -> str:
    context = fault.get("ctx", {})
    if fault["type"] == "union_tag_invalid":
        return _unknown_kind(str(context["tag"]), str(context["expected_tags"]))
    if fault["type"] == "literal_error":
        context = {"expected": context["expected"].replace("'", "")}
    template = _TEXTS.get(fault["type"], "{msg}, got {found!r}")
    return template.format(**context, msg=fault["msg"], found=fault["input"])


def _unknown_kind(found: str, expected_tags: str) -> str:
    expected = [tag.strip().strip("'") for tag in expected_tags.split(",")]
    choices = f", expected one of {', '.join(expected)}"
    if found == "None":
        return f"is missing{choices}"
    return f"{found!r} is unknown{did_you_mean(found, expected) or choices}"
