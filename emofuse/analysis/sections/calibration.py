"""The section on calibration and on answers that may be withheld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from emofuse.analysis.answers import Ints
from emofuse.analysis.calibration import (
    BINS,
    Calibration,
    Floats,
    Selective,
    measure_calibration,
    measure_selective,
)
from emofuse.analysis.plots import plot_reliability, plot_risk
from emofuse.analysis.sections.words import score_cell, unit_words
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import draw_figure
from emofuse.report.formats import format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.statistics import Resampling


@dataclass(frozen=True)
class CalibratedAnswers:
    """Probabilities before and after temperature scaling, of rows that no temperature was fitted on.

    Attributes:
        label: the true classes, (n,).
        unit: the unit of each row, (n,).
        before: the probabilities, (n, C).
        after: the same with a temperature, (n, C).
        temperatures: the fitted temperatures.
        fitted_on: which rows they were fitted on, as a phrase.
        grouped: whether units are groups.
        of_labels: the number of labels of each row, each of which is one decision between yes and no; 0 for classes.
    """

    label: Ints
    unit: Ints
    before: Floats
    after: Floats
    temperatures: Sequence[float]
    fitted_on: str
    grouped: bool
    of_labels: int = 0


def calibration_section(label: str, answers: CalibratedAnswers, resampling: Resampling) -> AnalysisSection:
    """Return the section on calibration of a model.

    Args:
        label: the name of the model.
        answers: its probabilities.
        resampling: the number of resamples and the seed.
    """
    before, after = (
        measure_calibration(probs, answers.label, answers.unit, resampling) for probs in (answers.before, answers.after)
    )
    selective = measure_selective(answers.after, answers.label, answers.unit, resampling)
    return AnalysisSection(
        "calibration",
        "Can its probabilities be believed?",
        _sentences(label, before, after, selective, answers),
        [_table(label, before, after), _coverage_table(label, selective)],
        [
            draw_figure("reliability", _caption(label), lambda: _reliability(before, after)),
            draw_figure(
                "risk_coverage",
                (
                    f"Accuracy of {label} in its most confident answers, over the share of rows that it answers. "
                    "Dashed: "
                    "confidence that says nothing."
                ),
                lambda: plot_risk(selective),
            ),
        ],
        {
            "model": label,
            "temperatures": list(answers.temperatures),
            "fitted_on": answers.fitted_on,
            "before": _numbers(before),
            "after": _numbers(after),
            "aurc": selective.aurc,
            "aurc_low": selective.aurc_interval.low,
            "aurc_high": selective.aurc_interval.high,
            "coverages": _coverage_rows(selective),
        },
    )


def _reliability(before: Calibration, after: Calibration) -> Figure:
    return plot_reliability([("Before scaling", before.bins), ("After scaling", after.bins)])


def _caption(label: str) -> str:
    return (
        f"Accuracy of {label} by confidence before and after temperature scaling, in {BINS} even bins with "
        "Wilson's 95 % "
        "intervals; the size of a point grows with its rows. Points before and after scaling are moved apart by "
        "0.008. On the diagonal, confidence is right."
    )


def _table(label: str, before: Calibration, after: Calibration) -> AnalysisTable:
    both = (before, after)
    columns = (
        TableColumn("Probabilities", [Cell("as they are"), Cell("with temperature")], "left"),
        TableColumn("Calibration error (ECE)", [score_cell(each.ece, each.ece_interval) for each in both]),
        TableColumn("Log loss", [score_cell(each.log_loss, each.log_loss_interval) for each in both]),
        TableColumn("Mean confidence", [score_cell(each.confidence) for each in both]),
        TableColumn("Accuracy", [score_cell(each.accuracy) for each in both]),
    )
    rows = [
        {"probabilities": name, **{key: value for key, value in _numbers(each).items() if key != "bins"}}
        for name, each in (("before", before), ("after", after))
    ]
    caption = f"Calibration of {label} before and after temperature scaling, with 95 % intervals; smaller is better."
    return AnalysisTable("calibration", caption, ReportTable(columns), rows)


def _numbers(each: Calibration) -> dict[str, Any]:
    return {
        "ece": each.ece,
        "ece_low": each.ece_interval.low,
        "ece_high": each.ece_interval.high,
        "log_loss": each.log_loss,
        "log_loss_low": each.log_loss_interval.low,
        "log_loss_high": each.log_loss_interval.high,
        "confidence": each.confidence,
        "accuracy": each.accuracy,
        "bins": [{"rows": one.rows, "confidence": one.confidence, "accuracy": one.accuracy} for one in each.bins],
    }


def _coverage_table(label: str, selective: Selective) -> AnalysisTable:
    columns = (
        TableColumn("Answered", [Cell(f"{100 * each.share:.0f} %") for each in selective.coverages]),
        TableColumn("Accuracy", [score_cell(each.accuracy, each.interval) for each in selective.coverages]),
        TableColumn("Least confidence", [Cell(format_score(each.threshold)) for each in selective.coverages]),
    )
    caption = f"Accuracy of {label} where only its most confident answers count, with 95 % intervals."
    return AnalysisTable("selective", caption, ReportTable(columns), _coverage_rows(selective))


def _coverage_rows(selective: Selective) -> list[dict[str, Any]]:
    return [
        {
            "answered": each.share,
            "accuracy": each.accuracy,
            "low": each.interval.low,
            "high": each.interval.high,
            "least_confidence": each.threshold,
        }
        for each in selective.coverages
    ]


def _sentences(
    label: str, before: Calibration, after: Calibration, selective: Selective, answers: CalibratedAnswers
) -> list[str]:
    direction = "more" if before.confidence > before.accuracy else "less"
    temperatures = answers.temperatures
    shown = (
        f"{temperatures[0]:.2f}"
        if len(temperatures) == 1
        else f"{min(temperatures):.2f} to {max(temperatures):.2f} ({len(temperatures)} fits)"
    )
    half = next(each for each in selective.coverages if each.share == 0.5)
    decisions = (
        f"Each of the {answers.of_labels} labels of a row is one decision between yes and no, here called a row; "
        "resamples draw rows with all their labels."
    )
    return [
        *([decisions] if answers.of_labels else []),
        (
            f"{label} is on average {direction} confident ({format_score(before.confidence)}) than accurate "
            f"({format_score(before.accuracy)}). Its calibration error is {format_score(before.ece)}, and "
            f"{format_score(after.ece)} with a temperature of {shown}."
        ),
        f"Temperatures are fitted by log loss on {answers.fitted_on}; they change no answer, only its confidence.",
        (
            f"Where it answers only the more confident half of the rows, its accuracy is {format_score(half.accuracy)} "
            f"instead of {format_score(before.accuracy)}. The area under risk and coverage is "
            f"{format_score(selective.aurc)}; {format_score(selective.aurc_of_chance)} if confidence said nothing, "
            f"{format_score(selective.aurc_of_oracle)} at best."
        ),
        (
            f"Intervals are a bootstrap over {unit_words(grouped=answers.grouped)}. The calibration error of few "
            "rows is "
            "too large by chance alone, in its resamples even more, so that it may lie at the lower end of its "
            "interval."
        ),
    ]
