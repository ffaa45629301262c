"""Confusion matrices as tables of the page, the samples behind their cells as JSON, and the galleries of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import format_score
from emofuse.report.page.pictures import Pictures
from emofuse.report.page.samples import SampleAnswers


@dataclass(frozen=True)
class MatrixCell:
    """One cell of a confusion matrix.

    Attributes:
        count: the number of test rows, summed over the runs.
        share: the share of the rows of the true class, from 0 to 1.
        key: the name of the cell in the samples of the page; an empty text if no samples are listed.
    """

    count: int
    share: float
    key: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        label: the label of the configuration.
        rows: the cells, the true class down and the answer across.
        totals: the number of test rows of each true class.
    """

    label: str
    rows: Sequence[Sequence[MatrixCell]]
    totals: Sequence[int]


@dataclass(frozen=True)
class GalleryCard:
    """One sample of a gallery.

    Attributes:
        sample_id: the id of the sample.
        picture: the thumbnail as WebP in base64; an empty text without one.
        true: the name of its class, or its true values.
        answer: the answer of the best configuration.
        confidence: the probability of this answer, or why the sample is listed.
        votes: (stream, answer, whether it is right) of each configuration of one stream.
        is_right: whether the answer is right; None where answers are more or less wrong.
        truth: the word before the class, or before the true values.
    """

    sample_id: str
    picture: str
    true: str
    answer: str
    confidence: str
    votes: Sequence[tuple[str, str, bool]]
    is_right: bool | None
    truth: str = "Label"


@dataclass(frozen=True)
class Gallery:
    """A gallery of samples with its heading and the sentence on how they were chosen."""

    title: str
    sentence: str
    cards: Sequence[GalleryCard]


def matrix_of(item: ReportedConfiguration, samples: SampleAnswers | None) -> Matrix:
    """Return the confusion matrix of a configuration as a table."""
    counts = item.confusion
    totals = counts.sum(axis=1).tolist()
    listed = samples.cells.get(item.label, {}) if samples else {}
    rows = [
        [
            MatrixCell(
                count,
                count / totals[true] if totals[true] else 0.0,
                f"{true},{predicted}" if (true, predicted) in listed else "",
            )
            for predicted, count in enumerate(line)
        ]
        for true, line in enumerate(counts.tolist())
    ]
    return Matrix(item.label, rows, totals)


def picture_note(pictures: Pictures | None) -> str:
    """Return the sentence on samples without a picture; an empty text if all have one."""
    return "Pictures were left out when this page was made." if pictures is None else pictures.note


def sample_data(results: Results, samples: SampleAnswers, pictures: Pictures | None) -> dict[str, Any]:
    """Return everything that the script needs to show the samples of a cell, as plain JSON."""
    uris = pictures.uris if pictures else {}
    return {
        "classes": list(results.classes),
        "ids": list(samples.sample_id),
        "true": list(samples.true),
        "pictures": {place: uris[name] for place, name in enumerate(samples.sample_id) if name in uris},
        "streams": [vote.stream for vote in samples.votes],
        "votes": [
            [answer[0] if (answer := vote.answers.get(name)) else -1 for vote in samples.votes]
            for name in samples.sample_id
        ],
        "cells": {
            label: {
                f"{true},{predicted}": [[one.sample, one.times, one.tested, round(one.confidence, 3)] for one in listed]
                for (true, predicted), listed in cells.items()
            }
            for label, cells in samples.cells.items()
        },
        "runs": {item.label: len(item.runs) for item in results.featured},
        "note": picture_note(pictures),
    }


def gallery(results: Results, samples: SampleAnswers, pictures: Pictures | None) -> list[Gallery]:
    """Return the most confident mistakes of the best configuration, and the samples that it alone gets right."""
    best = next(item for item in results.configurations if item.label == samples.best)
    of_all = "the mean of its runs" if len(best.runs) > 1 else "it"

    def cards(chosen: Sequence[tuple[int, int, float]]) -> list[GalleryCard]:
        return [_card(results, samples, pictures, each) for each in chosen]

    galleries = []
    if samples.mistakes:
        sentence = (
            f"Of the {samples.wrong:,} test samples that {samples.best} gets wrong ({of_all} answers each once), "
            "those whose wrong answer has the largest probability. Some may be wrong labels."
        )
        galleries.append(Gallery("Most confident mistakes", sentence, cards(samples.mistakes)))
    if samples.rescued:
        sentence = (
            f"{samples.alone:,} test samples are wrong by every single stream and right by {samples.best}; these have "
            "the largest probability. Of several models that guess, one is sometimes right where all others are wrong."
        )
        galleries.append(Gallery("Samples that fusion rescued", sentence, cards(samples.rescued)))
    return galleries


def _card(
    results: Results, samples: SampleAnswers, pictures: Pictures | None, listed: tuple[int, int, float]
) -> GalleryCard:
    sample, answer, confidence = listed
    name, true = samples.sample_id[sample], samples.true[sample]
    votes = [
        (vote.stream, results.classes[vote.answers[name][0]], vote.answers[name][0] == true)
        for vote in samples.votes
        if name in vote.answers
    ]
    return GalleryCard(
        name,
        pictures.uris.get(name, "") if pictures else "",
        results.classes[true],
        results.classes[answer],
        format_score(confidence, 2),
        votes,
        answer == true,
    )
