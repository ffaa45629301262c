"""The cells and sources of tables of measured numbers, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from docs_site.markdown import ROOT

RESULTS = ROOT / "benchmarks" / "results"
NONE = "–"
Results = dict[str, Any]


def read(name: str) -> Results:
    """Return the result of this name."""
    data: Results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return data


def source(*names: str) -> str:
    """Return the line that says where numbers come from: command, machine, date, file."""
    parts = []
    for name in names:
        data = read(name)
        machine, device = data["machine"], data.get("device", "cpu")
        where = f"{machine['cpu']}, {machine['cores']} core{'s' * (machine['cores'] != 1)}"
        if device != "cpu":
            where += f", {data.get('gpu') or machine.get('gpu') or device}"
        parts.append(f"[`{name}.json`](RESULTS/{name}.json): `{data['command']}`, {where}, {data['date']}")
    return f"*{'; '.join(parts)}.*"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]], numbers_from: int = 1) -> list[str]:
    """Return the lines of a table whose columns from `numbers_from` on are aligned to the right."""
    names = list(head)
    rule = ["---"] * numbers_from + ["---:"] * (len(names) - numbers_from)
    lines = [names, rule, *([str(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def score_text(score: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Return a mean with its interval."""
    if score is None:
        return NONE
    low, high = score.get("interval") or (score.get("low"), score.get("high"))
    mean = f"{score['mean']:.{digits}f}"
    return mean if low is None else f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def signed(value: float) -> str:
    """Return a number with its sign, a real minus."""
    return f"{value:+.3f}".replace("-", "−")


def difference(test: Mapping[str, Any]) -> str:
    """Return a difference with its interval."""
    return f"{signed(test['mean'])} [{signed(test['low'])}, {signed(test['high'])}]"


def p_text(value: float) -> str:
    """Return a p value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
