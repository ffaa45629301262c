"""Which configurations are tried next: all of a grid, a random draw, or what Optuna makes of the scores so far."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from emofuse.specs import GridSearch, RandomSearch, Range, SweepSpec, TpeSearch
from emofuse.sweep.configurations import Configuration, Space, StreamType, check_streams, expand

# Up to so many combinations are shuffled as a whole; beyond that each draw is a new one, and repetitions are passed.
_SHUFFLED = 2**20
_VAIN_DRAWS = 10_000


class Search(Protocol):
    """Gives out configurations and is told their scores. Equal scores told give equal configurations, for ever.

    So a sweep that was killed replays its search from the rows it finds, and goes on where it was.
    """

    @property
    def total(self) -> int:
        """How many configurations will be asked for in all; at most so many where the search itself cannot know."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it, one sentence each."""

    def ask(self) -> list[Configuration]:
        """The next batch, none of which was given out before; empty when the search is over.

        Raises:
            ValueError: scores of the batch before have not been told.
        """

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Takes in mean validation scores, larger is better: key of a configuration -> score, None if it diverged.

        Raises:
            ValueError: a key that is not waited for.
        """


def make_search(spec: SweepSpec, types: Mapping[str, StreamType]) -> Search:
    """The search that a sweep asks for.

    Args:
        spec: of the sweep.
        types: the type of every stream of the cache, in the cache's order.

    Raises:
        SpecError: streams that are not in the cache.
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
    """A search that knows from the start what it wants: it asks for everything at once, whatever it is told."""

    configurations: Sequence[Configuration]
    notes: tuple[str, ...] = ()
    _asked: bool = False

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.configurations)

    def ask(self) -> list[Configuration]:
        """All of them, and then nothing more."""
        if self._asked:
            return []
        self._asked = True
        return list(self.configurations)

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Checks that they were asked for.

        Raises:
            ValueError: a key that is none of theirs.
        """
        unknown = scores.keys() - {configuration.key for configuration in self.configurations}
        if unknown:
            raise ValueError(f"told a score of a configuration that was not asked for: {min(unknown)}")


def draws(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    """Combinations of factors' values, each factor drawn evenly (a logarithmic range on its scale).

    Of lists that have up to 2^20 combinations every one comes once; else it goes on without end. Only raw words of
    PCG64 are used, which NumPy promises for all its versions, and what is drawn from a range is rounded to six
    significant digits: the last bits of a logarithm differ between machines.
    """
    lists = {name: given for name, given in space.values.items() if not isinstance(given, Range)}
    count = math.prod(len(given) for given in lists.values())
    if len(lists) == len(space.values) and count <= _SHUFFLED:
        sizes = [len(given) for given in lists.values()]
        for index in np.argsort(_words(seed, "order").random_raw(count), kind="stable").tolist():
            places = np.unravel_index(index, sizes)
            yield {name: lists[name][place] for name, place in zip(lists, places, strict=True)}
        return
    # A generator a factor: with one factor more, the others are drawn as before.
    words = {name: _words(seed, name) for name in space.values}
    while True:
        yield {name: _value(given, int(words[name].random_raw())) for name, given in space.values.items()}


def unseen(
    space: Space, combinations: Iterator[dict[str, Any]], seen: set[str]
) -> Iterator[tuple[dict[str, Any], Configuration]]:
    """Those combinations whose configuration is new, with it, until ten thousand in a row are not.

    Args:
        space: of the combinations.
        combinations: in the order in which they are wanted.
        seen: keys that are not new; grows by those that are given, and whoever calls may add to it.
    """
    vain = 0
    for values in combinations:
        configuration = space.configuration(values)
        vain = vain + 1 if configuration.key in seen else 0
        if vain == 0:
            seen.add(configuration.key)
            yield values, configuration
        elif vain >= _VAIN_DRAWS:
            return


def rounded(value: float, within: Range) -> float:
    """A number drawn from a range to six significant digits, still within it."""
    return min(max(float(f"{value:.6g}"), within.low), within.high)


def fewer_than_trials(count: int, trials: int) -> tuple[str, ...]:
    """What a user is told if there are fewer configurations than trials."""
    if count == trials:
        return ()
    return (f"The factors have {count} configurations, fewer than {trials} trials: all of them are trained.",)


def _all_if_fewer(space: Space, trials: int) -> list[Configuration]:
    """All configurations, in the grid's order, if they are no more than the trials; else none."""
    if any(isinstance(given, Range) for given in space.values.values()):
        return []
    found: dict[str, Configuration] = {}
    for values in space.combinations():
        configuration = space.configuration(values)
        found.setdefault(configuration.key, configuration)
        if len(found) > trials:
            return []
    return list(found.values())


def _words(seed: int, purpose: str) -> np.random.PCG64:
    return np.random.PCG64(int.from_bytes(hashlib.sha256(f"{seed}\n{purpose}".encode()).digest(), "big"))


def _value(given: Sequence[Any] | Range, word: int) -> Any:
    """The value that a 64-bit word chooses: each of a list alike (but for 1 in 2^64 / its length), or of a range."""
    if not isinstance(given, Range):
        return given[word % len(given)]
    share = (word >> 11) / 2**53  # [0, 1)
    if given.log:
        low, high = math.log(given.low), math.log(given.high)
        return rounded(math.exp(low + share * (high - low)), given)
    return rounded(given.low + share * (given.high - given.low), given)
