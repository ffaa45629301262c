"""Makes the sections of an analysis that a source allows, and writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from emofuse.analysis.answers import TestedConfiguration, read_tested
from emofuse.analysis.planted import planted_worth
from emofuse.analysis.sections.suppression import suppression_section
from emofuse.analysis.sections.worth import worth_section
from emofuse.analysis.sources import Source, open_source
from emofuse.analysis.subsets import (
    SolvedAnswers,
    SolvedOptions,
    has_all_subsets,
    official_test,
    saved_subsets,
    solve_subsets,
)
from emofuse.analysis.suppression import SuppressionOptions, suppress_streams
from emofuse.analysis.worth import measure_worth
from emofuse.analysis.write import write_analysis
from emofuse.cache.reader import Cache
from emofuse.errors import ResultsError, did_you_mean
from emofuse.report.analysis import AnalysisSection
from emofuse.specs import RunSpec, parse_spec
from emofuse.statistics import Resampling
from emofuse.training.targets import THE_LABEL

Say = Callable[[str], None]
OF_RUNS = ("worth", "suppression")
OF_CACHES = ("worth",)
PARTS: tuple[str, ...] = tuple(dict.fromkeys((*OF_CACHES, *OF_RUNS)))
"""The parts of an analysis by name."""


@dataclass(frozen=True)
class ExplainOptions:
    """The options of an analysis.

    Attributes:
        parts: the names of the parts (`PARTS`); all that the source allows unless given.
        configuration: the name of the configuration to look at; the best by its validation score unless given.
        cache: the cache of the runs; looked for beside them unless given.
        out: the folder of the analysis; beside the source unless given.
        streams: the streams whose worth is measured; those of the configuration, or all of the cache, unless given.
        rows: `test` answers the test rows of the dataset's split, `folds` every row in outer folds; by default the
            rows that the runs have tested, or of a cache the test rows, if there are some.
        folds: the number of outer folds.
        draws: the number of shuffles of each kind.
        seed: the seed of all draws.
        resamples: the number of bootstrap resamples.
        device: the device of the heads.
    """

    parts: Sequence[str] = ()
    configuration: str | None = None
    cache: Path | None = None
    out: Path | None = None
    streams: Sequence[str] = ()
    rows: Literal["test", "folds"] | None = None
    folds: int = 5
    draws: int = 10
    seed: int = 0
    resamples: int = 2_000
    device: str = "cpu"


def explain(path: Path, options: ExplainOptions, say: Say = lambda _: None) -> tuple[Path, list[AnalysisSection]]:
    """Analyse a run, a folder of runs or a cache, and write the tables and figures.

    Args:
        path: what is analysed, see `open_source`.
        options: the options.
        say: receives a line on parts that the source does not allow.

    Returns:
        The written `analysis.json`, and the sections that were made.

    Raises:
        EmofuseError: an unknown part, or a source that cannot be read.
    """
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        hint = did_you_mean(unknown[0], PARTS)
        raise ResultsError(f"no part {unknown[0]!r} of an analysis{hint} (there are: {', '.join(PARTS)})")
    source = open_source(path, cache=options.cache, configuration=options.configuration)
    sections = list(_sections(source, options, say))
    runs = [] if source.chosen is None else [run.digest for run in source.chosen.runs]
    written = write_analysis(options.out or source.out, sections, runs=runs, source=source.identity)
    return written, sections


def _sections(source: Source, options: ExplainOptions, say: Say) -> Iterator[AnalysisSection]:
    allowed = OF_CACHES if source.runs is None else OF_RUNS
    for part in options.parts or allowed:
        if part not in allowed:
            say(f"{part}: needs saved runs, {source.path} is a cache")
            continue
        yield from _MAKERS[part](source, options)


def _tested(source: Source) -> tuple[TestedConfiguration, Path]:
    if source.chosen is None or source.runs is None:
        raise ResultsError(f"{source.path}: no runs in it")
    (tested,) = read_tested([source.chosen], source.runs)
    return tested, source.runs


def _suppression(source: Source, options: ExplainOptions) -> Iterator[AnalysisSection]:
    tested, runs = _tested(source)
    how = SuppressionOptions(options.draws, options.seed, options.resamples)
    cache = source.need_cache("suppressing streams")
    yield suppression_section(tested, suppress_streams(cache, runs, tested, how, device=options.device))


def _worth(source: Source, options: ExplainOptions) -> Iterator[AnalysisSection]:
    """Measure the worth of streams on saved runs of all subsets if there are any, and else on solved models."""
    answers = None
    if source.results is not None and source.runs is not None and has_all_subsets(source.results, options.streams):
        answers = saved_subsets(source.results, source.runs, options.streams, cache=source.cache)
    if answers is None:
        answers = _solved(source, options).subsets
    planted = None
    if source.cache is not None:
        kinds = {name: stream.kind for name, stream in source.cache.streams.items()}
        planted = planted_worth(source.cache.manifest.info, answers.streams, kinds)
    yield worth_section(measure_worth(answers, Resampling(options.resamples, options.seed)), planted)


def _solved(source: Source, options: ExplainOptions) -> SolvedAnswers:
    cache = source.need_cache("solving models of all subsets")
    streams, features, target = tuple(options.streams), None, THE_LABEL
    if source.chosen is not None:
        spec = parse_spec(RunSpec, dict(source.chosen.spec), source.chosen.label)
        streams, features, target = streams or source.chosen.streams, spec.features, spec.target
    return solve_subsets(cache, streams, _how(cache, source, options), features=features, target=target)


def _how(cache: Cache, source: Source, options: ExplainOptions) -> SolvedOptions:
    """Return how subsets are solved: on the rows that the runs tested, as far as one split has them."""
    plain = SolvedOptions(folds=options.folds, seed=options.seed)
    if options.rows == "folds":
        return plain
    own = source.chosen.spec["split"] if source.chosen is not None else None
    if options.rows is None and own is not None:
        if own["kind"] == "outer_folds":
            return replace(plain, folds=own["count"], seed=own["seed"])
        run = parse_spec(RunSpec, dict(source.chosen.spec), source.chosen.label) if source.chosen else None
        return replace(plain, split=run.split if run else None)
    split = official_test(cache)
    if split is None and options.rows == "test":
        raise ResultsError(f"{cache.path}: the dataset's split has no test rows with a label; use --rows folds")
    return replace(plain, split=split)


_MAKERS: dict[str, Callable[[Source, ExplainOptions], Iterator[AnalysisSection]]] = {
    "worth": _worth,
    "suppression": _suppression,
}
