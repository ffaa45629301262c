"""What a report says of a test on another dataset: where the model comes from, the label map, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emofuse.report.configurations import Results
from emofuse.report.formats import format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn

MAP_CAPTION = "What the labels of the data and the classes of the model count as."
_NOWHERE = "left out"


def evaluation_of(results: Results) -> Mapping[str, Any]:
    """Return what is recorded of a test on another dataset; empty for a report on the runs themselves."""
    return next((run.evaluation for run in results.runs if run.evaluation), {})


def foreign_sentences(results: Results) -> list[str]:
    """Return the sentences on a test on another dataset; none for a report on the runs themselves."""
    test = evaluation_of(results)
    if not test:
        return []
    models = len(test["models"])
    mean = f"the mean outputs of {models} models" if models > 1 else "one model"
    return [
        (
            f"This is a test on foreign data: {mean} trained on {test['trained_on']}, scored on {test['rows']} of "
            f"{test['tested_on']}. No row of {test['tested_on']} has trained or chosen anything."
        ),
        (
            f"In this report, the test split is those rows of {test['tested_on']}; training and validation rows are "
            f"those of {test['trained_on']}."
        ),
        *_map_sentences(test),
        *_left_out(test),
        *_restriction(test),
    ]


def map_table(results: Results) -> ReportTable | None:
    """Return a table of what every label of the data and every class of the model counts as; None without classes."""
    test = evaluation_of(results)
    if "of_data" not in test:
        return None
    rows = [
        ("label of the data", label, shared or _NOWHERE, _rows_of(test, label))
        for label, shared in test["of_data"].items()
    ]
    rows += [("class of the model", name, shared or _NOWHERE, "") for name, shared in test["of_model"].items()]
    sides, labels, shared, counts = ([Cell(text) for text in column] for column in zip(*rows, strict=True))
    return ReportTable(
        (
            TableColumn("Side", sides, "left"),
            TableColumn("Name", labels, "left"),
            TableColumn("Counts as", shared, "left"),
            TableColumn("Rows", counts),
        )
    )


def _rows_of(test: Mapping[str, Any], label: str) -> str:
    """Return the number of rows with a label: those that are scored, or those that are left out."""
    count = test["left_out"].get(label, test["rows_of_labels"].get(label, 0))
    return f"{count:,}"


def _map_sentences(test: Mapping[str, Any]) -> list[str]:
    if "of_data" not in test:
        return []
    used = test["map"]
    if used is None:
        return ["No label map was used: labels and classes are shared by their names.", *test["sentences"]]
    effect = (
        "a row counts as the class that its label maps to"
        if used["side"] == "data"
        else "the probabilities of classes that map to one label are summed"
    )
    return [
        f"Label map {used['name']}, from {used['from']} to {used['to']}, is applied to the {used['side']}: {effect}.",
        *test["sentences"],
    ]


def _left_out(test: Mapping[str, Any]) -> list[str]:
    parts = [f"{count:,} labelled {label}" for label, count in test["left_out"].items() if count]
    for key, why in (("unlabelled", "without a label"), ("unreadable", "whose files cannot be read")):
        parts += [f"{test[key]:,} {why}"] if test[key] else []
    return [f"Rows that are left out: {', '.join(parts)}."] if parts else ["No row is left out."]


def _restriction(test: Mapping[str, Any]) -> list[str]:
    """Return the effect of restricting the answers to the shared classes, if the model has others."""
    others = [name for name, shared in test.get("of_model", {}).items() if shared is None]
    if not others:
        return []
    accuracy = format_score(test["accuracy_without_restriction"])
    sentence = (
        f"The model answers among the shared classes: its probabilities of {', '.join(others)} are left out and the "
        f"others divided by their sum. Without this, it would answer {test['answered_otherwise']:,} rows with one of "
        f"those, and its accuracy would be {accuracy}."
    )
    return [sentence]
