"""The efficiency of configurations (the paper's table 6): what the runs recorded, and what `emofuse profile` measured.

Runs know the parameters and FLOPs of their heads, the size of the saved weights, and the seconds of training. What
extractors cost, latency and peak memory take a measurement: `emofuse profile PIPELINE --out FOLDER/profile` writes it
beside the runs (`FOLDER/runs`), where this module finds it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emofuse.report.configurations import ReportedConfiguration, Spread
from emofuse.report.formats import UNDEFINED, format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn, streams_text
from emofuse.results import RunRecord, run_dir
from emofuse.specs import EXACT_HEADS

PROFILE_PLACES = ("profile/profile.json", "profile.json")
"""Where a profile is looked for, beside the folder of runs."""
_MIB = 2**20
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Efficiency:
    """The costs of one configuration. None means not known, which is not zero.

    Attributes:
        item: the configuration.
        parameters: the number of trained parameters.
        weights_bytes: the bytes of the saved weights of a run, the mean over the repeats.
        train_s: the seconds of training, the mean over the repeats.
        epoch_s: the seconds of an epoch, the mean over the repeats; None for heads that are solved.
        head_flops: the operations of the heads of a run for one row; None in runs of former versions.
        together: the number of heads that trained at the same time, those of other runs among them, the mean over the
            repeats; None where it is not known.
        profiled: what `emofuse profile` measured, by the name of its column; empty without a profile.
    """

    item: ReportedConfiguration
    parameters: int
    weights_bytes: float | None
    train_s: float
    epoch_s: float | None
    head_flops: float | None
    together: float | None
    profiled: Mapping[str, float | None]


@dataclass(frozen=True)
class _Shown:
    """One column: its name in CSV files, its heading, the value and how it is written."""

    column: str
    title: str
    value: Callable[[Efficiency], float | None]
    text: Callable[[float], str]


def _profiled(name: str) -> Callable[[Efficiency], float | None]:
    return lambda of: of.profiled.get(name)


def _digits(value: float) -> str:
    return format_score(value, None)


_COLUMNS = (
    _Shown("parameters", "Parameters", lambda of: of.parameters, lambda value: f"{value:,.0f}"),
    _Shown("weights_bytes", "Weights (MiB)", lambda of: of.weights_bytes, lambda value: _digits(value / _MIB)),
    _Shown(
        "extractor_parameters",
        "Parameters of extractors",
        _profiled("extractor_parameters"),
        lambda value: f"{value:,.0f}",
    ),
    _Shown("extractor_bytes", "Extractors (MiB)", _profiled("extractor_bytes"), lambda value: _digits(value / _MIB)),
    _Shown(
        "head_flops",
        "Head (MFLOP)",
        lambda of: of.head_flops if of.head_flops is not None else of.profiled.get("head_flops"),
        lambda value: _digits(value / 1e6),
    ),
    _Shown("extractor_flops", "Extractors (GFLOP)", _profiled("extractor_flops"), lambda value: _digits(value / 1e9)),
    _Shown("head_ms_per_image", "Head (ms an image)", _profiled("head_ms_per_image"), _digits),
    _Shown("path_ms_per_image", "Whole path (ms an image)", _profiled("path_ms_per_image"), _digits),
    _Shown("peak_bytes", "Peak memory (MiB)", _profiled("peak_bytes"), lambda value: f"{value / _MIB:,.0f}"),
    _Shown("epoch_s", "Epoch (s)", lambda of: of.epoch_s, _digits),
    _Shown("train_s", "Training (s)", lambda of: of.train_s, _digits),
    _Shown("together", "Heads at once", lambda of: of.together, lambda value: f"{value:,.0f}"),
)


def measure_efficiency(items: Sequence[ReportedConfiguration], runs: Path) -> list[Efficiency]:
    """Return the costs of configurations from their runs, and from a profile beside the runs if there is one."""
    path = find_profile(runs)
    profile = _read_profile(path) if path else {}
    return [
        Efficiency(
            item,
            item.runs[0].parameters,
            _mean(_weights_bytes(run, runs) for run in item.runs),
            Spread.of(run.seconds for run in item.runs).mean,
            _mean(_epoch_s(run) for run in item.runs),
            _mean(run.costs.get("flops") for run in item.runs),
            _mean(run.costs.get("together", {}).get("heads") for run in item.runs),
            _of_profile(item, profile),
        )
        for item in items
    ]


def efficiency_table(costs: Sequence[Efficiency]) -> ReportTable:
    """Return one row for each configuration; columns that no configuration has are left out."""
    columns = [
        TableColumn("Configuration", [Cell(of.item.label) for of in costs], "left"),
        TableColumn("Streams", [Cell(streams_text(of.item)) for of in costs], "left"),
    ]
    for shown in _COLUMNS:
        values = [shown.value(of) for of in costs]
        if any(value is not None for value in values):
            cells = [Cell(UNDEFINED if value is None else shown.text(value)) for value in values]
            columns.append(TableColumn(shown.title, cells))
    return ReportTable(tuple(columns))


def efficiency_rows(costs: Sequence[Efficiency]) -> list[dict[str, Any]]:
    """Return one dict for each configuration, with empty fields for what is not known."""
    return [
        {"configuration": of.item.label, "streams": " ".join(of.item.streams)}
        | {shown.column: shown.value(of) for shown in _COLUMNS}
        for of in costs
    ]


def efficiency_caption(costs: Sequence[Efficiency]) -> str:
    """Return what the numbers are, and how those that are missing are measured."""
    caption = (
        "Efficiency of the configurations. Parameters are those that are trained; weights are the saved file of a run. "
        "The seconds of an epoch and of the training are means over repeats; heads that trained at once share their "
        "time by their epochs. FLOPs are those of one row that has all streams, two for a multiplication with its "
        "addition; of an ensemble, those of all its heads."
    )
    if any(of.profiled for of in costs):
        return (
            f"{caption} Sizes and FLOPs of extractors, latency (median) and peak memory of the process are those of "
            "emofuse profile, of an image in a batch of the largest size measured."
        )
    return (
        f"{caption} Extractors, latency and peak memory are not in the runs: emofuse profile PIPELINE --out "
        "FOLDER/profile, where FOLDER holds the runs, measures them for the next report."
    )


def find_profile(runs: Path) -> Path | None:
    """Return the file of the profile beside a folder of runs; None without one."""
    return next((path for place in PROFILE_PLACES if (path := runs.parent / place).is_file()), None)


def _read_profile(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return name of a configuration -> its figures; nothing if the file is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {each["name"]: each for each in data["configurations"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _of_profile(item: ReportedConfiguration, profile: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the figures of the configuration of this name and these streams; nothing if there is none."""
    figures = profile.get(item.name)
    if figures is None or set(figures.get("streams", ())) != set(item.streams):
        return {}
    try:
        path, head = figures["path"], figures["head"]
        costs = list(path["extractors"].values())
        peaks = [peak["rss_bytes"] for peak in path["peaks"]]
        return {
            "extractor_parameters": _sum(cost["parameters"] for cost in costs),
            "extractor_bytes": _sum(cost["model_bytes"] for cost in costs),
            "head_flops": head["cost"]["flops"],
            "extractor_flops": _sum(cost["flops"] for cost in costs),
            "head_ms_per_image": head["latency"][-1]["median_ms"] / head["latency"][-1]["batch"],
            "path_ms_per_image": path["whole"][-1]["median_ms"] / path["whole"][-1]["batch"],
            "peak_bytes": max([*peaks, head["training"]["rss_bytes"]]),
        }
    except (KeyError, IndexError, TypeError, ZeroDivisionError):  # a profile of another version
        return {}


def _weights_bytes(run: RunRecord, runs: Path) -> float | None:
    try:
        return float((run_dir(runs, run.digest) / _WEIGHTS).stat().st_size)
    except OSError:
        return None


def _epoch_s(run: RunRecord) -> float | None:
    """Return the seconds of training divided by all epochs of all heads; None for a head that is solved."""
    if run.spec["head"]["kind"] in EXACT_HEADS:
        return None
    epochs = sum(len(head.get("history", ())) for head in run.heads) or len(run.history)
    epochs += sum(int(again.get("epochs", 0)) for again in run.refit)
    return run.seconds / epochs


def _mean(values: Any) -> float | None:
    mean = Spread.of(values).mean
    return None if math.isnan(mean) else mean


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(sum(known)) if known else None
