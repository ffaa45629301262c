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
from emofuse.analysis.scoring import ScoredAnswers, Scoring
from emofuse.analysis.shapley import MOST_PLAYERS, Game, Subset
from emofuse.analysis.solved_outputs import SolvedOptions, solve_outputs
from emofuse.analysis.worth import SubsetAnswers
from emofuse.cache.reader import Cache
from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import join_some
from emofuse.specs import FeaturesSpec, OfficialSplit, RunSpec, SplitSpec, TargetSpec, parse_spec
from emofuse.training.rows import targets_of
from emofuse.training.targets import THE_LABEL

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SolvedAnswers:
    """The answers of solved models, with their outputs.

    Attributes:
        subsets: the answers of every subset.
        rows: the rows of the cache that were answered, int64 (n,), in the order of the answers.
        unit: the unit of each row that resamples draw, int64 (n,).
        label: the true classes, int64 (n,); no matter without classes.
        target: the true values, float64 (n, C); None for classes.
        outputs: subset -> probabilities or values, float32 (n, C); nothing for no stream.
    """

    subsets: SubsetAnswers
    rows: Ints
    unit: Ints
    label: Ints
    target: Floats | None
    outputs: Mapping[Subset, npt.NDArray[np.float32]]

    @property
    def everything(self) -> Floats:
        """The outputs of the model of all streams, (n, C)."""
        return self.of(frozenset(self.subsets.streams))

    def of(self, subset: Subset) -> Floats:
        """Return the outputs of the model of a subset, float64 (n, C)."""
        return self.outputs[subset].astype(np.float64)


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
        target: what is learned.
        only: the subsets to solve; all unless given.

    Raises:
        TrainingError: too many streams, or features that do not fit the memory.
        IncompleteCacheError: blocks of a stream have not been computed yet.
    """
    solved = solve_outputs(cache, streams, options, features=features, target=target, only=only)
    scoring = Scoring(target.kind, solved.names)
    answers = {
        subset: [scoring.prepare(solved.unit, solved.labels, each, solved.values)]
        for subset, each in solved.outputs.items()
    }
    subsets = SubsetAnswers(
        solved.streams,
        scoring,
        answers,
        int(solved.unit.max()) + 1,
        solved.grouped,
        solved.models,
        solved.random_streams,
    )
    outputs = {subset: each.astype(np.float32) for subset, each in solved.outputs.items() if subset}
    return SolvedAnswers(subsets, solved.rows, solved.unit, solved.labels, solved.values, outputs)


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
        cache: the cache, for the most frequent class or the mean of the training rows; that of the test rows is used
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
    answers: dict[Subset, Sequence[ScoredAnswers]] = {
        subset: [each.scored(rows) for rows in each.repeats] for subset, each in tested.items()
    }
    answers[frozenset()] = [first.scored(rows, _of_no_stream(first, rows, cache)) for rows in first.repeats]
    return SubsetAnswers(
        names,
        first.scoring,
        answers,
        first.units,
        first.grouped,
        "Models are the trained heads of each subset, the best by validation score where there are several.",
        tuple(dict.fromkeys(name for each in tested.values() for name in each.item.random_streams)),
    )


def _rows_of(tested: TestedConfiguration) -> list[frozenset[str]]:
    return sorted((frozenset(rows.sample_id.tolist()) for rows in tested.repeats), key=sorted)


def _of_no_stream(tested: TestedConfiguration, rows: TestedRows, cache: Cache | None) -> Floats:
    """Return, for each tested row, the most frequent class or the mean of the rows that its run did not test."""
    found = np.zeros_like(rows.outputs)
    spec = parse_spec(RunSpec, dict(tested.item.spec), tested.label)
    targets = None if cache is None else targets_of(cache, spec.target)
    for _, places in rows.parts:
        known = None if targets is None or cache is None else ~np.isin(cache.sample_ids, rows.sample_id[places])
        if tested.item.target.has_classes:
            labels = rows.label[places]
            if targets is not None and known is not None and (known & (targets.labels >= 0)).any():
                labels = targets.labels[known & (targets.labels >= 0)]
            found[places, np.bincount(labels).argmax()] = 1.0
        elif rows.target is not None:
            values = rows.target[places]
            if targets is not None and targets.values is not None and known is not None:
                there = known & np.isfinite(targets.values).all(axis=1)
                values = targets.values[there] if there.any() else values
            found[places] = values.mean(axis=0)
    return found
