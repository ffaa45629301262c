"""What is tried next: nothing twice, nothing outside the factors, and the same again for the same scores."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import warnings
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from emofuse.errors import SpecError
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    Factors,
    GridSearch,
    LinearHeadSpec,
    RandomSearch,
    Range,
    SweepSpec,
    TpeSearch,
)
from emofuse.sweep.configurations import Space, StreamType, expand
from emofuse.sweep.strategies import OneBatch, draws, make_strategy

KINDS = {"lbp": "lbp", "landmarks": "landmarks", "action_units": "action_units", "resnet50": "backbone"}
TYPES = {name: StreamType(kind) for name, kind in KINDS.items()}
RATES = Range(low=1e-5, high=1e-1, log=True)


def sweep(search, **factors) -> SweepSpec:
    return SweepSpec(name="mine", factors=Factors(**factors), search=search)


def score(configuration) -> float:
    """Best with a learning rate of 1e-3, on `lbp` and `resnet50` alone."""
    run = configuration.run
    streams = set(run.features.streams)
    return (
        ("lbp" in streams) + ("resnet50" in streams) - 0.3 * len(streams) - abs(math.log10(run.train.learning_rate) + 3)
    )


def play(search, tell=score, batches=10**9):
    """Plays a search to its end, or for so many batches; returns the batches."""
    played = []
    while len(played) < batches and (batch := search.ask()):
        played.append(batch)
        search.tell({configuration.key: tell(configuration) for configuration in batch})
    return played


def flat(batches) -> list:
    return [configuration for batch in batches for configuration in batch]


# --- grid ------------------------------------------------------------------------------------------------------------


def test_a_grid_is_one_batch_in_the_order_of_its_factors():
    spec = sweep(GridSearch(), learning_rate=(1e-4, 1e-3), lbp_bins=(128, 256))
    search = make_strategy(spec, TYPES)
    assert search.total == 8 * 4 + 7 * 2
    assert search.ask() == expand(spec, TYPES)
    assert search.ask() == []
    assert search.notes == ()


@pytest.mark.parametrize("search", [GridSearch(), RandomSearch(trials=3), TpeSearch(trials=3)])
def test_streams_that_are_not_in_the_cache_are_named_by_every_search(search):
    with pytest.raises(
        SpecError, match=r"factors\.streams\[0\]: 'resnet' is not in the cache, did you mean 'resnet50'"
    ):
        make_strategy(sweep(search, streams=(("resnet",),)), TYPES)


def test_a_score_of_something_else_is_refused():
    search = make_strategy(sweep(GridSearch()), TYPES)
    search.ask()
    with pytest.raises(ValueError, match="score of a configuration that is not in the batch: abc"):
        search.tell({"abc": 0.5})


# --- random ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_random_search_tries_each_once_and_only_what_the_grid_has(seed):
    factors = {"learning_rate": (1e-4, 1e-3), "lbp_bins": (128, 256), "head": ("concat", "linear"), "depth": (1, 2, 3)}
    grid = {c.key for c in expand(sweep(GridSearch(), **factors), TYPES)}
    search = make_strategy(sweep(RandomSearch(trials=50, seed=seed), **factors), TYPES)
    found = [c.key for c in search.ask()]
    assert len(found) == len(set(found)) == search.total == 50
    assert set(found) <= grid
    assert search.ask() == []
    assert search.notes == ()


def test_a_random_search_depends_on_its_seed_alone():
    factors = {"learning_rate": RATES, "depth": (1, 2, 3)}
    asked = [make_strategy(sweep(RandomSearch(trials=20, seed=seed), **factors), TYPES).ask() for seed in (0, 0, 1)]
    assert asked[0] == asked[1]
    assert not {c.key for c in asked[0]} & {c.key for c in asked[2]}


def test_random_draws_are_the_same_on_every_machine():
    # Golden values: a change here makes a random sweep that was begun train others.
    space = Space.of(sweep(RandomSearch(trials=9), learning_rate=RATES, dropout=Range(low=0, high=0.5)), TYPES)
    drawn = [
        ("+".join(values["streams"]), values["learning_rate"], values["dropout"])
        for values in islice(draws(space, 0), 3)
    ]
    assert drawn == [
        ("lbp+action_units", 0.000623745, 0.430108),
        ("lbp+landmarks+action_units+resnet50", 3.11703e-05, 0.336169),
        ("lbp+action_units", 0.00295109, 0.0713243),
    ]
    space = Space.of(sweep(RandomSearch(trials=9), learning_rate=(1e-4, 1e-3)), TYPES)
    drawn = [("+".join(values["streams"]), values["learning_rate"]) for values in islice(draws(space, 0), 3)]
    assert drawn == [
        ("lbp+landmarks", 0.001),
        ("lbp+action_units+resnet50", 0.0001),
        ("lbp+landmarks+action_units", 0.001),
    ]


def test_a_factor_more_leaves_the_draws_of_the_others():
    few = Space.of(sweep(RandomSearch(trials=9), learning_rate=RATES), TYPES)
    more = Space.of(sweep(RandomSearch(trials=9), learning_rate=RATES, weight_decay=Range(low=0, high=1)), TYPES)
    for one, other in islice(zip(draws(few, 3), draws(more, 3), strict=False), 50):
        assert one == {name: other[name] for name in one}


def test_every_value_of_a_list_is_drawn_equally_often():
    space = Space.of(sweep(RandomSearch(trials=9), learning_rate=RATES, depth=(1, 2, 3)), TYPES)
    drawn = list(islice(draws(space, 0), 6000))
    depths = Counter(values["depth"] for values in drawn)
    assert all(abs(depths[depth] - 2000) < 4 * math.sqrt(6000 * 2 / 9) for depth in (1, 2, 3))
    subsets = Counter(values["streams"] for values in drawn)
    assert len(subsets) == 15
    assert all(abs(count - 400) < 4 * math.sqrt(6000 * 14 / 225) for count in subsets.values())


def test_a_logarithmic_range_is_even_on_its_scale_and_any_range_keeps_its_ends():
    linear = Range(low=-1, high=3)
    spec = SweepSpec.model_construct(**dict(sweep(RandomSearch(trials=9))))
    space = Space(spec, TYPES, {"log": RATES, "linear": linear}, frozenset(), {})
    drawn = list(islice(draws(space, 0), 4000))
    logs = np.log10([values["log"] for values in drawn])
    assert np.histogram(logs, bins=4, range=(-5, -1))[0] == pytest.approx([1000] * 4, abs=4 * math.sqrt(750))
    values = np.array([values["linear"] for values in drawn])
    assert np.histogram(values, bins=4, range=(-1, 3))[0] == pytest.approx([1000] * 4, abs=4 * math.sqrt(750))
    narrow = Range(low=math.nextafter(0.1, 1), high=math.nextafter(math.nextafter(0.1, 1), 1), log=True)
    space = Space(spec, TYPES, {"narrow": narrow}, frozenset(), {})
    assert {values["narrow"] for values in islice(draws(space, 0), 50)} <= {narrow.low, narrow.high}


def test_what_is_drawn_from_a_range_has_six_digits():
    drawn = make_strategy(sweep(RandomSearch(trials=50), learning_rate=RATES), TYPES).ask()
    rates = [c.run.train.learning_rate for c in drawn]
    assert all(float(f"{rate:.6g}") == rate for rate in rates)
    assert len(set(rates)) == 50


@pytest.mark.parametrize("kind", [RandomSearch, TpeSearch])
def test_more_trials_than_configurations_are_all_of_them_and_it_says_so(kind):
    factors = {"lbp_bins": (128, 256)}
    search = make_strategy(sweep(kind(trials=24), **factors), TYPES)
    assert search.ask() == expand(sweep(GridSearch(), **factors), TYPES)
    assert search.total == 8 * 2 + 7
    assert search.notes == ("The factors have 23 configurations, fewer than 24 trials: all of them are trained.",)
    exact = make_strategy(sweep(kind(trials=23), **factors), TYPES)
    assert (exact.total, exact.notes) == (23, ())


@pytest.mark.parametrize("kind", [RandomSearch, TpeSearch])
def test_a_range_that_nothing_uses_ends_the_search_and_it_says_so(kind):
    factors = {"streams": (("lbp",), ("resnet50",)), "head": (LinearHeadSpec(), ConcatHeadSpec(depth=0))}
    search = make_strategy(sweep(kind(trials=9), dropout=Range(low=0, high=0.5), **factors), TYPES)
    found = flat(play(search))
    assert len(found) == len({c.key for c in found}) == 4
    assert search.notes == ("The factors have 4 configurations, fewer than 9 trials: all of them are trained.",)


# --- tpe -------------------------------------------------------------------------------------------------------------

TPE = {
    "streams": "all",
    "head": (ConcatHeadSpec(), LinearHeadSpec(), AttentionHeadSpec()),
    "depth": (1, 2),
    "lbp_bins": (128, 256, 512),
    "learning_rate": RATES,
    "batch_size": (64, 32, 128),
}


@pytest.mark.parametrize("streams", ["all", "leave_one_out", (("lbp",), ("lbp", "resnet50"))])
def test_tpe_asks_in_batches_and_never_twice(streams):
    spec = sweep(TpeSearch(trials=70, batch=16, startup=20), **{**TPE, "streams": streams})
    search = make_strategy(spec, TYPES)
    batches = play(search)
    assert [len(batch) for batch in batches] == [16, 16, 16, 16, 6]
    found = flat(batches)
    assert len({c.key for c in found}) == search.total == 70
    assert search.ask() == []
    for c in found:
        assert c.run.features.streams
        assert c == Space.of(spec, TYPES).configuration({**_values(c)})
        assert RATES.low <= c.run.train.learning_rate <= RATES.high


def _values(configuration) -> dict:
    run = configuration.run
    heads = {head.kind: head for head in TPE["head"]}
    values = {**run.features.model_dump(), **run.head.model_dump(), **run.train.model_dump()}
    values = {name: values[name] for name in TPE if name in values}
    return {**values, "head": heads[run.head.kind]}


def test_tpe_gives_the_same_again_for_the_same_scores():
    spec = sweep(TpeSearch(trials=60, batch=10, startup=20, seed=3), **TPE)
    first = play(make_strategy(spec, TYPES))
    scores = {c.key: score(c) for c in flat(first)}
    replayed = play(make_strategy(spec, TYPES), tell=lambda c: scores[c.key])
    assert replayed == first
    other = play(make_strategy(sweep(TpeSearch(trials=60, batch=10, startup=20, seed=4), **TPE), TYPES))
    assert other[0] != first[0]


def test_tpe_is_the_same_whatever_the_order_and_pieces_it_is_told_in():
    spec = sweep(TpeSearch(trials=60, batch=10, startup=20), **TPE)
    expected = play(make_strategy(spec, TYPES))
    search, found = make_strategy(spec, TYPES), []
    while batch := search.ask():
        found.append(batch)
        for c in reversed(batch):
            search.tell({c.key: score(c)})
    assert found == expected


def test_a_killed_tpe_sweep_goes_on_where_it_was():
    spec = sweep(TpeSearch(trials=60, batch=10, startup=20), **TPE)
    whole = play(make_strategy(spec, TYPES))
    before = play(make_strategy(spec, TYPES), batches=3)
    rows = {c.key: score(c) for c in flat(before)}
    search, trained = make_strategy(spec, TYPES), []
    while batch := search.ask():
        trained += [c for c in batch if c.key not in rows]
        search.tell({c.key: rows.get(c.key, score(c)) for c in batch})
    assert trained == flat(whole[3:])


def test_tpe_finds_better_ones_than_chance():
    factors = {"streams": "all", "learning_rate": RATES, "depth": (1, 2, 3), "width": (64, 128, 256)}
    wins = 0
    for seed in range(5):
        guided = flat(play(make_strategy(sweep(TpeSearch(trials=96, startup=32, seed=seed), **factors), TYPES)))
        drawn = flat(play(make_strategy(sweep(RandomSearch(trials=96, seed=seed), **factors), TYPES)))
        assert np.mean([score(c) for c in guided[48:]]) > np.mean([score(c) for c in drawn[48:]]) + 0.5
        wins += max(map(score, guided)) >= max(map(score, drawn))
    assert wins >= 4


@pytest.mark.parametrize("trials", [44, 45])
def test_tpe_reaches_the_last_configuration_without_stalling(trials):
    """45 configurations: at the end, nearly every proposal is one that was tried."""
    factors = {"streams": "all", "learning_rate": (1e-4, 1e-3, 1e-2)}
    found = flat(play(make_strategy(sweep(TpeSearch(trials=trials, batch=8, startup=5), **factors), TYPES)))
    assert len({c.key for c in found}) == len(found) == trials


def test_what_was_tried_is_told_again_from_memory():
    factors = {"streams": "all", "learning_rate": (1e-4, 1e-3, 1e-2)}
    search = make_strategy(sweep(TpeSearch(trials=40, batch=8, startup=5), **factors), TYPES)
    found = flat(play(search))
    told = Counter(trial.value for trial in search._study.trials if trial.value is not None)
    assert sum(told.values()) > len(found) == 40
    assert set(told) == {score(c) for c in found}
    assert not [trial for trial in search._study.trials if not trial.state.is_finished()]


def test_tpe_passes_over_what_diverged_and_over_no_stream_at_all():
    factors = {"streams": "all", "learning_rate": RATES}
    search = make_strategy(sweep(TpeSearch(trials=100, batch=10, startup=20), **factors), TYPES)

    def tell(configuration):
        rate = configuration.run.train.learning_rate
        return None if rate > 1e-2 else math.nan if rate > 5e-3 else score(configuration)

    found = flat(play(search, tell))
    assert len(found) == 100
    early, late = ([tell(c) is None for c in part] for part in (found[:20], found[60:]))
    assert np.mean(late) < np.mean(early)
    empty = [t for t in search._study.trials if not any(v for n, v in t.params.items() if n.startswith("streams."))]
    assert empty
    assert {trial.state.name for trial in empty} == {"PRUNED"}


def test_tpe_waits_for_the_scores_of_a_batch():
    search = make_strategy(sweep(TpeSearch(trials=20, batch=8), learning_rate=RATES), TYPES)
    batch = search.ask()
    search.tell({batch[0].key: 0.5})
    with pytest.raises(ValueError, match="scores of the previous batch are missing: 7"):
        search.ask()
    with pytest.raises(ValueError, match="score of a configuration that is not in the batch: abc"):
        search.tell({"abc": 0.5})


def test_a_factor_without_a_use_is_not_suggested():
    search = make_strategy(sweep(TpeSearch(trials=40), **TPE), TYPES)
    play(search)
    for trial in search._study.trials:
        asked = set(trial.params)
        assert ("lbp_bins" in asked) == trial.params["streams.lbp"]
        assert ("depth" in asked) == (trial.params["head"] != 1)


def test_optuna_says_nothing_and_keeps_its_own_level(caplog, capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        play(make_strategy(sweep(TpeSearch(trials=40), **TPE), TYPES))
    assert optuna.logging.get_verbosity() == before
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_optuna_is_loaded_by_a_tpe_search_alone():
    code = """if True:
        import sys
        from emofuse.specs import SweepSpec
        from emofuse.sweep.configurations import StreamType
        from emofuse.sweep.strategies import make_strategy
        types = {name: StreamType("backbone") for name in "abc"}
        for search in ("grid", {"kind": "random", "trials": 3}):
            make_strategy(SweepSpec(name="x", search=search), types).ask()
        print(*{"optuna", "torch", "zarr"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_one_batch_is_asked_for_whatever_it_is_told():
    search = OneBatch(expand(sweep(GridSearch(), streams=(("lbp",),)), TYPES))
    (configuration,) = search.ask()
    search.tell({configuration.key: None})
    assert search.ask() == []
