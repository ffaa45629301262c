"""Write the table of the history of the measured ratios into `benchmarks/README.md`.

    python -m benchmarks.history

Every committed version of a result is a row, read from git, and so is a result that has been measured and not committed
yet. Run it after a measurement; a test compares the newest rows with the files in `benchmarks/results`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- history: begin -->", "<!-- history: end -->"

Result = Mapping[str, Any]


@dataclass(frozen=True)
class History:
    """One table of the history.

    Attributes:
        result: the name of the file of results.
        title: what its numbers are.
        columns: title of a column -> its number in a result, None where it was not measured.
    """

    result: str
    title: str
    columns: Mapping[str, Callable[[Result], Any]]


def over(shape: str, contender: str, way: str = "emofuse") -> Callable[[Result], Any]:
    """Return the reader of a ratio of `heads.json`."""

    def read(result: Result) -> Any:
        return result.get("shapes", {}).get(shape, {}).get(f"{way}_over", {}).get(contender, {}).get("median")

    return read


def at(*keys: str) -> Callable[[Result], Any]:
    """Return the reader of the number under these keys."""

    def read(result: Result) -> Any:
        found: Any = result
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return read


def peak_at(rows: int) -> Callable[[Result], Any]:
    """Return the reader of the largest memory in MB of all steps at a number of rows of `scale.json`."""

    def read(result: Result) -> Any:
        for point in result.get("curve", ()):
            if point["rows"] == rows:
                return max(step["peak_mb"] for step in point["steps"].values())
        return None

    return read


SHAPES = ("paper's head, batch 64", "paper's head, batch 1024", "small head, batch 64", "small head, batch 1024")
TABLES = (
    History(
        "heads",
        "Heads: how many times as many rows a second as a plain fused loop in memory (goal 2)",
        {shape: over(shape, "plain_loop") for shape in SHAPES},
    ),
    History(
        "heads",
        "Heads: how many times as many as a DataLoader over HDF5 (goal 5)",
        {shape: over(shape, "dataloader_hdf5") for shape in SHAPES},
    ),
    History(
        "extraction",
        "Extraction: how many times as fast as a script of six passes (goal 3), and images a second of faces",
        {
            "six streams": at("six_passes_over_build", "six_streams_float32"),
            "images/s, faces": at("images_per_s_median", "face_streams"),
            "plain script over light faces": at("plain_script_over_build_of_light_faces"),
        },
    ),
    History(
        "scale",
        "Scale: the largest memory of any step in MB",
        {f"{rows:,} rows": peak_at(rows) for rows in (10_000, 100_000, 1_000_000, 3_300_000)},
    ),
    History(
        "probe",
        "Closed-form probes: seconds of all subsets, penalties and folds",
        {"linear, 94,481 rows": at("linear", "seconds"), "RBF, 11,300 rows": at("rbf", "seconds")},
    ),
    History(
        "demo",
        "`make demo` once set up: seconds (goal 60)",
        {
            "on the clock": at("wall_s"),
            "of all processors": at("cpu_s"),
            **{phase: at("phases", phase, "wall_s") for phase in ("drawing", "extraction", "training", "report")},
        },
    ),
    History(
        "report",
        "A report of 2,000 configurations (goals of the page: 10 MB, 2 s)",
        {
            "s of all processors": at("cpu_s"),
            "memory, MB": at("peak_mb"),
            "page, MB": at("page_mb"),
            "s to open it": at("open_s"),
        },
    ),
    History(
        "grid",
        "GPU: seconds of the five configurations (goal 30) and of 2,700 heads (goal 600)",
        {"five configurations": at("five", "seconds_for_all"), "2,700 heads": at("grid", "seconds_for_all")},
    ),
)


def main() -> None:
    versions = {table.result: list(versions_of(table.result)) for table in TABLES}
    text = README.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN), text.index(END)
    README.write_text(f"{text[:start]}{BEGIN}\n{tables_of(versions)}\n{text[stop:]}", encoding="utf-8")
    print(README)


def tables_of(versions: Mapping[str, list[Result]]) -> str:
    """Return all tables that have a row as Markdown."""
    parts = []
    for table in TABLES:
        rows = list(dict.fromkeys(row_of(table, result) for result in versions[table.result]))
        if rows:
            titles = ("measured on", "machine", *table.columns)
            lines = [_line(titles), _line("---" for _ in titles), *rows]
            parts.append("\n".join([f"\n**{table.title}**\n", *lines]))
    return "\n".join(parts)


def row_of(table: History, result: Result) -> str:
    """Return the row of one version of a result."""
    machine = result.get("machine", {})
    shown = f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores"
    device = result.get("device", "cpu")
    values = (read(result) for read in table.columns.values())
    return _line((result["date"], shown if device == "cpu" else device, *(_shown(value) for value in values)))


def versions_of(name: str) -> Iterator[Result]:
    """Yield every committed version of a result, the oldest first, and the file as it is."""
    path = RESULTS / f"{name}.json"
    where = path.relative_to(RESULTS.parents[1]).as_posix()
    for commit in _git("log", "--format=%H", "--reverse", "--", where).split():
        if text := _git("show", f"{commit}:{where}"):
            yield json.loads(text)
    if path.is_file():
        yield json.loads(path.read_text(encoding="utf-8"))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _git(*arguments: str) -> str:
    """Return what git says about this repository, nothing where it has no such commit or file."""
    done = subprocess.run(["git", *arguments], cwd=RESULTS.parents[1], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
