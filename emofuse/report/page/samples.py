"""The samples behind a confusion matrix: their answers, how sure they were, and what single streams answered.

A configuration with several runs may answer a sample differently in each. Such a sample stands in the cell of each
answer, with the number of runs that gave it, so that the numbers of a cell sum to the count of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.predictions import read_test_predictions

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_IN_CELL = 20
"""The largest number of samples that a cell lists."""
MOST_LISTED = 12_000
"""The largest number of samples that all cells of a page list, about 300 kB."""
MOST_BUTTONS = 4_000
"""The largest number of cells of all matrices that are HTML tables; further matrices are figures alone."""
MOST_IN_GALLERY = 12


@dataclass(frozen=True)
class ListedAnswer:
    """One answer to one sample.

    Attributes:
        sample: the number of the sample among those of the page.
        times: the number of runs that gave this answer.
        tested: the number of runs that tested the sample.
        confidence: the mean probability of the answer in these runs.
    """

    sample: int
    times: int
    tested: int
    confidence: float


@dataclass(frozen=True)
class Vote:
    """The answers of a configuration of one stream.

    Attributes:
        stream: the name of the stream.
        label: the label of the configuration.
        answers: sample id -> (class, mean probability over the runs that tested it).
    """

    stream: str
    label: str
    answers: Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class SampleAnswers:
    """The samples that a page lists, with the answers to them.

    Attributes:
        sample_id: the ids of the samples.
        true: the class of each sample.
        cells: label of a configuration -> (true class, answer) -> its samples, the most confident answers first.
        votes: the configurations of one stream.
        mistakes: the most confident mistakes of the best configuration: (sample, answer, confidence).
        rescued: samples that the best configuration alone gets right, the most probable first.
        wrong: the number of samples that the best configuration gets wrong.
        alone: the number of samples that the best configuration alone gets right.
        best: the label of the configuration with the best validation score.
        problems: sentences on configurations whose predictions cannot be used.
    """

    sample_id: Sequence[str]
    true: Sequence[int]
    cells: Mapping[str, Mapping[tuple[int, int], Sequence[ListedAnswer]]]
    votes: Sequence[Vote]
    best: str
    mistakes: Sequence[tuple[int, int, float]] = ()
    rescued: Sequence[tuple[int, int, float]] = ()
    wrong: int = 0
    alone: int = 0
    problems: Sequence[str] = field(default_factory=tuple)

    def classes_by_rank(self, classes: Sequence[str]) -> dict[str, str]:
        """Return sample id -> class in the order in which samples get pictures.

        Those of the galleries come first, then the first sample of each cell, then the second, and so on.
        """
        first = [sample for sample, _, _ in (*self.mistakes, *self.rescued)]
        lists = [listed for of_item in self.cells.values() for listed in of_item.values()]
        ranked = [listed[place].sample for place in range(MOST_IN_CELL) for listed in lists if place < len(listed)]
        return {self.sample_id[sample]: classes[self.true[sample]] for sample in [*first, *ranked]}


_Gallery = list[tuple[str, int, int, float]]


@dataclass(frozen=True)
class _Answers:
    """All answers of one configuration: one for each run and tested sample, (n,) each."""

    sample_id: npt.NDArray[np.str_]
    true: Ints
    predicted: Ints
    confidence: Floats
    mean: Mapping[str, tuple[int, int, float]]


def gather_samples(results: Results, runs: Path) -> SampleAnswers | None:
    """Read the answers behind the confusion matrices of a report; None if the target has no classes.

    Args:
        results: the configurations.
        runs: the folder of the saved runs.
    """
    if not results.target.has_classes:
        return None
    best = results.ranked[0]
    with_matrix = shown_matrices(results)
    voters = single_streams(results)
    read: dict[str, _Answers] = {}
    problems = []
    for item in {each.label: each for each in (*with_matrix, *voters, best)}.values():
        try:
            read[item.label] = _read(item, runs)
        except ResultsError as error:
            problems.append(f"The samples of {item.label} cannot be listed: {error}.")
    numbers: dict[str, int] = {}
    true: list[int] = []

    def number(sample: str, label: int) -> int:
        if sample not in numbers:
            numbers[sample] = len(numbers)
            true.append(label)
        return numbers[sample]

    votes = [
        Vote(item.streams[0], item.label, {key: each[1:] for key, each in read[item.label].mean.items()})
        for item in voters
        if item.label in read
    ]
    mistakes, rescued, wrong, alone = _galleries(read.get(best.label), best, votes)

    def numbered(gallery: _Gallery) -> list[tuple[int, int, float]]:
        return [(number(sample, label), answer, sure) for sample, label, answer, sure in gallery]

    shown = numbered(mistakes), numbered(rescued)
    filled = sum(int(np.count_nonzero(item.confusion)) for item in with_matrix)
    most = max(3, min(MOST_IN_CELL, MOST_LISTED // max(1, filled)))
    cells = {
        item.label: _cells(read[item.label], len(results.classes), most, number)
        for item in with_matrix
        if item.label in read
    }
    return SampleAnswers(
        sample_id=list(numbers),
        true=true,
        cells=cells,
        votes=votes,
        best=best.label,
        mistakes=shown[0],
        rescued=shown[1],
        wrong=wrong,
        alone=alone,
        problems=problems,
    )


def shown_matrices(results: Results) -> list[ReportedConfiguration]:
    """Return the configurations whose confusion matrix is a table of the page, as far as all cells are not too many."""
    if not results.target.has_classes:
        return []
    return list(results.featured[: MOST_BUTTONS // len(results.classes) ** 2])


def single_streams(results: Results) -> list[ReportedConfiguration]:
    """Return for each stream the configuration of it alone with the best validation score."""
    of_stream: dict[str, ReportedConfiguration] = {}
    for item in results.ranked:
        if len(item.streams) == 1:
            of_stream.setdefault(item.streams[0], item)
    order = dict.fromkeys(name for item in results.configurations for name in item.streams)
    return [of_stream[name] for name in order if name in of_stream]


def _read(item: ReportedConfiguration, runs: Path) -> _Answers:
    parts = [read_test_predictions(run, runs) for run in item.runs]
    sample_id = np.concatenate([part.sample_id for part in parts])
    true = np.concatenate([part.label for part in parts]).astype(np.int64)
    probs = np.concatenate([part.outputs for part in parts]).astype(np.float64)
    predicted = probs.argmax(axis=1).astype(np.int64)
    names, place = np.unique(sample_id, return_inverse=True)
    total = np.zeros((len(names), probs.shape[1]))
    np.add.at(total, place, probs)
    mean = total / np.bincount(place)[:, None]
    label = np.zeros(len(names), dtype=np.int64)
    label[place] = true
    answer = mean.argmax(axis=1)
    rows = zip(names.tolist(), label.tolist(), answer.tolist(), mean.max(axis=1).tolist(), strict=True)
    return _Answers(
        sample_id,
        true,
        predicted,
        probs[np.arange(len(probs)), predicted],
        {name: (its_label, its_answer, sure) for name, its_label, its_answer, sure in rows},
    )


def _cells(
    answers: _Answers, classes: int, most: int, number: Callable[[str, int], int]
) -> dict[tuple[int, int], list[ListedAnswer]]:
    """Return the samples of each cell, at most `most`, the most confident answers first."""
    names, place = np.unique(answers.sample_id, return_inverse=True)
    tested = np.bincount(place)
    cell = answers.true * classes + answers.predicted
    keys, group = np.unique(cell * len(names) + place, return_inverse=True)
    times = np.bincount(group)
    confidence = np.bincount(group, weights=answers.confidence) / times
    of_cell, of_name = keys // len(names), keys % len(names)
    order = np.lexsort((of_name, -np.round(confidence, 6), of_cell))
    cells: dict[tuple[int, int], list[ListedAnswer]] = {}
    for at in order.tolist():
        true, predicted = divmod(int(of_cell[at]), classes)
        listed = cells.setdefault((true, predicted), [])
        if len(listed) < most:
            sample = int(of_name[at])
            listed.append(
                ListedAnswer(
                    number(str(names[sample]), true), int(times[at]), int(tested[sample]), float(confidence[at])
                )
            )
    return cells


def _galleries(
    best: _Answers | None, item: ReportedConfiguration, votes: Sequence[Vote]
) -> tuple[_Gallery, _Gallery, int, int]:
    """Return the most confident mistakes and the rescued samples of a configuration, and the number of both."""
    if best is None:
        return [], [], 0, 0
    order = sorted(best.mean.items(), key=lambda pair: (-round(pair[1][2], 6), pair[0]))
    wrong = [(name, *answer) for name, answer in order if answer[0] != answer[1]]
    alone = []
    if len(item.streams) > 1 and len(votes) > 1:
        alone = [
            (name, *answer)
            for name, answer in order
            if answer[0] == answer[1]
            and all(name in vote.answers and vote.answers[name][0] != answer[0] for vote in votes)
        ]
    return wrong[:MOST_IN_GALLERY], alone[:MOST_IN_GALLERY], len(wrong), len(alone)
