"""Makes the sections of an analysis that a source allows, and writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.analysis.attributes import find_subgroups, people_of
from emofuse.analysis.attributions import attribute_streams
from emofuse.analysis.categories import find_layers, link_categories
from emofuse.analysis.context import Analysis, ExplainOptions, Say
from emofuse.analysis.feature_space import map_features
from emofuse.analysis.mistakes import find_label_noise, find_rescued
from emofuse.analysis.planted import planted_worth, read_worth
from emofuse.analysis.samples import ExplainedSample, explain_sample
from emofuse.analysis.sections.attributions import attributions_section
from emofuse.analysis.sections.calibration import calibration_section
from emofuse.analysis.sections.feature_space import feature_space_section
from emofuse.analysis.sections.samples import label_noise_section, mistakes_section
from emofuse.analysis.sections.subgroups import SubgroupComparison, fairness_section, subgroups_section
from emofuse.analysis.sections.suppression import suppression_section
from emofuse.analysis.sections.value_samples import value_mistakes_section, value_noise_section
from emofuse.analysis.sections.worth import worth_section
from emofuse.analysis.sources import open_source
from emofuse.analysis.subgroups import compare_in_subgroups, measure_fairness
from emofuse.analysis.subsets import has_all_subsets, saved_subsets
from emofuse.analysis.suppression import SuppressionOptions, suppress_streams
from emofuse.analysis.temperatures import calibrated_answers
from emofuse.analysis.worth import measure_worth
from emofuse.analysis.write import write_analysis
from emofuse.errors import ResultsError, did_you_mean
from emofuse.metrics.weighted import RowScorer
from emofuse.progress import step
from emofuse.report.analysis import AnalysisSection
from emofuse.results import check_results_folder

Floats = npt.NDArray[np.float64]
__all__ = ["PARTS", "ExplainOptions", "explain", "explain_samples"]

_MOST_SUBSETS_FOR_SUBGROUPS = 8  # streams that are left out one by one


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
    analysis = Analysis(source, options, say)
    runs = [] if source.chosen is None else [run.digest for run in source.chosen.runs]
    out, sections = options.out or source.out, []
    check_results_folder(out)  # before minutes of work
    if not analysis.has_classes:
        options = _without_classes(analysis, say)
    written = out / "analysis.json"
    for part in options.parts or PARTS:
        if source.runs is None and part not in _OF_CACHES:
            if options.parts:
                say(f"{part}: left out, it needs saved runs and {source.path} is a cache")
            continue
        if source.cache is None and part not in _WITHOUT_CACHE and not options.parts:
            say(f"{part}: left out, there is no cache beside the runs; name it with --cache")
            continue
        with step(part.replace("_", " ")):
            made = list(_MAKERS[part](analysis))
        # Written at once, so that an error in a later part loses nothing.
        written = write_analysis(out, made, runs=runs, source=source.identity)
        sections += made
    return written, sections


def _without_classes(analysis: Analysis, say: Say) -> ExplainOptions:
    """Return the options with the parts that runs without classes allow.

    Raises:
        ResultsError: other parts were asked for.
    """
    kind = analysis.spec.target.kind
    wanted = tuple(analysis.options.parts) or PARTS
    lacking = [part for part in wanted if part in _NOT_OF[kind]]
    if lacking:
        reasons = "; ".join(f"{part} {_NOT_OF[kind][part]}" for part in lacking)
        if analysis.options.parts:
            raise ResultsError(
                f"{', '.join(lacking)}: not possible, {analysis.chosen.label} predicts {kind}: {reasons}"
            )
        say(f"{', '.join(lacking)}: left out, {analysis.chosen.label} predicts {kind}: {reasons}")
    return replace(analysis.options, parts=tuple(part for part in wanted if part not in lacking))


def explain_samples(
    path: Path,
    options: ExplainOptions,
    sample_ids: Sequence[str],
    *,
    image_root: Path | None = None,
    explained: str | None = None,
    images: bool = True,
) -> Iterator[ExplainedSample]:
    """Explain the answers to single samples, and write them below the folder of the analysis.

    Args:
        path: a run or a folder of runs.
        options: the options; `parts` plays no role.
        sample_ids: the ids of the samples.
        image_root: the folder of the pictures; that of the cache's manifest unless given.
        explained: the class, column or label whose score is explained; the answer, or the first column, unless given.
        images: whether the pictures of the samples are drawn.

    Raises:
        EmofuseError: a source that cannot be read, or no such sample or class.
    """
    source = open_source(path, cache=options.cache, configuration=options.configuration)
    analysis = Analysis(source, options)
    for sample_id in sample_ids:
        yield explain_sample(
            analysis, sample_id, options.out or source.out, image_root=image_root, explained=explained, images=images
        )


def _worth(analysis: Analysis) -> Iterator[AnalysisSection]:
    """Measure the worth of streams on saved runs of all subsets if there are any, and else on solved models."""
    source, options = analysis.source, analysis.options
    if source.results is not None and has_all_subsets(source.results, options.streams):
        answers = saved_subsets(source.results, analysis.runs, options.streams, cache=source.cache)
    else:
        answers = analysis.solved.subsets
    planted = read = None
    if source.cache is not None:
        kinds = {name: stream.kind for name, stream in source.cache.streams.items()}
        planted = planted_worth(source.cache.manifest.info, answers.streams, kinds)
        read = read_worth(analysis.solved, source.cache) if planted and answers is analysis.solved.subsets else None
    yield worth_section(measure_worth(answers, options.resampling), planted, read)


def _suppression(analysis: Analysis) -> Iterator[AnalysisSection]:
    options, tested = analysis.options, analysis.answered
    how = SuppressionOptions(options.draws, options.seed, options.resamples)
    cache = analysis.source.need_cache("suppressing streams")
    yield suppression_section(tested, suppress_streams(cache, analysis.runs, tested, how, device=options.device))


def _subgroups(analysis: Analysis) -> Iterator[AnalysisSection]:
    """Compare the configuration with the baseline, and all streams with all but one, in each subgroup."""
    comparisons: list[SubgroupComparison] = []
    left_out: list[str] = []
    scoring = analysis.scoring
    classes = analysis.classes if analysis.has_classes else ()  # rows without a class form no subgroups of it
    own = () if analysis.has_classes else analysis.classes
    cache, results = analysis.source.cache, analysis.source.results
    if results is not None and results.baseline.label != analysis.label and results.baseline.label in analysis.tested:
        baseline, mean = analysis.tested[results.baseline.label], analysis.mean
        groups, left_out = find_subgroups(classes, mean.label, cache, analysis.rows, without=own)
        both = (analysis.answered, baseline)
        first, second = (
            analysis.right(each) if analysis.has_classes else scoring.main_scorer(each.scored(each.mean))
            for each in both
        )
        compared = compare_in_subgroups(groups, first, second, mean.unit, analysis.options.resampling)
        sentence = f"{analysis.label} minus {results.baseline.label}."
        comparisons.append(SubgroupComparison(f"{analysis.label} over {results.baseline.label}", sentence, compared))
    if cache is not None and 1 < len(analysis.options.streams or _streams(analysis)) <= _MOST_SUBSETS_FOR_SUBGROUPS:
        solved = analysis.solved
        streams = solved.subsets.streams
        groups, left_out = find_subgroups(classes, solved.label, cache, solved.rows, without=own)

        def scored(outputs: Floats) -> RowScorer:
            return scoring.main_scorer(scoring.prepare(solved.unit, solved.label, outputs, solved.target))

        for name in streams:
            other = scored(solved.of(frozenset(streams) - {name}))
            compared = compare_in_subgroups(
                groups, scored(solved.everything), other, solved.unit, analysis.options.resampling
            )
            sentence = "Of each stream: the solved model of all streams minus that without it."
            comparisons.append(SubgroupComparison(name, sentence, compared))
    if comparisons and comparisons[0].subgroups:
        yield subgroups_section(comparisons, grouped=analysis.grouped, left_out=left_out, score=scoring.scores[0].name)
    else:
        analysis.say("subgroups: left out, there is neither a second configuration nor a cache of several streams")


def _streams(analysis: Analysis) -> tuple[str, ...]:
    if analysis.source.chosen is not None:
        return analysis.chosen.streams
    return tuple(analysis.source.need_cache("streams").streams)


def _fairness(analysis: Analysis) -> Iterator[AnalysisSection]:
    cache, rows = analysis.source.cache, analysis.rows
    attributes = [] if cache is None or rows is None else people_of(cache, rows)
    if not attributes:
        if analysis.options.parts:
            analysis.say("fairness: left out, no column of the manifest names people, their sex or their age")
        return
    yield fairness_section(
        analysis.label,
        [
            measure_fairness(groups, analysis.mean, analysis.scoring, analysis.options.resampling)
            for groups in attributes
        ],
        analysis.scoring,
    )


def _calibration(analysis: Analysis) -> Iterator[AnalysisSection]:
    yield calibration_section(analysis.label, calibrated_answers(analysis), analysis.options.resampling)


def _others(analysis: Analysis) -> dict[str, Floats]:
    """Return the answers of single streams, of their configurations or of solved models, or else of the baseline."""
    if analysis.source.chosen is not None:
        single = {label: each for label, each in analysis.tested.items() if len(each.item.streams) == 1}
        single.pop(analysis.label, None)
        used = {name for each in single.values() for name in each.item.streams}
        # A class is rescued from all streams, and an error is compared with the best of those that have models.
        enough = used >= set(analysis.chosen.streams) if analysis.has_classes else bool(used)
        if len(analysis.chosen.streams) > 1 and enough:
            return {label: each.mean.outputs for label, each in single.items()}
        baseline = analysis.source.results.baseline.label if analysis.source.results else ""
        if baseline in analysis.tested and baseline != analysis.label:
            return {baseline: analysis.tested[baseline].mean.outputs}
    elif len(analysis.solved.subsets.streams) > 1:
        return {name: analysis.solved.of(frozenset({name})) for name in analysis.solved.subsets.streams}
    return {}


def _mistakes(analysis: Analysis) -> Iterator[AnalysisSection]:
    """List mistakes, and compare with single streams."""
    others, mean = _others(analysis), analysis.mean
    if not analysis.has_classes:
        ranked = analysis.source.results.ranked if analysis.source.results else ()
        single = next((item.label for item in ranked if item.label in others), "")
        kind = analysis.scoring.kind
        yield value_mistakes_section(
            analysis.label, kind, mean, names=analysis.classes, paths=analysis.paths, others=others, single=single
        )
        return
    rescue = find_rescued(mean.outputs, others, mean.label) if others else None
    yield mistakes_section(
        analysis.label, mean, classes=analysis.classes, paths=analysis.paths, rescue=rescue, others=list(others)
    )


def _label_noise(analysis: Analysis) -> Iterator[AnalysisSection]:
    mean, cache = analysis.mean, analysis.source.cache
    if not analysis.has_classes:
        others, kind = list(_others(analysis).values()), analysis.scoring.kind
        yield value_noise_section(
            analysis.label, kind, mean, names=analysis.classes, paths=analysis.paths, others=others
        )
        return
    noise = find_label_noise(mean.outputs, mean.label)
    whole = cache is not None and len(mean.label) >= int((cache.labels >= 0).sum())
    yield label_noise_section(analysis.label, mean, noise, classes=analysis.classes, paths=analysis.paths, whole=whole)


def _attributions(analysis: Analysis) -> Iterator[AnalysisSection]:
    options, tested = analysis.options, analysis.answered
    cache = analysis.source.need_cache("attributions")
    found = attribute_streams(
        cache, analysis.runs, tested, most_rows=options.most_rows, seed=options.seed, device=options.device
    )
    layers, notes = find_layers(cache, tested.repeats[0].runs[0]) if analysis.has_classes else ({}, [])
    categories = link_categories(
        cache,
        analysis.runs,
        tested,
        layers,
        most_rows=options.most_rows,
        resampling=options.resampling,
        device=options.device,
    )
    yield attributions_section(tested, found, categories, notes)


def _feature_space(analysis: Analysis) -> Iterator[AnalysisSection]:
    options, tested = analysis.options, analysis.answered
    cache = analysis.source.need_cache("maps of features")
    found = map_features(
        cache,
        analysis.runs,
        tested,
        most_rows=options.most_rows,
        seed=options.seed,
        device=options.device,
        umap=options.umap,
    )
    if found.spaces:
        yield feature_space_section(tested, found)


_MAKERS: dict[str, Callable[[Analysis], Iterator[AnalysisSection]]] = {
    "worth": _worth,
    "suppression": _suppression,
    "subgroups": _subgroups,
    "fairness": _fairness,
    "calibration": _calibration,
    "mistakes": _mistakes,
    "label_noise": _label_noise,
    "attributions": _attributions,
    "feature_space": _feature_space,
}
PARTS: tuple[str, ...] = tuple(_MAKERS)
"""The names of the parts of an analysis."""
_NOT_OF = {
    "regression": {"calibration": "needs probabilities", "feature_space": "needs rows with a class"},
    "multilabel": {"feature_space": "needs rows with a class"},
}
"""Kind of a target without classes -> the parts that it has not, and why."""
_OF_CACHES = ("worth", "subgroups", "fairness", "calibration", "mistakes", "label_noise")
_WITHOUT_CACHE = ("calibration", "mistakes", "label_noise")
