"""The sections on single samples: mistakes, rescued samples, and candidates for wrong labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emofuse.analysis.answers import TestedRows
from emofuse.analysis.mistakes import LabelNoise, Rescue, confident_mistakes
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.formats import format_difference, format_score, join_some
from emofuse.report.tables import Cell, ReportTable, TableColumn

MOST_SHOWN = 20
MOST_LISTED = 1_000


def mistakes_section(
    label: str,
    answers: TestedRows,
    *,
    classes: Sequence[str],
    paths: Mapping[str, str],
    rescue: Rescue | None = None,
    others: Sequence[str] = (),
) -> AnalysisSection:
    """Return the section on mistakes of a model and samples that it rescued.

    Args:
        label: the name of the model.
        answers: its answers, each sample once.
        classes: the names of the classes.
        paths: sample -> the path of its file, as far as it is known.
        rescue: the comparison with other models; None without any.
        others: the names of these models.
    """
    mistakes = confident_mistakes(answers.outputs, answers.label, MOST_LISTED)
    wrong = int((answers.outputs.argmax(axis=1) != answers.label).sum())
    tables = [
        _sample_table(
            "mistakes",
            f"The most confident of the {wrong:,} mistakes of {label}.",
            answers,
            mistakes,
            classes=classes,
            paths=paths,
        )
    ]
    sentences = [f"{label} is wrong in {wrong:,} of {len(answers.label):,} rows."]
    numbers: dict[str, Any] = {"model": label, "mistakes": wrong, "rows": len(answers.label)}
    if rescue is not None:
        named = join_some(others)
        sentences.append(
            f"{len(rescue.rescued):,} rows are rescued: wrong by {named}, and right by {label}. "
            f"{len(rescue.spoiled):,} "
            f"rows are spoiled: right by all of these, and wrong by {label}. All models are right in "
            f"{rescue.everybody:,} rows, and none in {rescue.nobody:,}."
        )
        sentences.append(
            "Some rescues happen by chance: of several models that guess, one more is right where all others are wrong."
        )
        tables += [
            _sample_table(
                "rescued", f"Rows that only {label} gets right.", answers, rescue.rescued, classes=classes, paths=paths
            ),
            _sample_table(
                "spoiled", f"Rows that only {label} gets wrong.", answers, rescue.spoiled, classes=classes, paths=paths
            ),
        ]
        numbers |= {
            "others": list(others),
            "rescued": len(rescue.rescued),
            "spoiled": len(rescue.spoiled),
            "right_by_all": rescue.everybody,
            "wrong_by_all": rescue.nobody,
        }
    shown = [each for each in tables if each.rows]
    numbers["samples"] = {each.stem: [row["sample_id"] for row in each.rows] for each in shown}
    return AnalysisSection("mistakes", "Mistakes, and what fusion rescued", sentences, shown, [], numbers)


def _sample_table(
    stem: str,
    caption: str,
    answers: TestedRows,
    rows: Any,
    *,
    classes: Sequence[str],
    paths: Mapping[str, str],
) -> AnalysisTable:
    plain = []
    for row in np.asarray(rows)[:MOST_LISTED].tolist():
        probs, true = answers.outputs[row], int(answers.label[row])
        predicted, sample = int(probs.argmax()), str(answers.sample_id[row])
        plain.append(
            {
                "sample_id": sample,
                "path": paths.get(sample, ""),
                "label": classes[true],
                "predicted": classes[predicted],
                "confidence": float(probs[predicted]),
                "probability_of_label": float(probs[true]),
            }
        )
    more = f" The first {MOST_SHOWN} of {len(rows):,}; the CSV file has more." if len(rows) > MOST_SHOWN else ""
    return AnalysisTable(stem, caption + more, _cells(plain), plain)


def _cells(plain: Sequence[Mapping[str, Any]]) -> ReportTable:
    shown = plain[:MOST_SHOWN]
    return ReportTable(
        (
            TableColumn("Sample", [Cell(row["sample_id"]) for row in shown], "left"),
            TableColumn("Label", [Cell(row["label"]) for row in shown], "left"),
            TableColumn("Answer", [Cell(row["predicted"]) for row in shown], "left"),
            TableColumn("Confidence", [Cell(format_score(row["confidence"])) for row in shown]),
            TableColumn("Probability of label", [Cell(format_score(row["probability_of_label"])) for row in shown]),
        )
    )


def label_noise_section(
    label: str,
    answers: TestedRows,
    noise: LabelNoise,
    *,
    classes: Sequence[str],
    paths: Mapping[str, str],
    whole: bool,
) -> AnalysisSection:
    """Return the section on candidates for wrong labels.

    Args:
        label: the name of the model.
        answers: its answers, each sample once, none of which it has learned from.
        noise: what confident learning says.
        classes: the names of the classes.
        paths: sample -> the path of its file.
        whole: whether all labelled rows were answered, and not only test rows.
    """
    plain: list[dict[str, Any]] = []
    for place, row in enumerate(noise.suspects[:MOST_LISTED].tolist()):
        sample, suggested = str(answers.sample_id[row]), int(noise.suggested[place])
        plain.append(
            {
                "sample_id": sample,
                "path": paths.get(sample, ""),
                "label": classes[int(answers.label[row])],
                "suggested": classes[suggested],
                "probability_of_label": float(answers.outputs[row, answers.label[row]]),
                "probability_of_suggested": float(answers.outputs[row, suggested]),
                "margin": float(noise.margin[place]),
            }
        )
    shown = plain[:MOST_SHOWN]
    table = ReportTable(
        (
            TableColumn("Sample", [Cell(row["sample_id"]) for row in shown], "left"),
            TableColumn("Label", [Cell(row["label"]) for row in shown], "left"),
            TableColumn("Suggested", [Cell(row["suggested"]) for row in shown], "left"),
            TableColumn("P(label)", [Cell(format_score(row["probability_of_label"])) for row in shown]),
            TableColumn("P(suggested)", [Cell(format_score(row["probability_of_suggested"])) for row in shown]),
            TableColumn("Margin", [Cell(format_difference(row["margin"])) for row in shown]),
        )
    )
    of_label = noise.joint.sum(axis=1)
    off = noise.joint - np.diag(np.diagonal(noise.joint))
    joint = ReportTable(
        (
            TableColumn("Label", [Cell(name) for name in classes], "left"),
            TableColumn("Rows", [Cell(f"{count:,.0f}") for count in of_label]),
            TableColumn(
                "Suspected",
                [Cell(f"{int(np.sum(answers.label[noise.suspects] == place)):,}") for place in range(len(classes))],
            ),
            TableColumn(
                "Estimated share of wrong labels",
                [
                    Cell(f"{100 * float(off[place].sum()) / max(float(of_label[place]), 1):.1f} %")
                    for place in range(len(classes))
                ],
            ),
            TableColumn(
                "Most often",
                [Cell(classes[int(off[place].argmax())] if off[place].any() else "–") for place in range(len(classes))],
                "left",
            ),
        )
    )
    more = f" The first {MOST_SHOWN} of {len(noise.suspects):,}." if len(noise.suspects) > MOST_SHOWN else ""
    tables = [AnalysisTable("label_noise_by_class", "Labels that may be wrong, by label.", joint)]
    if plain:
        tables.append(
            AnalysisTable(
                "label_noise", f"Samples whose label is confidently another, the clearest first.{more}", table, plain
            )
        )
    which = "all labelled rows, each answered by heads that did not learn it" if whole else "the test rows alone"
    sentences = [
        (
            f"Confident learning names {len(noise.suspects):,} of {len(answers.label):,} rows whose label may be "
            "wrong; it "
            f"estimates {noise.noisy:.0f} wrong labels. Looked at: {which}, with the probabilities of {label}."
        ),
        (
            "These are candidates to look at, and not errors: of a weak model, or of two emotions that look "
            "alike, most of "
            "them are right. The estimate assumes that labels are mixed up by class and not by sample."
        ),
    ]
    numbers = {
        "model": label,
        "rows": len(answers.label),
        "suspects": len(noise.suspects),
        "estimated": noise.noisy,
        "thresholds": noise.thresholds,
        "confident_joint": noise.confident,
        "joint": noise.joint,
    }
    return AnalysisSection("label_noise", "Labels that may be wrong", sentences, tables, [], numbers)
