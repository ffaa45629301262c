"""The sections on samples of targets without classes: largest errors, gains of fusion, values that may be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import TestedRows
from emofuse.analysis.sections.samples import MOST_LISTED, MOST_SHOWN
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.formats import format_difference, format_score
from emofuse.report.row_errors import ERRORS, find_suspects, row_errors
from emofuse.report.tables import Cell, ReportTable, TableColumn

Floats = npt.NDArray[np.float64]


def value_mistakes_section(
    label: str,
    kind: str,
    answers: TestedRows,
    *,
    names: Sequence[str],
    paths: Mapping[str, str],
    others: Mapping[str, Floats],
    single: str = "",
) -> AnalysisSection:
    """Return the section on the largest errors of a model, and where fusion reduced the error.

    Args:
        label: the name of the model.
        kind: the kind of the target.
        answers: its answers, each sample once.
        names: the names of the columns or labels.
        paths: sample -> the path of its file, as far as it is known.
        others: name -> the answers of other models to the same rows.
        single: the name of the model among them that fusion is compared with; an empty text for none.
    """
    target = _target(answers)
    errors = row_errors(kind, target, answers.outputs)
    order = np.argsort(-errors, kind="stable")
    caption = f"The largest errors of {label}."
    tables = [_table("mistakes", caption, answers, order, names=names, paths=paths, columns={"error": errors})]
    sentences = [
        (
            f"The error of a row is {ERRORS[kind]}: {format_score(float(errors.mean()))} on average over "
            f"{len(errors):,} rows, and more than {format_score(float(np.quantile(errors, 0.95)))} in 5 % of them."
        )
    ]
    numbers: dict[str, Any] = {"model": label, "rows": len(errors), "mean_error": float(errors.mean())}
    if single:
        other = row_errors(kind, target, others[single])
        gain = other - errors
        better = int((gain > 0).sum())
        for stem, rows, text in (
            ("rescued", np.argsort(-gain, kind="stable")[:better], "smaller"),
            ("spoiled", np.argsort(gain, kind="stable")[: int((gain < 0).sum())], "larger"),
        ):
            caption = f"Rows in which the error of {label} is {text} than that of {single} by most."
            columns = {"error": errors, "error_of_other": other}
            tables.append(_table(stem, caption, answers, rows, names=names, paths=paths, columns=columns))
        sentences.append(
            f"The error of {label} is smaller than that of {single} in {better:,} rows and larger in "
            f"{int((gain < 0).sum()):,}. Errors of two models differ by chance too, so that the largest gains of many "
            "rows are partly luck."
        )
        numbers |= {"other": single, "smaller": better, "larger": int((gain < 0).sum())}
    shown = [each for each in tables if each.rows]
    numbers["samples"] = {each.stem: [row["sample_id"] for row in each.rows] for each in shown}
    return AnalysisSection("mistakes", "Largest errors, and what fusion improved", sentences, shown, [], numbers)


def value_noise_section(
    label: str,
    kind: str,
    answers: TestedRows,
    *,
    names: Sequence[str],
    paths: Mapping[str, str],
    others: Sequence[Floats],
) -> AnalysisSection:
    """Return the section on true values or labels that may be wrong; arguments as above."""
    target = _target(answers)
    suspects = find_suspects(kind, target, answers.outputs, others)
    plain: list[dict[str, Any]] = [
        {
            "sample_id": str(answers.sample_id[each.row]),
            "path": paths.get(str(answers.sample_id[each.row]), ""),
            "part": names[each.part],
            "true": float(target[each.row, each.part]),
            "answer": float(answers.outputs[each.row, each.part]),
            "margin": each.margin,
        }
        for each in suspects[:MOST_LISTED]
    ]
    shown = plain[:MOST_SHOWN]
    is_label = kind == "multilabel"
    table = ReportTable(
        (
            TableColumn("Sample", [Cell(row["sample_id"]) for row in shown], "left"),
            TableColumn("Label" if is_label else "Column", [Cell(row["part"]) for row in shown], "left"),
            TableColumn(
                "Given",
                [
                    Cell(("yes" if row["true"] > 0.5 else "no") if is_label else format_score(row["true"]))
                    for row in shown
                ],
            ),
            TableColumn("Probability" if is_label else "Answer", [Cell(format_score(row["answer"])) for row in shown]),
            TableColumn(
                "Margin" if is_label else "Robust deviations",
                [Cell(format_difference(row["margin"], 2 if is_label else 1)) for row in shown],
            ),
        )
    )
    counts = [sum(each.part == place for each in suspects) for place in range(len(names))]
    by_part = ReportTable(
        (
            TableColumn("Label" if is_label else "Column", [Cell(name) for name in names], "left"),
            TableColumn("Rows", [Cell(f"{len(target):,}") for _ in names]),
            TableColumn("Suspected", [Cell(f"{count:,}") for count in counts]),
        )
    )
    more = f" The first {MOST_SHOWN} of {len(suspects):,}." if len(suspects) > MOST_SHOWN else ""
    tables = [AnalysisTable("label_noise_by_part", "True values that may be wrong, by column or label.", by_part)]
    if plain:
        caption = f"True values that the answers contradict, the clearest first.{more}"
        tables.append(AnalysisTable("label_noise", caption, table, plain))
    agree = f", and {len(others)} other models err in the same direction by at least half as much" if others else ""
    rule = (
        "Confident learning for each label alone: the probability of a label is that of the rows that are labelled "
        "otherwise."
        if is_label
        else f"The error lies beyond three robust standard deviations of the errors of its column{agree}."
    )
    sentences = [
        f"{len(suspects):,} true values of {len(target):,} rows may be wrong by the answers of {label}. {rule}",
        "These are candidates to look at, and not errors: rows that are hard for all models are among them.",
    ]
    numbers = {
        "model": label,
        "rows": len(target),
        "suspects": len(suspects),
        "by_part": dict(zip(names, counts, strict=True)),
    }
    return AnalysisSection("label_noise", "True values that may be wrong", sentences, tables, [], numbers)


def _target(answers: TestedRows) -> Floats:
    if answers.target is None:
        raise ValueError("rows of classes have no true values")
    return answers.target


def _table(
    stem: str,
    caption: str,
    answers: TestedRows,
    rows: npt.NDArray[np.int64],
    *,
    names: Sequence[str],
    paths: Mapping[str, str],
    columns: Mapping[str, Floats],
) -> AnalysisTable:
    target, plain = _target(answers), []
    for row in rows[:MOST_LISTED].tolist():
        sample = str(answers.sample_id[row])
        each: dict[str, Any] = {"sample_id": sample, "path": paths.get(sample, "")}
        each |= {key: float(values[row]) for key, values in columns.items()}
        for place, name in enumerate(names):
            each[f"true_{name}"] = float(target[row, place])
            each[f"answer_{name}"] = float(answers.outputs[row, place])
        plain.append(each)
    shown = plain[:MOST_SHOWN]
    titles = {"error": "Error", "error_of_other": "Error of the other"}
    table = ReportTable(
        (
            TableColumn("Sample", [Cell(row["sample_id"]) for row in shown], "left"),
            *(TableColumn(titles[key], [Cell(format_score(row[key], 2)) for row in shown]) for key in columns),
            *(
                TableColumn(
                    name,
                    [
                        Cell(f"{format_score(row[f'answer_{name}'], 2)} ({format_score(row[f'true_{name}'], 2)})")
                        for row in shown
                    ],
                )
                for name in names[:4]
            ),
        )
    )
    more = f" The first {MOST_SHOWN} of {len(rows):,}; the CSV file has more." if len(rows) > MOST_SHOWN else ""
    return AnalysisTable(stem, f"{caption} In brackets: the true values.{more}", table, plain)
