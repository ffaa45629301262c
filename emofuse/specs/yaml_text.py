"""Plain data parsed from YAML text. A repeated key is a fault: YAML's own readers keep the last one silently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml


class YamlFaults(Exception):  # noqa: N818 - it holds several faults; the caller adds the name of the file
    """The faults of a text, each with its place."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(" | ".join(problems))


def parse_yaml(text: str) -> Any:
    """Return the data of one YAML document.

    Raises:
        YamlFaults: the text is not YAML, or mappings repeat a key; all of them are listed with both lines.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        problems = list(_repeated_keys(loader, node, "", set()))
        if problems:
            raise YamlFaults(problems)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise YamlFaults([f"not valid YAML: {_describe(error)}"]) from None
    except RecursionError:
        raise YamlFaults(["not valid YAML: nested too deeply"]) from None
    finally:
        loader.dispose()


def _describe(error: yaml.YAMLError) -> str:
    """Return what is wrong in a text that is no YAML, in one line with its line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None or error.problem_mark is None:
        return str(error).replace("\n", " ")
    place = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    if "'\\t'" in error.problem:
        return f"a tab ({place}): indent with spaces"
    begun = f", {error.context} from line {error.context_mark.line + 1}" if error.context and error.context_mark else ""
    return f"{error.problem} ({place}{begun})"


def _repeated_keys(loader: yaml.SafeLoader, node: yaml.Node, place: str, seen: set[int]) -> Iterator[str]:
    """Yield every repeated key of a mapping, in the order of the text. A part with an anchor is visited once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(loader, item, f"{place}[{index}]", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first_lines: dict[tuple[type, Any], int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = f"{place}.{key.value}" if place else str(key.value)
        if isinstance(key, yaml.ScalarNode):
            identity = _identity(loader, key)
            if identity in first_lines:
                yield f"{name} is given twice (lines {first_lines[identity]} and {line}): leave one of them out"
            first_lines.setdefault(identity, line)
        yield from _repeated_keys(loader, value, name, seen)


def _identity(loader: yaml.SafeLoader, key: yaml.ScalarNode) -> tuple[type, Any]:
    """Return what makes two keys equal: `a` and `"a"` are, `1` and `"1"` are not."""
    if key.tag == "tag:yaml.org,2002:merge":
        return yaml.MappingNode, key.value
    constructed = loader.construct_object(key)
    return type(constructed), constructed
