from __future__ import annotations

import subprocess
import sys
from statistics import fmean, stdev

import pytest

from emofuse.specs import ConcatHeadSpec, FeaturesSpec, RunSpec, TrainSpec
from emofuse.statistics import corrected_resampled_t
from emofuse.sweep import choice as choosing
from emofuse.sweep.choice import Choice, factor_values, mean_and_error, objective, score_configurations
from emofuse.sweep.configurations import Configuration


def configuration(streams=("lbp",), rate=1e-4, width=8) -> Configuration:
    run = RunSpec(
        name=f"{'+'.join(streams)} {rate!r} {width}",
        features=FeaturesSpec(streams=streams),
        head=ConcatHeadSpec(width=width),
        train=TrainSpec(learning_rate=rate),
    )
    return Configuration(run.name, {"streams": list(streams), "learning_rate": rate, "width": width}, run)


@pytest.fixture
def scored(make_row):
    """Scores configurations from {configuration: macro F1 of each fold}; `changes` are of all rows of one."""

    def score(scores, select="macro_f1", changes=None):
        rows = {
            each.key: [
                make_row(
                    configuration=each.key,
                    fold=fold,
                    val_macro_f1=value,
                    val_accuracy=value,
                    val_loss=1.0,
                    **{"parameters": 100, **(changes or {}).get(each.key, {})},
                )
                for fold, value in enumerate(values)
            ]
            for each, values in scores
        }
        return score_configurations([each for each, _ in scores], rows, select)

    return score


def choose(items, select, best_of, baseline=("lbp",)) -> Choice:
    return choosing.choose(items, select, best_of, baseline)


def names(items) -> list[str]:
    return [each.configuration.name for each in items]


# --- mean and error --------------------------------------------------------------------------------------------------


def test_the_error_is_that_of_the_folds_means_which_share_training_rows(make_row):
    values = {0: [0.5, 0.7], 1: [0.4, 0.4], 2: [0.9, 0.5]}
    rows = [make_row(fold=fold, seed=seed, val_accuracy=v) for fold, of in values.items() for seed, v in enumerate(of)]
    mean, error = mean_and_error(rows[::-1], "accuracy")
    assert mean == pytest.approx(fmean([0.6, 0.4, 0.7]))
    corrected = corrected_resampled_t([0.6, 0.4, 0.7], test_to_train=1 / 2)  # a fold validates what two train
    assert error == pytest.approx(corrected.error)


def test_without_folds_the_error_is_that_of_the_seeds(make_row):
    rows = [make_row(fold=None, seed=seed, val_loss=value) for seed, value in enumerate([1.0, 2.0, 4.0, 5.0])]
    assert mean_and_error(rows, "loss") == pytest.approx((3.0, stdev([1.0, 2.0, 4.0, 5.0]) / 2))


def test_a_single_run_has_no_error(make_row):
    assert mean_and_error([make_row(val_macro_f1=0.4)], "macro_f1") == (0.4, None)


@pytest.mark.parametrize(
    "changes",
    [{"ended": "diverged"}, {"ended": "diverged", "val_macro_f1": None}, {"ended": "epochs", "val_macro_f1": None}],
)
def test_there_is_no_mean_with_a_run_that_diverged(make_row, changes):
    rows = [make_row(fold=0, val_macro_f1=0.9), make_row(fold=1, **changes)]
    assert mean_and_error(rows, "macro_f1") == (None, None)


def test_the_mean_does_not_depend_on_the_order_of_rows(make_row):
    rows = [make_row(fold=fold, val_macro_f1=0.1 + fold / 7) for fold in range(5)]
    assert len({mean_and_error(rows[start:] + rows[:start], "macro_f1") for start in range(5)}) == 1


# --- choice ----------------------------------------------------------------------------------------------------------


def test_the_best_of_every_value_is_a_finalist_and_the_best_of_all_comes_first(scored):
    a, b = ("lbp",), ("resnet50",)
    items = scored(
        [
            (configuration(a, 1e-4), [0.4, 0.4]),
            (configuration(a, 1e-3), [0.5, 0.5]),
            (configuration(b, 1e-4), [0.7, 0.8]),
            (configuration(b, 1e-3), [0.6, 0.6]),
        ]
    )
    choice = choose(items, "macro_f1", ("streams",))
    assert names(choice.finalists) == ["resnet50 0.0001 8", "lbp 0.001 8"]
    assert choice.finalists[0].score == pytest.approx(0.75)
    assert len(choice.ranked) == 4
    assert names(choose(items, "macro_f1", (), b).finalists) == ["resnet50 0.0001 8"]
    both = choose(items, "macro_f1", ("streams", "learning_rate"))
    assert len(both.finalists) == 4


