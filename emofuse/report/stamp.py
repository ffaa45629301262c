"""Writes a report only when its inputs have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import emofuse
from emofuse.metrics import METRICS
from emofuse.report import ReportFiles, write_report
from emofuse.report.analysis import FOLDER
from emofuse.report.efficiency import find_profile
from emofuse.report.search import SearchSummary
from emofuse.report.targets import reported_target
from emofuse.results import RunRecord, record_plugins, run_dir
from emofuse.specs import digest
from emofuse.specs.plugins import loaded_plugins, plugins_with


def report_when_needed(
    records: Sequence[RunRecord],
    runs: Path,
    out: Path,
    *,
    title: str,
    baseline: str,
    order: Sequence[str],
    command: str,
    search: SearchSummary | None = None,
    metrics: Sequence[str] = (),
    compare: Sequence[tuple[str, str]] = (),
    reference_notes: Sequence[str] = (),
    images: bool = True,
    say: Callable[[str], None] | None = None,
) -> tuple[ReportFiles, bool]:
    """Write the report of these runs, unless the existing one has the same inputs and version of emofuse.

    Args:
        records: the records of the runs to report on.
        runs: the folder of the runs.
        out: the folder of the report.
        title: the title of the page.
        baseline: the name of the baseline.
        order: the names of all configurations in the order of tables.
        command: the command that made the runs.
        search: the search whose finalists the runs are.
        metrics: the names of further metrics.
        compare: pairs of configurations to compare beside those with the baseline.
        reference_notes: the notes on the reference models, such as those that could not be solved.
        images: whether the page has thumbnails of samples.
        say: a function that is given a sentence on names that figures show by number.

    Returns:
        The files of the report, and whether this call wrote them.

    Raises:
        ResultsError: as `write_report`.
    """
    with_metrics = [plugin.model_dump(mode="json") for plugin in plugins_with(METRICS)]
    if with_metrics:
        for record in records:
            record_plugins(run_dir(runs, record.digest), with_metrics)
    inputs: dict[str, Any] = {
        "emofuse": emofuse.__version__,
        "title": title,
        "baseline": baseline,
        "order": list(order),
        "runs": [[record.digest, record.name, record.created] for record in records],
        "search": asdict(search) if search else None,
    }
    if metrics:
        files = [plugin.model_dump(mode="json") for plugin in loaded_plugins()]
        inputs["metrics"] = {"kinds": list(metrics), "plugins": files}
    if compare:
        inputs["compare"] = [list(pair) for pair in compare]
    analysis = runs.parent / FOLDER / "analysis.json"
    if analysis.is_file():
        inputs["analysis"] = hashlib.sha256(analysis.read_bytes()).hexdigest()
    if profile := find_profile(runs):
        inputs["profile"] = hashlib.sha256(profile.read_bytes()).hexdigest()
    if not images:  # a report with thumbnails has the stamp of releases without this choice
        inputs["images"] = False
    if reference_notes:
        inputs["reference_notes"] = list(reference_notes)
    stamp, made_from = out / "inputs.sha256", digest(inputs)
    part = reported_target(records[0].target_kind).part
    expected = ReportFiles.in_folder(out, part, search=search is not None, metrics=bool(metrics))
    whole = expected.page.is_file() and expected.tables.is_dir()  # a former release wrote no tables
    if whole and stamp.is_file() and stamp.read_bytes() == made_from.encode():
        return expected, False
    stamp.unlink(missing_ok=True)  # an interrupted report must not count as finished
    only = {record.digest for record in records}
    written = write_report(
        runs,
        out,
        title=title,
        baseline=baseline,
        order=order,
        only=only,
        command=command,
        search=search,
        metrics=metrics,
        compare=compare,
        reference_notes=reference_notes,
        images=images,
        say=say,
    )
    stamp.write_bytes(made_from.encode())
    return written, True
