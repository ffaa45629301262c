"""Writes the sections of an analysis into one folder, see `emofuse.report.analysis` for its files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import emofuse
from emofuse.errors import ResultsError
from emofuse.report.analysis import FORMAT, AnalysisSection
from emofuse.report.figures import ENDINGS
from emofuse.report.formats import escape_markdown
from emofuse.report.latex import latex_table
from emofuse.report.numbers import csv_text
from emofuse.report.tables import markdown
from emofuse.stores import replace_file

ORDER = (
    "worth",
    "suppression",
    "subgroups",
    "fairness",
    "calibration",
    "mistakes",
    "label_noise",
    "attributions",
    "feature_space",
)
"""The keys of sections in the order of the page; others follow."""


def write_analysis(
    folder: Path, sections: Sequence[AnalysisSection], *, runs: Sequence[str], source: Mapping[str, Any]
) -> Path:
    """Write sections, and keep those of a former analysis of the same source that are not made anew.

    Args:
        folder: the folder of the analysis; it is made if it does not exist.
        sections: the sections.
        runs: the digests of the runs that were analysed.
        source: what was analysed, plain JSON: configuration, cache, options.

    Returns:
        The file with everything, `analysis.json`.

    Raises:
        ResultsError: a file is in the place of the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder}: a file is in the place of the folder of the analysis; name another with --out")
    replaced = _read(folder)
    former = replaced if replaced.get("source") == _plain(source) else {}
    texts: dict[str, str] = former.get("texts", {})
    by_key: dict[str, Any] = {each["key"]: each for each in former.get("sections", [])}
    for section in sections:
        by_key[section.key] = _plain(section.as_json())
        texts[section.key] = _text(section)
        _write_tables(folder / "tables", section)
        for figure in section.figures:
            (folder / "figures").mkdir(parents=True, exist_ok=True)
            for name, drawn in figure.files.items():
                replace_file(folder / "figures" / name, drawn)
    keys = sorted(by_key, key=lambda key: (ORDER.index(key) if key in ORDER else len(ORDER), key))
    data = {
        "format": FORMAT,
        "emofuse": emofuse.__version__,
        "source": _plain(source),
        "runs": sorted({*runs, *former.get("runs", [])}),
        "sections": [by_key[key] for key in keys],
        "texts": {key: texts[key] for key in keys if key in texts},
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "analysis.md", "# Analysis\n\n" + "\n".join(data["texts"].values()))
    path = folder / "analysis.json"  # last, so that an interrupted analysis does not count as one
    replace_file(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _remove_files(folder, replaced, data)
    return path


def _read(folder: Path) -> dict[str, Any]:
    """Return a former analysis; nothing if there is none, or if it is damaged."""
    try:
        data = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
        return dict(data) if data["format"] == FORMAT and data["sections"] is not None else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remove_files(folder: Path, former: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Remove the tables and figures that only a former analysis had."""
    for kind in ("tables", "figures"):
        stems = [
            {each["stem"] for section in data.get("sections", []) for each in section[kind]} for data in (former, now)
        ]
        for stem in stems[0] - stems[1]:
            for ending in ("csv", "md", "tex", *ENDINGS):
                (folder / kind / f"{stem}.{ending}").unlink(missing_ok=True)


def _write_tables(folder: Path, section: AnalysisSection) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for each in section.tables:
        rows = each.rows or [
            {column.title: row[place].text for place, column in enumerate(each.table.columns)}
            for row in each.table.rows
        ]
        replace_file(folder / f"{each.stem}.csv", csv_text(rows))
        replace_file(folder / f"{each.stem}.md", f"{escape_markdown(each.caption)}\n\n{markdown(each.table)}")
        replace_file(folder / f"{each.stem}.tex", latex_table(each.table, each.caption, each.stem))


def _text(section: AnalysisSection) -> str:
    notes = "".join(f"- {escape_markdown(sentence)}\n" for sentence in section.sentences)
    tables = "".join(f"\n{escape_markdown(each.caption)}\n\n{markdown(each.table)}" for each in section.tables)
    figures = "".join(f"\n![{escape_markdown(each.caption)}](figures/{each.stem}.svg)\n" for each in section.figures)
    return f"## {escape_markdown(section.title)}\n\n{notes}{tables}{figures}"


def _plain(value: Any) -> Any:
    """Return plain JSON; NaN and infinite numbers as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
