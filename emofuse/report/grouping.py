"""Groups saved runs into the configurations of a report, and finds configurations by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emofuse.errors import ResultsError
from emofuse.report.configurations import Repeat, ReportedConfiguration, Results, repeat_of
from emofuse.report.search import SearchSummary
from emofuse.report.targets import reported_target
from emofuse.results import RunRecord
from emofuse.specs import EXACT_HEADS, digest

_DRAWN = ("split.seed", "split.repeat", "split.index")
"""The places in a spec by which the splits of a configuration's repeats differ."""


def group_runs(
    records: Sequence[RunRecord],
    where: str,
    *,
    baseline: str | None = None,
    order: Sequence[str] | None = None,
    search: SearchSummary | None = None,
) -> Results:
    """Group runs into configurations.

    Runs of one name whose specs or cached streams differ in more than seeds become separate configurations, with the
    difference in their labels.

    Args:
        records: the runs.
        where: where the runs come from, for messages.
        baseline: the name or label of the baseline; the first configuration unless given.
        order: names in the order of tables; others follow, the first trained first.
        search: the search whose finalists the runs are.

    Raises:
        ResultsError: there are no runs, several datasets, the same repeat twice, or the baseline is unknown.
    """
    if not records:
        raise ResultsError(f"{where}: no runs in this folder; train first: emofuse run NAME")
    _check_one_target(records, where)
    _check_one_dataset(records, where)
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.created, record.digest)):
        groups.setdefault(digest([record.name, _identity(record)]), []).append(record)
    _check_repeats(groups.values(), where)
    rank = {name: index for index, name in enumerate(order or ())}
    ranked = sorted(groups.values(), key=lambda runs: rank.get(runs[0].name, len(rank)))
    labels = _labels([runs[0] for runs in ranked])
    items = [
        ReportedConfiguration(label, tuple(sorted(runs, key=repeat_of)))
        for label, runs in zip(labels, ranked, strict=True)
    ]
    configurations = tuple(item for item in items if not item.is_reference)
    references = sorted((item for item in items if item.is_reference), key=_place_of_reference)
    if not configurations:
        raise ResultsError(
            f"{where}: only reference models in this folder, and no configuration; train first: emofuse run NAME"
        )
    first = configurations[0] if baseline is None else find_configuration(configurations, baseline, where, "baseline")
    return Results(configurations, first, search, tuple(references))


def _place_of_reference(item: ReportedConfiguration) -> tuple[int, tuple[str, ...], int]:
    """Return the place of a reference model in its table: those of many streams first, each in the same order."""
    kind = item.spec["head"]["kind"]
    return -len(item.streams), item.streams, EXACT_HEADS.index(kind) if kind in EXACT_HEADS else len(EXACT_HEADS)


def _identity(run: RunRecord) -> dict[str, Any]:
    """Return what the repeats of a configuration have in common: dotted place in the spec -> value."""
    if run.spec.get("chosen_by"):  # the options of a nested sweep differ between its outer folds
        split = {key: value for key, value in run.spec["split"].items() if key not in {"seed", "repeat", "index"}}
        return _flatten({"chosen_by": run.spec["chosen_by"], "split": split})
    flat = _flatten({key: value for key, value in run.spec.items() if key != "name"})
    flat.pop("train.seed")
    for key in _DRAWN:
        flat.pop(key, None)
    return flat | {f"digest of {name}": stream["digest"][:8] for name, stream in run.streams.items()}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {prefix + key: item}
    return flat


def _labels(firsts: Sequence[RunRecord]) -> list[str]:
    """Return the name of each configuration; where a name is used twice, also the values that differ."""
    labels = []
    for first in firsts:
        twins = [_identity(other) for other in firsts if other.name == first.name]
        if len(twins) == 1:
            labels.append(first.name)
            continue
        ours = _identity(first)
        keys = dict.fromkeys(key for twin in (ours, *twins) for key in twin)
        differing = [key for key in keys if any(twin.get(key) != ours.get(key) for twin in twins)]
        if 1 <= len(differing) <= 2:
            values = ", ".join(f"{key.rpartition('.')[2]} {_plain(ours.get(key, 'default'))}" for key in differing)
        else:
            values = f"spec {digest(ours)[:8]}"
        labels.append(f"{first.name} ({values})")
    return labels


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def find_configuration(
    configurations: Sequence[ReportedConfiguration], wanted: str, where: str, role: str
) -> ReportedConfiguration:
    """Return the configuration with this label, or the only one with this name.

    Args:
        configurations: all configurations.
        wanted: the label or name.
        where: where the runs come from, for messages.
        role: what the configuration is wanted as, for messages.

    Raises:
        ResultsError: there is none, or there are several of the name.
    """
    same_label = [item for item in configurations if item.label == wanted]
    matches = same_label or [item for item in configurations if item.name == wanted]
    if len(matches) == 1:
        return matches[0]
    labels = ", ".join(repr(item.label) for item in matches or configurations)
    if matches:
        raise ResultsError(f"{where}: the {role} {wanted!r} means several configurations, name one of: {labels}")
    raise ResultsError(f"{where}: no runs of the {role} {wanted!r}, there are: {labels}")


def _check_one_target(records: Sequence[RunRecord], where: str) -> None:
    kinds = Counter(record.target_kind for record in records)
    if len(kinds) > 1:
        counts = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
        raise ResultsError(
            f"{where}: runs of different kinds of targets cannot be in one table: {counts}. Move the runs of each kind "
            "into a separate folder"
        )


def _check_one_dataset(records: Sequence[RunRecord], where: str) -> None:
    datasets = Counter((str(record.dataset.get("name", "unnamed")), tuple(record.classes)) for record in records)
    if len(datasets) > 1:
        parts = reported_target(records[0].target_kind).parts
        counts = ", ".join(f"{count} of {name} ({len(classes)} {parts})" for (name, classes), count in datasets.items())
        raise ResultsError(
            f"{where}: runs of different datasets cannot be in one table: {counts}. Move the runs of each dataset "
            "into a separate folder"
        )


def _check_repeats(groups: Iterable[Sequence[RunRecord]], where: str) -> None:
    """Raise unless every repeat of a configuration is there once; all that are there twice are named together."""
    twins = []
    for runs in groups:
        seen: dict[Repeat, RunRecord] = {}
        for run in runs:
            twin = seen.setdefault(repeat_of(run), run)
            if twin is not run:
                former, later = sorted((twin, run), key=lambda record: record.created)
                twins.append(
                    f"{run.name!r}: {former.digest[:16]} (made {former.created}) "
                    f"and {later.digest[:16]} (made {later.created})"
                )
    if twins:
        raise ResultsError(
            f"{where}: runs have the same spec and seeds but were trained on other labels or splits, or by another "
            f"release of emofuse: {'; '.join(twins)}. Delete the folders of those that no longer hold"
        )
