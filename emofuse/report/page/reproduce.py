"""The box of the page that says how to make its numbers again: commands, versions, and weights with their licences."""

from __future__ import annotations

from collections.abc import Sequence

from emofuse.report.configurations import Results
from emofuse.report.foreign import evaluation_of
from emofuse.report.inputs import StreamUse
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.specs import is_random
from emofuse.weights.registry import REGISTRY


def commands(results: Results, command: str) -> list[str]:
    """Return the commands that make the runs, fetch their weights and write the report, as far as they are known."""
    names = dict.fromkeys(
        weights["name"]
        for run in results.runs
        for stream in run.streams.values()
        if (weights := stream["weights"]) and weights["kind"] == "registry" and weights.get("name") in REGISTRY
    )
    fetched = list(dict.fromkeys(REGISTRY[name].fetch_command for name in names))
    if not command:
        return []
    after = (
        []
        if evaluation_of(results)
        else ["emofuse report RUNS  # RUNS: the folder of the runs, to write this page again"]
    )
    return [*fetched, command, *after]


def weights_table(uses: Sequence[StreamUse]) -> ReportTable | None:
    """Return the weights of all streams with their licences and digests, one row each; None without any."""
    rows = {}
    for use in uses:
        weights = use.stream["weights"]
        if weights:
            rows[weights.get("name") or str(weights), weights.get("sha256")] = (use, weights)
    if not rows:
        return None
    names, streams, licences, digests = [], [], [], []
    for (name, sha256), (use, weights) in rows.items():
        entry = REGISTRY.get(name) if weights["kind"] == "registry" else None
        is_made_up = is_random(weights)
        names.append(Cell(f"RANDOM, seed {weights.get('seed')}" if is_made_up else name))
        streams.append(Cell(use.label))
        licence = (
            f"{entry.licence} ({entry.source})" if entry else "none needed" if is_made_up else "not in the registry"
        )
        licences.append(Cell(licence))
        digests.append(Cell(sha256 or "–"))
    return ReportTable(
        (
            TableColumn("Weights", names, "left"),
            TableColumn("Stream", streams, "left"),
            TableColumn("Licence, as the publisher states it", licences, "left"),
            TableColumn("SHA-256", digests, "left"),
        )
    )