def test_the_best_with_the_baselines_streams_is_a_finalist_too(scored):
    a, b, c = ("lbp", "objects"), ("resnet50",), ("objects",)
    items = scored([(configuration(a), [0.4]), (configuration(a, 1e-3), [0.5]), (configuration(b), [0.8])])
    choice = choose(items, "macro_f1", (), ("objects", "lbp"))
    assert names(choice.finalists) == ["resnet50 0.0001 8", "lbp+objects 0.001 8"]
    assert choice.baseline is choice.finalists[1]
    assert choose(items, "macro_f1", (), c).baseline is None


def test_the_smallest_loss_wins(scored, make_row):
    items = [configuration(rate=1e-4), configuration(rate=1e-3)]
    rows = {each.key: [make_row(val_loss=loss)] for each, loss in zip(items, (0.9, 0.3), strict=True)}
    choice = choose(score_configurations(items, rows, "loss"), "loss", ())
    assert choice.finalists[0].configuration is items[1]
    assert choice.finalists[0].score == 0.3
    assert (objective(0.3, "loss"), objective(0.3, "accuracy"), objective(None, "loss")) == (-0.3, 0.3, None)


def test_ties_go_to_loss_then_parameters_then_the_order_of_the_search(scored):
    small, large, later = configuration(width=8), configuration(width=16), configuration(width=32)
    of_all = [(later, [0.5]), (large, [0.5]), (small, [0.5])]
    assert choose(scored(of_all), "macro_f1", ()).ranked[0].configuration is later
    fewer = {small.key: {"parameters": 50}}
    assert choose(scored(of_all, changes=fewer), "macro_f1", ()).ranked[0].configuration is small
    lower = {**fewer, large.key: {"val_loss": 0.5}}
    assert choose(scored_with_loss(of_all, lower, scored), "macro_f1", ()).ranked[0].configuration is large


def scored_with_loss(scores, changes, scored):
    from dataclasses import replace

    items = scored(scores, changes={key: {"parameters": of.get("parameters", 100)} for key, of in changes.items()})
    return [replace(each, loss=changes.get(each.configuration.key, {}).get("val_loss", each.loss)) for each in items]


def test_a_configuration_that_diverged_in_one_fold_cannot_win(scored):
    wild, tame = configuration(rate=0.1), configuration(rate=1e-4)
    items = scored([(wild, [0.9, None]), (tame, [0.2, 0.2])], changes={wild.key: {"ended": "diverged"}})
    choice = choose(items, "macro_f1", ())
    assert names(choice.finalists) == [tame.name]
    assert names(choice.lost) == [wild.name]
    assert choice.lost[0].diverged == 2


def test_a_value_of_which_all_diverged_has_no_finalist_and_is_named(scored):
    wild, tame = configuration(("lbp", "objects")), configuration(("lbp",))
    items = scored([(wild, [0.9]), (tame, [0.2])], changes={wild.key: {"ended": "diverged"}})
    choice = choose(items, "macro_f1", ("streams",))
    assert names(choice.finalists) == [tame.name]
    assert choice.undecided == ("streams lbp+objects",)


def test_a_halved_configuration_comes_after_all_that_were_trained_to_the_end(scored):
    halved, whole = configuration(rate=1e-2), configuration(rate=1e-4)
    other = configuration(("objects",), 1e-2)
    items = scored(
        [(halved, [0.9]), (whole, [0.2]), (other, [0.8])],
        changes={each.key: {"ended": "halved"} for each in (halved, other)},
    )
    choice = choose(items, "macro_f1", ("streams",))
    assert names(choice.finalists) == [whole.name, other.name]
    assert [each.halved for each in choice.finalists] == [0, 1]


def test_a_factor_that_does_not_vary_is_one_value(scored):
    assert factor_values(configuration(), ("optimizer", "width")) == "optimizer -, width 8"
    items = scored([(configuration(rate=1e-4), [0.4]), (configuration(rate=1e-3), [0.5])])
    assert len(choose(items, "macro_f1", ("optimizer",)).finalists) == 1


def test_nothing_of_a_cache_or_of_training_is_loaded_by_the_choice():
    code = "import sys, emofuse.sweep.choice; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "emofuse.sweep.choice" in loaded
    forbidden = {"torch", "zarr", "emofuse.cache", "emofuse.features", "emofuse.training", "emofuse.datasets"}
    assert not loaded & forbidden
