"""The answers of models of every subset of streams: solved in folds of a cache, or read from saved runs.

All subsets are treated alike. Solved models (`emofuse.analysis.solved_models`) choose penalty, kernels and kind of
fusion by exact leave-one-out predictions of the training rows. Saved runs are those whose options were chosen on
validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints, TestedConfiguration, TestedRows, read_tested
from emofuse.analysis.shapley import MOST_PLAYERS, Game, Subset
from emofuse.analysis.solved_outputs import SolvedOptions, solve_outputs
from emofuse.analysis.worth import SubsetAnswers
from emofuse.cache.reader import Cache
from emofuse.errors import ResultsError, TrainingError
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import join_some
from emofuse.specs import FeaturesSpec, OfficialSplit, SplitSpec, TargetSpec
from emofuse.statistics import RunPredictions
from emofuse.training.targets import THE_LABEL, WITH_CLASSES


@dataclass(frozen=True)
class SolvedAnswers:
    """The answers of solved models, with their probabilities.

    Attributes:
        subsets: the answers of every subset.
        rows: the rows of the cache that were answered, int64 (n,), in the order of the answers.
        probs: subset -> probabilities, float32 (n, C); nothing for no stream.
    """

    subsets: SubsetAnswers
    rows: Ints
    probs: Mapping[Subset, npt.NDArray[np.float32]]


def solve_subsets(
    cache: Cache,
    streams: Sequence[str] = (),
    options: SolvedOptions | None = None,
    *,
    features: FeaturesSpec | None = None,
    target: TargetSpec = THE_LABEL,
    only: Sequence[Subset] = (),
) -> SolvedAnswers:
    """Solve a model of every subset of the streams of a cache, and answer rows that it has not learned from.

    Args:
        cache: the cache.
        streams: the streams; all of the cache unless given.
        options: how models are solved.
        features: the derived features of the streams; the default ones unless given.
        target: what is learned; it must have classes.
        only: the subsets to solve; all unless given.

    Raises:
        TrainingError: too many streams, a target without classes, or features that do not fit the memory.
        IncompleteCacheError: blocks of a stream have not been computed yet.
    """
    if target.kind not in WITH_CLASSES:
        raise TrainingError(f"answers are classes, and the target is {target.kind}: see `solve_outputs`")
    solved = solve_outputs(cache, streams, options, features=features, target=target, only=only)
    label = solved.labels
    answers = {
        subset: [RunPredictions(solved.unit, label, each.argmax(axis=1))] for subset, each in solved.outputs.items()
    }
    subsets = SubsetAnswers(
        solved.streams,
        solved.names,
        answers,
        int(solved.unit.max()) + 1,
        solved.grouped,
        solved.models,
        solved.random_streams,
    )
    probs = {subset: each.astype(np.float32) for subset, each in solved.outputs.items() if subset}
    return SolvedAnswers(subsets, solved.rows, probs)


def official_test(cache: Cache) -> SplitSpec | None:
    """Return the dataset's own split if it has labelled test rows and rows to learn from; None otherwise."""
    tested = (cache.splits == "test") & (cache.labels >= 0)
    learned = np.isin(cache.splits, ["train", "val"]) & (cache.labels >= 0)
    return OfficialSplit() if tested.any() and learned.any() else None


def has_all_subsets(results: Results, streams: Sequence[str] = ()) -> bool:
    """Return whether every subset of the streams, or of all that any configuration has, has a run."""
    names = tuple(streams) or tuple(dict.fromkeys(name for item in results.configurations for name in item.streams))
    there = {frozenset(item.streams) for item in results.configurations}
    return 1 < len(names) <= MOST_PLAYERS and all(subset in there for subset in Game(names).subsets[1:])


def saved_subsets(
    results: Results, runs: Path, streams: Sequence[str] = (), *, cache: Cache | None = None
) -> SubsetAnswers:
    """Return the answers of saved runs of every subset of some streams, as a sweep over `streams: all` leaves them.

    Where several configurations have the same streams, the best by its validation score counts.

    Args:
        results: the configurations.
        runs: the folder of the runs.
        streams: the streams; all that any configuration has unless given.
        cache: the cache, for the most frequent class of the training rows; that of the test rows' labels is used
            without it.

    Raises:
        ResultsError: a subset has no run, or subsets were tested on different rows.
    """
    best: dict[Subset, ReportedConfiguration] = {}
    for item in results.ranked:
        best.setdefault(frozenset(item.streams), item)
    names = tuple(streams) or tuple(dict.fromkeys(name for item in results.configurations for name in item.streams))
    if len(names) > MOST_PLAYERS:
        raise ResultsError(f"{runs}: {len(names)} streams, at most {MOST_PLAYERS} are looked at. Name them: --streams")
    game = Game(names)
    absent = [subset for subset in game.subsets[1:] if subset not in best]
    if absent:
        shown = join_some(" + ".join(sorted(subset)) for subset in absent)
        raise ResultsError(
            f"{runs}: {len(absent)} of {len(game.subsets) - 1} subsets of the streams have no run ({shown}). Train all "
            "of them (factor `streams: all` of a sweep), or have all subsets solved on the cache: emofuse explain CACHE"
        )
    tested = dict(zip(game.subsets[1:], read_tested([best[each] for each in game.subsets[1:]], runs), strict=True))
    first = next(iter(tested.values()))
    if any(_rows_of(each) != _rows_of(first) for each in tested.values()):
        raise ResultsError(f"{runs}: the subsets were tested on different rows, so that they cannot be compared")
    answers: dict[Subset, Sequence[RunPredictions]] = {
        subset: [rows.predictions() for rows in each.repeats] for subset, each in tested.items()
    }
    answers[frozenset()] = [rows.predictions(_majority(rows, cache)) for rows in first.repeats]
    return SubsetAnswers(
        names,
        first.classes,
        answers,
        first.units,
        first.grouped,
        "Models are the trained heads of each subset, the best by validation score where there are several.",
        tuple(dict.fromkeys(name for each in tested.values() for name in each.item.random_streams)),
    )


def _rows_of(tested: TestedConfiguration) -> list[frozenset[str]]:
    return sorted((frozenset(rows.sample_id.tolist()) for rows in tested.repeats), key=sorted)


def _majority(rows: TestedRows, cache: Cache | None) -> Ints:
    """Return, for each tested row, the most frequent class of the rows that its run did not test."""
    found = np.empty(len(rows.label), np.int64)
    for _, places in rows.parts:
        known = rows.label[places]
        if cache is not None:
            others = ~np.isin(cache.sample_ids, rows.sample_id[places]) & (cache.labels >= 0)
            known = cache.labels[others] if others.any() else known
        found[places] = np.bincount(known).argmax()
    return found
