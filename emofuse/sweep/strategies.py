"""Search strategies: which configurations are tried next. Grid and random search; `tpe` has the one that learns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from emofuse.checksum import seed_of
from emofuse.specs import GridSearch, RandomSearch, Range, SweepSpec, TpeSearch
from emofuse.sweep.configurations import Configuration, Space, StreamType, check_streams, expand

_SHUFFLED = 2**20  # a space of at most this many combinations is shuffled; of a larger one, each draw is independent
_REPEATED_DRAWS = 10_000  # after this many repeated draws in a row, no new configuration is expected


class SearchStrategy(Protocol):
    """A strategy that gives configurations and learns from their scores, in batches.

    Equal scores always lead to equal configurations, so a sweep that was killed repeats its search from the rows that
    are there and continues where it stopped.
    """

    @property
    def total(self) -> int:
        """The number of configurations of the whole search, or the largest it can be while it is unknown."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, one sentence each."""

    def ask(self) -> list[Configuration]:
        """Return the next batch of new configurations, or an empty list at the end of the search.

        Raises:
            ValueError: scores of the previous batch are missing.
        """

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Add the scores of a batch.

        Args:
            scores: key of a configuration -> mean validation score, larger is better; None if it diverged.

        Raises:
            ValueError: a key is not one of the batch.
        """


def make_strategy(spec: SweepSpec, types: Mapping[str, StreamType]) -> SearchStrategy:
    """Return the search strategy of a sweep.

    Args:
        spec: the sweep.
        types: the type of every stream of the cache, in the cache's order.

    Raises:
        SpecError: the sweep names streams that are not in the cache.
    """
    check_streams(spec, types)
    match spec.search:
        case GridSearch():
            return OneBatch(expand(spec, types))
        case RandomSearch() | TpeSearch() as search if every := _all_if_fewer(Space.of(spec, types), search.trials):
            return OneBatch(every, fewer_than_trials(len(every), search.trials))
        case RandomSearch() as search:
            space = Space.of(spec, types)
            new = unseen(space, draws(space, search.seed), set())
            drawn = [configuration for _, configuration in itertools.islice(new, search.trials)]
            return OneBatch(drawn, fewer_than_trials(len(drawn), search.trials))
        case TpeSearch() as search:
            from emofuse.sweep.tpe import ParzenSearch

            return ParzenSearch(Space.of(spec, types), search)


@dataclass
class OneBatch:
    """A strategy that gives all its configurations at once and learns nothing from scores."""

    configurations: Sequence[Configuration]
    notes: tuple[str, ...] = ()
    _asked: bool = False

    @property
    def total(self) -> int:
        """The number of configurations."""
        return len(self.configurations)

    def ask(self) -> list[Configuration]:
        """Return all configurations, then an empty list."""
        if self._asked:
            return []
        self._asked = True
        return list(self.configurations)

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Check that the scores belong to the configurations.

        Raises:
            ValueError: a key is not one of theirs.
        """
        unknown = scores.keys() - {configuration.key for configuration in self.configurations}
        if unknown:
            raise ValueError(f"score of a configuration that is not in the batch: {min(unknown)}")


def draws(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    """Yield random combinations of the factors' values, each factor drawn evenly (a logarithmic range on its scale).

    Lists with up to 2^20 combinations yield each of them once; otherwise the draws do not end. They use only raw words
    of PCG64, which are the same in all versions of NumPy. Numbers of a range are rounded to six significant digits,
    because the last bits of a logarithm differ between machines.
    """
    lists = {name: choices for name, choices in space.values.items() if not isinstance(choices, Range)}
    count = math.prod(len(choices) for choices in lists.values())
    if len(lists) == len(space.values) and count <= _SHUFFLED:
        sizes = [len(choices) for choices in lists.values()]
        for index in np.argsort(_words(seed, "order").random_raw(count), kind="stable").tolist():
            places = np.unravel_index(index, sizes)
            yield {name: lists[name][place] for name, place in zip(lists, places, strict=True)}
        return
    # Each factor has a generator, so that a further factor does not change the draws of the others.
    words = {name: _words(seed, name) for name in space.values}
    while True:
        yield {name: _value(choices, int(words[name].random_raw())) for name, choices in space.values.items()}


def unseen(
    space: Space, combinations: Iterator[dict[str, Any]], seen: set[str]
) -> Iterator[tuple[dict[str, Any], Configuration]]:
    """Yield the combinations whose configuration is new, with it, until ten thousand in a row are not.

    Args:
        space: the space of the combinations.
        combinations: the combinations in the wanted order.
        seen: keys of configurations that are not new; it grows by those that are yielded, and the caller may add some.
    """
    repeated = 0
    for values in combinations:
        configuration = space.configuration(values)
        repeated = repeated + 1 if configuration.key in seen else 0
        if repeated == 0:
            seen.add(configuration.key)
            yield values, configuration
        elif repeated >= _REPEATED_DRAWS:
            return


def rounded(value: float, within: Range) -> float:
    """Return a number of a range with six significant digits, still within the range."""
    return min(max(float(f"{value:.6g}"), within.low), within.high)


def fewer_than_trials(count: int, trials: int) -> tuple[str, ...]:
    """Return a note for the user if there are fewer configurations than trials."""
    if count == trials:
        return ()
    return (f"The factors have {count} configurations, fewer than {trials} trials: all of them are trained.",)


def _all_if_fewer(space: Space, trials: int) -> list[Configuration]:
    """Return all configurations in the order of a grid if there are no more than `trials`, else an empty list."""
    if any(isinstance(choices, Range) for choices in space.values.values()):
        return []
    by_key: dict[str, Configuration] = {}
    for values in space.combinations():
        configuration = space.configuration(values)
        by_key.setdefault(configuration.key, configuration)
        if len(by_key) > trials:
            return []
    return list(by_key.values())


def _words(seed: int, purpose: str) -> np.random.PCG64:
    return np.random.PCG64(seed_of(seed, purpose))


def _value(choices: Sequence[Any] | Range, word: int) -> Any:
    """Return the value that a random 64-bit word chooses, evenly from a list or a range."""
    if not isinstance(choices, Range):
        return choices[word % len(choices)]
    share = (word >> 11) / 2**53  # [0, 1)
    if choices.log:
        low, high = math.log(choices.low), math.log(choices.high)
        return rounded(math.exp(low + share * (high - low)), choices)
    return rounded(choices.low + share * (choices.high - choices.low), choices)
