"""The samples of a page for targets without classes: largest errors, gains of fusion, values that may be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import format_difference, format_score
from emofuse.report.page.matrices import Gallery, GalleryCard
from emofuse.report.page.pictures import Pictures
from emofuse.report.page.samples import MOST_IN_GALLERY, single_streams
from emofuse.report.predictions import read_test_predictions
from emofuse.report.row_errors import ERRORS, find_suspects, row_errors
from emofuse.report.targets import decimals_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ListedValues:
    """One sample of a list.

    Attributes:
        row: the row of the sample.
        note: why it stands in the list, as a short text.
    """

    row: int
    note: str


@dataclass(frozen=True)
class ValueSamples:
    """The samples that a page lists.

    Attributes:
        sample_id: the ids of the test samples, sorted.
        target: their true values, (n, C).
        outputs: the answers of the best configuration, the mean over its runs, (n, C).
        errors: the errors of the rows, (n,).
        votes: stream -> the answers of the best configuration of this stream alone, (n, C), on the same samples.
        best: the label of the configuration with the best validation score.
        largest: the largest errors.
        gained: the samples whose error fusion reduced most against the best single stream.
        suspects: the samples of which a value or label may be wrong.
        single: the stream that fusion is compared with; an empty text without one.
        counts: the number of samples in each list, of which only the first are shown.
        problems: sentences on configurations whose predictions cannot be used.
    """

    sample_id: Sequence[str]
    target: Floats
    outputs: Floats
    errors: Floats
    votes: Mapping[str, Floats]
    best: str
    largest: Sequence[ListedValues]
    gained: Sequence[ListedValues]
    suspects: Sequence[ListedValues]
    single: str
    counts: Mapping[str, int]
    problems: Sequence[str] = field(default_factory=tuple)

    @property
    def lists(self) -> dict[str, Sequence[ListedValues]]:
        """The name of each list -> its samples."""
        return {"largest_errors": self.largest, "gained_by_fusion": self.gained, "may_be_wrong": self.suspects}

    def values_by_rank(self) -> dict[str, tuple[float, ...]]:
        """Return sample id -> true values in the order in which samples get pictures."""
        rows = [each.row for listed in self.lists.values() for each in listed]
        return {self.sample_id[row]: tuple(self.target[row].tolist()) for row in rows}


def gather_value_samples(results: Results, runs: Path) -> ValueSamples | None:
    """Read the answers of a report whose target has no classes; None for one with classes, or without predictions.

    Args:
        results: the configurations.
        runs: the folder of the saved runs.
    """
    kind = results.target.kind
    if results.target.has_classes:
        return None
    best, problems = results.ranked[0], []
    try:
        ids, target, outputs = _mean_answers(best, runs)
    except ResultsError:
        return None  # its scores have no interval either, and the page says so
    votes: dict[str, Floats] = {}
    ranked = [item for item in results.ranked if len(item.streams) == 1]
    for item in single_streams(results):
        if item.label == best.label:
            continue
        try:
            others, _, answers = _mean_answers(item, runs)
        except ResultsError as error:
            problems.append(f"The samples of {item.label} cannot be listed: {error}.")
            continue
        if np.array_equal(others, ids):
            votes[item.streams[0]] = answers
    single = next((item.streams[0] for item in ranked if item.streams[0] in votes), "")
    single = single if len(best.streams) > 1 else ""
    errors = row_errors(kind, target, outputs)
    gains = row_errors(kind, target, votes[single]) - errors if single else np.zeros(len(ids))
    suspects = find_suspects(kind, target, outputs, list(votes.values()))
    gained = [row for row in np.argsort(-gains, kind="stable").tolist() if gains[row] > 0]
    return ValueSamples(
        ids.tolist(),
        target,
        outputs,
        errors,
        votes,
        best.label,
        [
            ListedValues(row, f"error {format_score(errors[row], 2)}")
            for row in np.argsort(-errors, kind="stable").tolist()[:MOST_IN_GALLERY]
        ],
        [
            ListedValues(row, f"error {format_difference(-gains[row], 2)} against {single}")
            for row in gained[:MOST_IN_GALLERY]
        ],
        [
            ListedValues(each.row, _doubt(kind, results.classes[each.part], each.margin))
            for each in suspects[:MOST_IN_GALLERY]
        ],
        single,
        {"rows": len(ids), "gained": len(gained), "suspects": len(suspects)},
        problems,
    )


def _doubt(kind: str, part: str, margin: float) -> str:
    if kind == "regression":
        return f"{part}: {margin:.1f} robust standard deviations away"
    return f"{part}: other answer more probable by {format_score(margin, 2)}"


def _mean_answers(item: ReportedConfiguration, runs: Path) -> tuple[npt.NDArray[np.str_], Floats, Floats]:
    """Return the tested samples in order, their true values, and the mean of the answers over the runs."""
    parts = [read_test_predictions(run, runs) for run in item.runs]
    ids, first, place = np.unique(
        np.concatenate([part.sample_id for part in parts]), return_index=True, return_inverse=True
    )
    targets = [part.target for part in parts if part.target is not None]
    outputs = np.concatenate([part.outputs for part in parts]).astype(np.float64)
    total = np.zeros((len(ids), outputs.shape[1]))
    np.add.at(total, place, outputs)
    return ids, np.concatenate(targets)[first].astype(np.float64), total / np.bincount(place)[:, None]


def value_galleries(results: Results, samples: ValueSamples, pictures: Pictures | None) -> list[Gallery]:
    """Return the lists of samples that the page shows."""
    kind = results.target.kind

    def cards(listed: Sequence[ListedValues]) -> list[GalleryCard]:
        return [_card(results, samples, pictures, each) for each in listed]

    galleries = [
        Gallery(
            "Largest errors",
            (
                f"Of {samples.counts['rows']:,} test samples, those with the largest error of {samples.best} (the mean "
                f"of its runs). The error is {ERRORS[kind]}."
            ),
            cards(samples.largest),
        )
    ]
    if samples.gained:
        sentence = (
            f"The error of {samples.best} is smaller than that of {samples.single}, the best single stream by its "
            f"validation score, in {samples.counts['gained']:,} of {samples.counts['rows']:,} test samples; these gain "
            "most. Errors of two models differ by chance too."
        )
        galleries.append(Gallery("Samples that fusion improved most", sentence, cards(samples.gained)))
    if samples.suspects:
        galleries.append(Gallery("Values that may be wrong", _suspect_sentence(samples, kind), cards(samples.suspects)))
    return galleries


def _suspect_sentence(samples: ValueSamples, kind: str) -> str:
    count = samples.counts["suspects"]
    if kind == "multilabel":
        rule = "by confident learning for each label alone"
    else:
        agree = ", and in which every single stream errs in the same direction" if samples.votes else ""
        rule = f"with an error beyond three robust standard deviations{agree}"
    return (
        f"{count:,} true values of test samples that {samples.best} contradicts, {rule}, the clearest first. They are "
        "candidates to look at: most may be right."
    )


def _card(results: Results, samples: ValueSamples, pictures: Pictures | None, each: ListedValues) -> GalleryCard:
    name = samples.sample_id[each.row]
    has_labels = results.target.kind == "multilabel"
    decimals = [0 if has_labels else decimals_of(float(values.std())) for values in samples.target.T]

    def show(names: Sequence[str], values: Floats) -> str:
        return _named(names, values) if has_labels else _numbers(names, values, decimals)

    return GalleryCard(
        name,
        pictures.uris.get(name, "") if pictures else "",
        show(results.classes, samples.target[each.row]),
        show(results.classes, samples.outputs[each.row]),
        each.note,
        [(stream, show(results.classes, answers[each.row]), False) for stream, answers in samples.votes.items()],
        is_right=None,
        truth="Labels" if has_labels else "True values",
    )


def _named(names: Sequence[str], values: Floats) -> str:
    """Return the labels with a probability of at least 1/2; of answers with their probabilities."""
    named = [
        name if value in {0, 1} else f"{name} {format_score(float(value), 2)}"
        for name, value in zip(names, values, strict=True)
        if value >= 0.5
    ]
    return ", ".join(named) or "none"


def _numbers(names: Sequence[str], values: Floats, decimals: Sequence[int]) -> str:
    """Return numbers with as many decimals as the standard deviation of the column needs."""
    columns = zip(names, values, decimals, strict=True)
    return ", ".join(f"{name} {format_score(float(value), places)}" for name, value, places in columns)


def value_rows(results: Results, samples: ValueSamples) -> list[dict[str, Any]]:
    """Return one dict of plain numbers for each listed sample."""
    rows = []
    for name, listed in samples.lists.items():
        for each in listed:
            row: dict[str, Any] = {
                "list": name,
                "configuration": f"{samples.best} (mean over its runs)",
                "sample_id": samples.sample_id[each.row],
                "error": float(samples.errors[each.row]),
            }
            for place, part in enumerate(results.classes):
                row[f"true_{part}"] = float(samples.target[each.row, place])
                row[f"answer_{part}"] = float(samples.outputs[each.row, place])
                row |= {
                    f"answer_{part}_of_{stream}": float(answers[each.row, place])
                    for stream, answers in samples.votes.items()
                }
            rows.append(row)
    return rows
