"""The overview of the page in three sentences: what was trained, what is best, and whether it is really better."""

from __future__ import annotations

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results, Spread
from emofuse.report.foreign import evaluation_of
from emofuse.report.formats import (
    format_difference,
    format_interval,
    format_p,
    format_range,
    format_score,
    format_sd,
    join_some,
)
from emofuse.report.search import SELECTS
from emofuse.report.targets import ShownScore
from emofuse.report.uncertainty_notes import SIGNIFICANT
from emofuse.statistics import Interval
from emofuse.wording import join_names


def overview(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Return the three sentences; there are two if every configuration diverged.

    The best configuration is that of the best validation score. Test scores choose nothing.
    """
    failed = results.search.failed if results.search else ()
    if results.search and failed and not results.search.used:
        nothing = (
            "No configuration can be used, because every configuration that can be chosen had a final run that "
            "diverged."
        )
        return [_trained(results), nothing]
    return [_trained(results), _best(results, uncertainty), _difference(results, uncertainty)]


def _trained(results: Results) -> str:
    count = len(results.configurations)
    streams = tuple(dict.fromkeys(name for item in results.configurations for name in item.streams))
    runs = Spread.of(len(item.runs) for item in results.configurations)
    rows = {
        split: format_range(Spread.of(run.rows[split]["rows"] for run in results.runs_by_split))
        for split in ("train", "test")
    }
    who = f"{count:,} configurations" if count > 1 else "One configuration"
    of = f"{len(streams)} feature streams ({join_some(streams)})" if len(streams) > 1 else f"the stream {streams[0]}"
    test = evaluation_of(results)
    if test:
        return (
            f"{who} of {of}, trained on {test['trained_on']}, was tested on {rows['test']} rows of {test['tested_on']}."
        )
    each = "" if runs.high == 1 else f" in {format_range(runs)} runs{' each' if count > 1 else ''}"
    name = results.dataset.get("name", "a dataset")
    return (
        f"{who} of {of} {'were' if count > 1 else 'was'} trained on {rows['train']} rows of {name} with "
        f"{len(results.classes)} {_outputs(results)}{each}, and scored on {rows['test']} test rows."
    )


def _outputs(results: Results) -> str:
    plural = {"class": "classes", "column": "columns", "label": "labels"}[results.target.part]
    return plural if len(results.classes) != 1 else results.target.part


def _best(results: Results, uncertainty: Uncertainty) -> str:
    best = results.ranked[0]
    intervals = uncertainty.intervals.get(best.label, {})
    scores = join_names(
        f"{score.name} {_with_interval(best.metric(score.path), intervals.get(score.path), score)}"
        for score in map(results.in_table, results.target.compared)
    )
    failed = results.search.failed if results.search else ()
    why = f"The chosen configuration, {failed[0].name}, diverged in its final runs. " if failed else ""
    if len(results.configurations) == 1:
        return f"{why}{best.label} reaches {scores} on {evaluation_of(results).get('tested_on', 'the test split')}."
    rank = "Next best" if failed else "The best"
    return f"{why}{rank} by validation {SELECTS[results.select]} is {best.label}; on the test split it has {scores}."


def _difference(results: Results, uncertainty: Uncertainty) -> str:
    if len(results.configurations) == 1:
        return "There is no other configuration here that it could be compared with."
    best, baseline = results.ranked[0], results.baseline
    if best is not baseline:
        return f"Against the baseline {baseline.label} that is {_tested(results, uncertainty, best)}"
    other = results.ranked[1]
    return (
        f"It is the baseline itself; the next by validation, {other.label}, differs from it by "
        f"{_tested(results, uncertainty, other)}"
    )


def _tested(results: Results, uncertainty: Uncertainty, item: ReportedConfiguration) -> str:
    """Return the difference to the baseline, and whether it may be chance."""
    main = results.in_table(results.target.main)
    gain = format_difference(results.difference(item, main.path).mean, main.decimals)
    comparison = uncertainty.comparisons.get((item.label, results.baseline.label))
    if comparison is None:
        return f"{gain} {main.name}; whether this is chance was not tested, for a reason that the notes give."
    test, p = comparison.tests[main.path], comparison.corrected[main.path]
    ends = format_interval(test.interval, signed=True, decimals=main.decimals)
    count = len(uncertainty.comparisons)
    corrected = f" after Holm's correction over {count:,} comparisons" if count > 1 else ""
    shown = format_p(p)
    equals = "p < 0.001" if shown.startswith("<") else f"p = {shown}"
    verdict = "which is unlikely to be chance" if p < SIGNIFICANT else "which may be chance"
    if uncertainty.least_p(main.path) >= SIGNIFICANT:
        verdict = f"but no p below {SIGNIFICANT:g} is possible with so many comparisons"
    return f"{gain}{f' [{ends}]' if ends else ''} {main.name} ({equals}{corrected}), {verdict}."


def _with_interval(spread: Spread, interval: Interval | None, score: ShownScore) -> str:
    decimals = score.decimals
    text, sd = format_score(spread.mean, decimals), format_sd(spread, decimals)
    ends = format_interval(interval, decimals=decimals)
    return text + (f" ± {sd}" if sd else "") + (f" [{ends}]" if ends else "")
