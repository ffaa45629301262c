"""The final runs of a choice: trained on the whole split, scored once; which of them diverge, and what is used then.

Who takes the place of a choice that diverges is known before any final run has been scored: the next in the ranking of
the search. Test rows have no say in it, for a loss that is not finite is one of training or validation rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emofuse.report.search import SELECTS
from emofuse.results import RunRecord
from emofuse.specs import RunSpec, SweepSpec
from emofuse.sweep.choice import Choice, ScoredConfiguration
from emofuse.training.divergence import Divergence

Train = Callable[[Sequence[RunSpec]], Sequence[tuple[RunRecord | Divergence, bool]]]
"""Trains final runs, or finds them: results in their order, and whether each was trained now."""


@dataclass(frozen=True)
class FinalConfiguration:
    """A configuration that was chosen, or takes the place of one, and what became of its final runs.

    Attributes:
        scored: it and its search.
        results: of its final runs, one a seed.
        is_fallback: whether it was trained only because all that are ranked before it diverged.
    """

    scored: ScoredConfiguration
    results: tuple[RunRecord | Divergence, ...]
    is_fallback: bool = False

    @property
    def name(self) -> str:
        """Of the configuration."""
        return self.scored.configuration.name

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """Runs that were scored on the test rows."""
        return tuple(result for result in self.results if isinstance(result, RunRecord))

    @property
    def diverged(self) -> tuple[Divergence, ...]:
        """Runs that diverged."""
        return tuple(result for result in self.results if isinstance(result, Divergence))


@dataclass(frozen=True)
class FinalRuns:
    """All final runs of a sweep.

    Attributes:
        items: finalists and fallbacks, by the ranking of the search.
        used: the best ranked one without a run that diverged; None if there is none.
        baseline: that others are tested against: the choice's baseline if it has a scored run, else `used`, else the
            best ranked one that has; None if none has.
        trained: final runs that were trained by this call.
    """

    items: tuple[FinalConfiguration, ...]
    used: FinalConfiguration | None
    baseline: FinalConfiguration | None
    trained: int

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """Every scored run, a configuration's side by side."""
        return tuple(record for item in self.items for record in item.records)

    @property
    def failed(self) -> tuple[FinalConfiguration, ...]:
        """Those ranked before what is used: the choice, if it diverged, and all that were to take its place."""
        before = self.items if self.used is None else self.items[: self.items.index(self.used)]
        return tuple(item for item in before if item.diverged)


def final_specs(configurations: Sequence[ScoredConfiguration], spec: SweepSpec) -> list[RunSpec]:
    """Configurations on the whole split, once for each of the final seeds, a configuration's runs side by side."""
    return [
        each.configuration.run.model_copy(
            update={"train": each.configuration.run.train.model_copy(update={"seed": seed})}
        )
        for each in configurations
        for seed in spec.final.seeds
    ]


def train_final_runs(choice: Choice, spec: SweepSpec, train: Train, say: Callable[[str], None]) -> FinalRuns:
    """Trains the finalists and, while the best ranked of all that were trained diverges, the next in the ranking.

    A configuration of which one final run diverges is not used, as in the search one that diverges in a fold cannot
    be chosen. What else was chosen for a value of `best_of` is shown as it is; nothing takes its place.

    Args:
        choice: with finalists.
        spec: of the sweep.
        train: trains runs.
        say: is told of what is trained in the place of the choice.
    """
    tried: dict[int, FinalConfiguration] = {}
    trained = 0

    def run(configurations: Sequence[ScoredConfiguration], *, is_fallback: bool) -> None:
        nonlocal trained
        results = list(train(final_specs(configurations, spec)))
        trained += sum(trained_now for _, trained_now in results)
        seeds = len(spec.final.seeds)
        for place, each in enumerate(configurations):
            own = tuple(result for result, _ in results[place * seeds : (place + 1) * seeds])
            tried[each.order] = FinalConfiguration(each, own, is_fallback)

    run(choice.finalists, is_fallback=False)
    used = None
    for each in choice.ranked:
        if each.order not in tried:
            say(
                f"choice: what was chosen diverged in its final runs; the next by validation {SELECTS[spec.select]} is "
                f"trained in its place: {each.configuration.name}"
            )
            run([each], is_fallback=True)
        if not tried[each.order].diverged:
            used = tried[each.order]
            break
    items = tuple(tried[each.order] for each in choice.ranked if each.order in tried)
    planned = None if choice.baseline is None else tried[choice.baseline.order]
    order = [planned, used, *items]
    baseline = next((item for item in order if item is not None and item.records), None)
    return FinalRuns(items, used, baseline, trained)
