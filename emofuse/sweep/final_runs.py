"""The final runs of the chosen configurations: trained on all training rows, scored once on the test rows.

If a final run of the best configuration diverges, the next one in the ranking of the search is trained in its place.
Test rows do not influence this: a run diverges by its loss on training or validation rows.
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
"""Trains final runs or reads finished ones; returns the result of each, and whether it was trained now."""


@dataclass(frozen=True)
class FinalConfiguration:
    """A configuration with the results of its final runs.

    Attributes:
        scored: the configuration with its score in the search.
        results: the results of its final runs, one a seed.
        is_fallback: whether it was trained only because every configuration ranked before it diverged.
    """

    scored: ScoredConfiguration
    results: tuple[RunRecord | Divergence, ...]
    is_fallback: bool = False

    @property
    def name(self) -> str:
        """The name of the configuration."""
        return self.scored.configuration.name

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The runs that were scored on the test rows."""
        return tuple(result for result in self.results if isinstance(result, RunRecord))

    @property
    def diverged(self) -> tuple[Divergence, ...]:
        """The runs that diverged."""
        return tuple(result for result in self.results if isinstance(result, Divergence))


@dataclass(frozen=True)
class FinalRuns:
    """The final runs of a sweep.

    Attributes:
        items: the finalists and fallbacks, in the order of the ranking.
        used: the best ranked configuration of which no final run diverged, or None.
        baseline: the configuration that others are tested against: the baseline of the choice if it has a scored run,
            else `used`, else the best ranked one with a scored run; None if there is none.
        trained: the number of final runs that this call trained.
    """

    items: tuple[FinalConfiguration, ...]
    used: FinalConfiguration | None
    baseline: FinalConfiguration | None
    trained: int

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The scored runs; those of a configuration are neighbours."""
        return tuple(record for item in self.items for record in item.records)

    @property
    def failed(self) -> tuple[FinalConfiguration, ...]:
        """The configurations ranked before `used` of which a final run diverged."""
        before = self.items if self.used is None else self.items[: self.items.index(self.used)]
        return tuple(item for item in before if item.diverged)


def final_specs(configurations: Sequence[ScoredConfiguration], spec: SweepSpec) -> list[RunSpec]:
    """Return the final runs of configurations, one for each final seed; those of a configuration are neighbours."""
    return [
        each.configuration.run.model_copy(
            update={
                "train": each.configuration.run.train.model_copy(update={"seed": seed}),
                "ensemble": spec.final.ensemble,
                "refit": spec.final.refit,
            }
        )
        for each in configurations
        for seed in spec.final.seeds
    ]


def train_final_runs(choice: Choice, spec: SweepSpec, train: Train, say: Callable[[str], None]) -> FinalRuns:
    """Train the finalists, then fallbacks in the order of the ranking until a configuration does not diverge.

    A configuration is not used if one of its final runs diverges, just as it is not chosen if it diverges in a fold.
    Only the best configuration has a fallback; other finalists that diverge are reported as such.

    Args:
        choice: a choice with finalists.
        spec: the sweep.
        train: trains runs.
        say: receives a message for each fallback.
    """
    tried: dict[int, FinalConfiguration] = {}
    trained = 0

    def run(configurations: Sequence[ScoredConfiguration], *, is_fallback: bool) -> None:
        nonlocal trained
        results = list(train(final_specs(configurations, spec)))
        trained += sum(trained_now for _, trained_now in results)
        seeds = len(spec.final.seeds)
        for place, each in enumerate(configurations):
            of_configuration = tuple(result for result, _ in results[place * seeds : (place + 1) * seeds])
            tried[each.order] = FinalConfiguration(each, of_configuration, is_fallback)

    run(choice.finalists, is_fallback=False)
    used = None
    for each in choice.ranked:
        if each.order not in tried:
            say(
                f"choice: the best configuration diverged in its final runs; the next by validation "
                f"{SELECTS[spec.select]} is trained in its place: {each.configuration.name}"
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
