"""Search by Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), a batch at a time.

Optuna is asked for so many trials as train together, and told their scores before the next batch. While a batch is
open, Optuna takes its trials for bad ones (the "constant liar"), so that they do not all fall on one spot.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from emofuse.specs import Range, TpeSearch
from emofuse.sweep.configurations import Configuration, Space
from emofuse.sweep.search import draws, fewer_than_trials, rounded, unseen

# After so many proposals in a row that are nothing new, a random one that is takes their place.
_VAIN_PROPOSALS = 16


class ParzenSearch:
    """Asks Optuna for configurations that have not been tried.

    A proposal that was tried before is told to Optuna again with the score it has, and not given out. Streams chosen
    from `all` are one yes or no each; a proposal without any is told as a bad one.

    Args:
        space: what may be tried.
        search: trials, size of a batch, seed.
    """

    def __init__(self, space: Space, search: TpeSearch) -> None:
        self._space = space
        self._search = search
        self._scores: dict[str, float | None] = {}  # of all that was given out and told
        self._open: dict[str, list[Trial]] = {}  # key -> trials of Optuna's that wait for its score, in their order
        self._given: set[str] = set()
        self._trials = search.trials
        self._spare = unseen(space, draws(space, search.seed), set())
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=search.startup, constant_liar=True, seed=search.seed % 2**32
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)

    @property
    def total(self) -> int:
        """The trials; fewer once it has turned out that there are no more configurations."""
        return self._trials

    @property
    def notes(self) -> tuple[str, ...]:
        """That there were fewer configurations than trials, once it has turned out."""
        return fewer_than_trials(self._trials, self._search.trials)

    def ask(self) -> list[Configuration]:
        """The next batch; empty when all trials have been given out, or there is nothing new left."""
        waiting = self._open.keys() - self._scores.keys()
        if waiting:
            raise ValueError(f"scores of the batch before have not been told: {len(waiting)}")
        batch: list[Configuration] = []
        vain = 0
        with _quiet():
            while len(batch) < min(self._search.batch, self._trials - len(self._scores)):
                if vain >= _VAIN_PROPOSALS:
                    spare = next((values for values, new in self._spare if new.key not in self._given), None)
                    if spare is None:
                        self._trials = len(self._given)
                        break
                    self._study.enqueue_trial(self._params(spare))
                configuration = self._propose()
                vain = 0 if configuration else vain + 1
                if configuration:
                    batch.append(configuration)
        return batch

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Takes in scores of the batch; Optuna is told them when all are there, in the order in which it proposed."""
        unknown = scores.keys() - self._open.keys()
        if unknown:
            raise ValueError(f"told a score of a configuration that was not asked for: {min(unknown)}")
        self._scores.update(scores)
        if self._open.keys() <= self._scores.keys():
            trials = [(trial, self._scores[key]) for key, own in self._open.items() for trial in own]
            with _quiet():
                for trial, score in sorted(trials, key=lambda pair: pair[0].number):
                    self._finish(trial, score)
            self._open.clear()

    def _propose(self) -> Configuration | None:
        """One proposal of Optuna's; None if there is nothing in it to train."""
        trial = self._study.ask()
        values = self._suggest(trial)
        if not values["streams"]:
            self._finish(trial, None)
            return None
        configuration = self._space.configuration(values)
        key = configuration.key
        if key in self._scores:
            self._finish(trial, self._scores[key])
            return None
        self._open.setdefault(key, []).append(trial)
        if key in self._given:
            return None
        self._given.add(key)
        return configuration

    def _finish(self, trial: Trial, score: float | None) -> None:
        """Tells Optuna. What diverged is `pruned`: worse than all that has a score, and something to learn from."""
        if score is None or not math.isfinite(score):
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, score)

    def _suggest(self, trial: Trial) -> dict[str, Any]:
        """Values of all factors that have a use for the streams and the head suggested before them."""
        space = self._space
        values: dict[str, Any] = {"streams": self._suggest_streams(trial)}
        if "head" in space.values:
            values["head"] = self._one_of(trial, "head")
        for name in ("depth", *(name for name in space.values if name not in {"streams", "head", "depth"})):
            if name in space.values and name not in space.useless(values):
                values[name] = self._one_of(trial, name)
        return values

    def _suggest_streams(self, trial: Trial) -> tuple[str, ...]:
        if self._space.spec.factors.streams != "all":
            streams: tuple[str, ...] = self._one_of(trial, "streams")
            return streams
        if len(self._space.types) == 1:
            return tuple(self._space.types)
        return tuple(n for n in self._space.types if trial.suggest_categorical(f"streams.{n}", [False, True]))

    def _one_of(self, trial: Trial, name: str) -> Any:
        """A value of a factor: of a range, of numbers by their rank, of anything else by its place."""
        given = self._space.values[name]
        if isinstance(given, Range):
            return rounded(trial.suggest_float(name, given.low, given.high, log=given.log), given)
        if len(given) == 1:
            return given[0]
        if _are_numbers(given):
            return sorted(given)[trial.suggest_int(name, 0, len(given) - 1)]
        return given[trial.suggest_categorical(name, list(range(len(given))))]

    def _params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's parameters for given values: what `_suggest` turns back into them."""
        params: dict[str, Any] = {}
        for name, value in values.items():
            given = self._space.values[name]
            if name == "streams" and self._space.spec.factors.streams == "all":
                params |= {f"streams.{stream}": stream in value for stream in self._space.types}
            elif isinstance(given, Range):
                params[name] = value
            else:
                params[name] = (sorted(given) if _are_numbers(given) else list(given)).index(value)
        return params


def _are_numbers(given: Any) -> bool:
    return all(isinstance(value, int | float) for value in given)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its messages, and without its warnings that an argument may change one day."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
