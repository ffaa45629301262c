"""What a sweep would train, told before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emofuse.cache.reader import Cache
from emofuse.progress import step
from emofuse.specs import SweepSpec
from emofuse.sweep.choice import factor_values
from emofuse.sweep.compared import check_compared
from emofuse.sweep.configurations import Configuration
from emofuse.sweep.groups import only_missing, plan_search, searched_runs
from emofuse.sweep.options import DEFAULT_OPTIONS, SweepOptions
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.searching import check_split_rows, open_trainer, stream_types, with_groups
from emofuse.sweep.strategies import make_strategy


def plan_sweep(cache: Cache, spec: SweepSpec, folder: Path, options: SweepOptions = DEFAULT_OPTIONS) -> str:
    """Return lines on what `run_sweep` would train. Nothing is trained or written.

    Raises:
        EmofuseError: see `run_sweep`.
    """
    nested, spec = spec.test, first_fold_of(spec)
    spec = with_groups(cache, spec)
    check_compared(spec, stream_types(cache))
    with open_trainer(cache, spec, options) as trainer:
        check_split_rows(trainer.data)
        search = make_strategy(spec, stream_types(cache))
        batch = search.ask()
        runs = searched_runs(trainer.data, batch, spec)
        there = {row.digest for row in ResultsFolder(folder).rows()}
        missing = {run.digest for run in runs} - there
        heads = search.total * len(runs) // len(batch)
        then = _describe_finals(spec, batch, is_all=len(batch) == search.total)
        lines = [f"{spec.title or spec.name}: {search.total} configurations, {heads} heads, {then}", *search.notes]
        if nested:
            lines.append(f"All of this is repeated inside each of {nested}. The first of them:")
        if len(batch) < search.total:
            lines.append(f"The search chooses {len(batch)} configurations at a time. The first batch:")
        done = f"{len(runs) - len(missing)} of {len(runs)} heads trained before"
        lines.append(done if missing else f"{done}, nothing to train")
        if missing:
            with step("planning"):
                plan = plan_search(trainer.data, runs, spec, trainer.machine, trainer.rates)
            lines.append(str(only_missing(plan, runs, there)))
    return "\n".join(lines)


def first_fold_of(spec: SweepSpec) -> SweepSpec:
    """Return the sweep of the first outer fold of a nested sweep; other sweeps as they are."""
    if spec.test is None:
        return spec
    return spec.model_copy(update={"base": spec.base.model_copy(update={"split": spec.test.splits()[0]}), "test": None})


def _describe_finals(spec: SweepSpec, configurations: Sequence[Configuration], *, is_all: bool) -> str:
    """Return text on how many final runs there will be, as far as it is known before the search."""
    seeds = f"{len(spec.final.seeds)} seed{'s' * (len(spec.final.seeds) > 1)} each"
    beside = " and reference models" * (spec.references == "on")
    if not is_all:
        return f"then final runs of what is chosen ({seeds}){beside}"
    chosen = len({factor_values(each, spec.final.best_of) for each in configurations})
    chosen = min(len(configurations), chosen + ("streams" not in spec.final.best_of))  # with the baseline
    return f"then at most {chosen * len(spec.final.seeds)} final runs ({chosen} chosen, {seeds}){beside}"
