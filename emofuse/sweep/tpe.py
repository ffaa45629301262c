"""The search strategy of Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), in batches.

A batch is what trains together; Optuna gets its scores before it proposes the next batch. Until then it assumes bad
scores for the trials of the batch (the "constant liar"), so that they do not all lie close together.
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
from emofuse.sweep.strategies import draws, fewer_than_trials, rounded, unseen

_REPEATED_PROPOSALS = 16  # after this many repeated proposals in a row, a new random one replaces them


class ParzenSearch:
    """A strategy that gives the proposals of Optuna that have not been tried.

    A proposal that was tried before goes back to Optuna with the score it has. If `streams` is `all`, every stream is
    a parameter of its own, true or false; a proposal without a stream counts as a bad one.

    Args:
        space: the values that may be tried.
        search: the trials, the size of a batch and the seed.
    """

    def __init__(self, space: Space, search: TpeSearch) -> None:
        self._space = space
        self._search = search
        self._scores: dict[str, float | None] = {}  # of the configurations of finished batches
        self._open: dict[str, list[Trial]] = {}  # key -> trials that wait for its score
        self._asked: set[str] = set()
        self._trials = search.trials
        self._spare = unseen(space, draws(space, search.seed), set())
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=search.startup, constant_liar=True, seed=search.seed % 2**32
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)

    @property
    def total(self) -> int:
        """The number of trials, or of configurations once there turn out to be fewer."""
        return self._trials

    @property
    def notes(self) -> tuple[str, ...]:
        """A note if there turn out to be fewer configurations than trials."""
        return fewer_than_trials(self._trials, self._search.trials)

    def ask(self) -> list[Configuration]:
        """Return the next batch, or an empty list after all trials or when no new configuration is left."""
        waiting = self._open.keys() - self._scores.keys()
        if waiting:
            raise ValueError(f"scores of the previous batch are missing: {len(waiting)}")
        batch: list[Configuration] = []
        repeated = 0
        with _quiet():
            while len(batch) < min(self._search.batch, self._trials - len(self._scores)):
                if repeated >= _REPEATED_PROPOSALS:
                    spare = next((values for values, new in self._spare if new.key not in self._asked), None)
                    if spare is None:
                        self._trials = len(self._asked)
                        break
                    self._study.enqueue_trial(self._params(spare))
                configuration = self._propose()
                repeated = 0 if configuration else repeated + 1
                if configuration:
                    batch.append(configuration)
        return batch

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Add scores of the batch; Optuna gets them once all are there, in the order of its proposals."""
        unknown = scores.keys() - self._open.keys()
        if unknown:
            raise ValueError(f"score of a configuration that is not in the batch: {min(unknown)}")
        self._scores.update(scores)
        if self._open.keys() <= self._scores.keys():
            trials = [(trial, self._scores[key]) for key, waiting in self._open.items() for trial in waiting]
            with _quiet():
                for trial, score in sorted(trials, key=lambda pair: pair[0].number):
                    self._finish(trial, score)
            self._open.clear()

    def _propose(self) -> Configuration | None:
        """Return the configuration of one proposal, or None if it has no stream or was proposed before."""
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
        if key in self._asked:
            return None
        self._asked.add(key)
        return configuration

    def _finish(self, trial: Trial, score: float | None) -> None:
        """Give Optuna a score. A trial that diverged is `pruned`, which ranks it below every score."""
        if score is None or not math.isfinite(score):
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, score)

    def _suggest(self, trial: Trial) -> dict[str, Any]:
        """Return a value for every factor that is used with the values suggested before it."""
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
        """Return a suggested value of a factor: numbers are suggested by their rank, other values by their index."""
        choices = self._space.values[name]
        if isinstance(choices, Range):
            return rounded(trial.suggest_float(name, choices.low, choices.high, log=choices.log), choices)
        if len(choices) == 1:
            return choices[0]
        if _are_numbers(choices):
            return sorted(choices)[trial.suggest_int(name, 0, len(choices) - 1)]
        return choices[trial.suggest_categorical(name, list(range(len(choices))))]

    def _params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters from which `_suggest` makes these values."""
        params: dict[str, Any] = {}
        for name, value in values.items():
            choices = self._space.values[name]
            if name == "streams" and self._space.spec.factors.streams == "all":
                params |= {f"streams.{stream}": stream in value for stream in self._space.types}
            elif isinstance(choices, Range):
                params[name] = value
            else:
                params[name] = (sorted(choices) if _are_numbers(choices) else list(choices)).index(value)
        return params


def _are_numbers(choices: Any) -> bool:
    return all(isinstance(value, int | float) for value in choices)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of Optuna and its warnings about experimental arguments."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
