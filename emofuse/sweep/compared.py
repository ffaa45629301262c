"""The comparisons that a sweep is asked for by `compare`, beside those with the baseline.

A configuration is named by some or all of its settings, as they stand in its name: `lbp+resnet50`, or `lbp+resnet50,
depth=2`. Several configurations may have them, of which the best by validation score is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from emofuse.errors import SpecError, did_you_mean
from emofuse.specs import Range, SweepSpec
from emofuse.sweep.configurations import Space, StreamType
from emofuse.sweep.final_runs import FinalConfiguration, FinalRuns


class ComparedPairs(NamedTuple):
    """The names of configurations to compare, and one sentence on each comparison that cannot be made."""

    pairs: list[tuple[str, str]]
    notes: list[str]


def check_compared(spec: SweepSpec, types: Mapping[str, StreamType]) -> None:
    """Check, before hours of search, that `compare` names settings which the sweep tries.

    Args:
        spec: the sweep.
        types: the type of every stream of the cache, in the cache's order.

    Raises:
        SpecError: a setting is none of the sweep's.
    """
    space = Space.of(spec, types)
    texts = space.setting_texts()
    known = {setting for text in texts for setting in _settings(text)}
    drawn = tuple(f"{name}=" for name, values in space.values.items() if isinstance(values, Range))
    problems = [
        f"compare[{index}]: no configuration has {setting!r}{did_you_mean(setting, texts)}"
        for index, pair in enumerate(spec.compare)
        for name in pair
        for setting in sorted(_settings(name) - known)
        if not setting.startswith(drawn)
    ]
    if problems:
        raise SpecError(f"sweep {spec.name!r}", list(dict.fromkeys(problems)))


def find_compared(spec: SweepSpec, finals: FinalRuns) -> ComparedPairs:
    """Return the final configurations that `compare` means. They were chosen on validation rows."""
    compared = ComparedPairs([], [])
    for pair in spec.compare:
        first, second = (_find(name, finals) for name in pair)
        absent = [repr(name) for name, item in zip(pair, (first, second), strict=True) if item is None]
        if first is None or second is None:
            reason = f"no final run is of {' and '.join(absent)}"
        elif first is second:
            reason = f"both mean {first.name}"
        else:
            compared.pairs.append((first.name, second.name))
            continue
        compared.notes.append(f"{pair[0]!r} and {pair[1]!r} are not compared, because {reason}.")
    return compared


def _find(name: str, finals: FinalRuns) -> FinalConfiguration | None:
    """Return the best ranked configuration with scored final runs that has all settings of a name."""
    wanted = _settings(name)
    return next((item for item in finals.items if item.records and wanted <= _settings(item.name)), None)


def _settings(name: str) -> set[str]:
    """Return the settings of a name; streams stand in alphabetical order, because users may write them in any."""
    return {"+".join(sorted(setting.split("+"))) for setting in name.split(", ")}
