"""Shapley values against their definition over all orders of the players, and their axioms."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from emofuse.analysis.shapley import MOST_PLAYERS, Game, shapley_values

PLAYERS = ("a", "b", "c", "d")


@pytest.fixture
def values():
    rng = np.random.default_rng(3)
    return {subset: float(rng.random()) for subset in Game(PLAYERS).subsets}


def mean_gain_over_all_orders(values, player):
    gains = []
    for order in permutations(PLAYERS):
        before = frozenset(order[: order.index(player)])
        gains.append(values[before | {player}] - values[before])
    return np.mean(gains)


def interaction_over_all_subsets(values, first, second):
    """The mean of the discrete second derivative, over the orders of the others and the pair as one player."""
    others = [player for player in PLAYERS if player not in {first, second}]
    terms = []
    for order in permutations([*others, "pair"]):
        s = frozenset(order[: order.index("pair")])
        terms.append(values[s | {first, second}] - values[s | {first}] - values[s | {second}] + values[s])
    return np.mean(terms)


def test_shapley_values_are_the_mean_gain_over_all_orders(values):
    for player, value in shapley_values(PLAYERS, values).items():
        assert value == pytest.approx(mean_gain_over_all_orders(values, player), abs=1e-12)


def test_interactions_are_the_mean_second_difference_over_all_orders_with_the_pair_as_one(values):
    game = Game(PLAYERS)
    for (first, second), value in zip(game.pairs, game.interactions @ game.values(values), strict=True):
        assert value == pytest.approx(interaction_over_all_subsets(values, first, second), abs=1e-12)


def test_shapley_values_sum_to_the_value_of_all_less_that_of_none(values):
    assert sum(shapley_values(PLAYERS, values).values()) == pytest.approx(
        values[frozenset(PLAYERS)] - values[frozenset()]
    )


def test_players_who_gain_the_same_everywhere_are_worth_the_same():
    values = {subset: 1.0 * len(subset & {"a", "b"}) ** 2 + ("c" in subset) for subset in Game(PLAYERS).subsets}
    worth = shapley_values(PLAYERS, values)
    assert worth["a"] == pytest.approx(worth["b"])


def test_a_player_who_never_changes_the_value_is_worth_nothing(values):
    without_d = {subset: values[subset - {"d"}] for subset in values}
    assert shapley_values(PLAYERS, without_d)["d"] == pytest.approx(0, abs=1e-15)


def test_copies_share_their_worth_and_interact_negatively():
    values = {subset: float(bool(subset & {"a", "b"})) for subset in Game(PLAYERS).subsets}
    assert shapley_values(PLAYERS, values) == pytest.approx({"a": 0.5, "b": 0.5, "c": 0, "d": 0})
    game = Game(PLAYERS)
    index = dict(zip(game.pairs, game.interactions @ game.values(values), strict=True))
    assert index["a", "b"] == pytest.approx(-1)
    assert index["c", "d"] == pytest.approx(0)


def test_two_that_only_help_together_interact_positively():
    values = {subset: float({"a", "b"} <= subset) for subset in Game(PLAYERS).subsets}
    game = Game(PLAYERS)
    assert dict(zip(game.pairs, game.interactions @ game.values(values), strict=True))["a", "b"] == pytest.approx(1)
    assert shapley_values(PLAYERS, values)["a"] == pytest.approx(0.5)


def test_leave_one_out_and_add_one_in_are_differences_of_two_subsets(values):
    game, everyone = Game(PLAYERS), frozenset(PLAYERS)
    for place, player in enumerate(PLAYERS):
        left_out = game.leave_one_out[place] @ game.values(values)
        added = game.add_one_in[place] @ game.values(values)
        assert left_out == pytest.approx(values[everyone] - values[everyone - {player}])
        assert added == pytest.approx(values[frozenset({player})] - values[frozenset()])


def test_a_single_player_is_worth_all():
    game = Game(("a",))
    assert shapley_values(("a",), {frozenset(): 0.2, frozenset("a"): 0.7}) == pytest.approx({"a": 0.5})
    assert game.pairs == ()
    assert game.interactions.shape == (0, 2)


def test_subsets_are_all_of_them_with_none_first_and_all_last():
    subsets = Game(PLAYERS).subsets
    assert set(subsets) == {frozenset(c) for size in range(5) for c in combinations(PLAYERS, size)}
    assert (subsets[0], subsets[-1]) == (frozenset(), frozenset(PLAYERS))


@pytest.mark.parametrize("players", [(), ("a", "a"), tuple(map(str, range(MOST_PLAYERS + 1)))])
def test_no_player_the_same_twice_or_too_many_are_refused(players):
    with pytest.raises(ValueError, match="expected 1 to 10 different players"):
        Game(players)
