"""Runs on numbers, several labels and distributions are explained by the scores of their targets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from emofuse.analysis.answers import read_tested
from emofuse.analysis.attributions import attribute_streams
from emofuse.analysis.cached_rows import open_run, rows_of_samples
from emofuse.analysis.context import Analysis
from emofuse.analysis.explain import ExplainOptions, explain, explain_samples
from emofuse.analysis.gradients import integrated_gradients
from emofuse.analysis.samples import _slope
from emofuse.analysis.sources import open_source
from emofuse.analysis.subsets import saved_subsets
from emofuse.analysis.suppression import SuppressionOptions, strata_of, suppress_streams
from emofuse.analysis.temperatures import calibrated_answers, decisions
from emofuse.analysis.worth import measure_worth
from emofuse.cache.reader import Cache
from emofuse.errors import ResultsError
from emofuse.metrics.regression import regression_scores
from emofuse.report.row_errors import row_errors
from emofuse.specs import RunSpec, parse_spec
from emofuse.statistics import Resampling
from emofuse.training.runs import train_runs

TARGETS = {
    "regression": {"kind": "regression", "columns": ["valence", "arousal"]},
    "multilabel": {"kind": "multilabel", "columns": ["happy", "tense"]},
    "distribution": {
        "kind": "distribution",
        "columns": {"joy": "joy_votes", "fear": "fear_votes", "calm": "calm_votes"},
        "label": "majority",
    },
}
NETWORK = {
    "head": {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 16},
    "train": {"epochs": 20, "learning_rate": 1e-2, "batch_size": 16},
}
RIDGE = {"head": {"kind": "kernel_ridge", "landmarks": 60}}


def spec_of(kind, index, streams=("net", "face"), name="network", how=NETWORK):
    plain = {"name": name, "features": {"streams": list(streams)}, "target": TARGETS[kind], **how}
    return parse_spec(RunSpec, {**plain, "split": {"kind": "outer_folds", "count": 2, "index": index}}, "test")


@pytest.fixture(scope="module")
def trained(plant_targets, tmp_path_factory):
    """A folder for each kind of target: the fusion of both streams by a network, and each stream alone by a ridge."""
    folder = tmp_path_factory.mktemp("targets")
    cache = plant_targets(folder / "features.zarr")
    folders = {}
    for kind in TARGETS:
        folders[kind] = folder / kind
        specs = [spec_of(kind, index) for index in (0, 1)]
        specs += [spec_of(kind, index, [name], name, RIDGE) for name in ("net", "face") for index in (0, 1)]
        train_runs(cache, specs, folders[kind] / "runs", device="cpu")
    return SimpleNamespace(cache=cache, folders=folders, path=folder / "features.zarr")


@pytest.fixture(autouse=True)
def _columns_of_the_cache(trained, monkeypatch):
    monkeypatch.setattr("emofuse.analysis.sources.open_cache", lambda _: trained.cache)  # they are not on the disk


def opened_of(trained, kind, name="network"):
    source = open_source(trained.folders[kind], cache=trained.path, configuration=name)
    (tested,) = read_tested([source.chosen], source.runs)
    return source, tested


def options_of(trained, **given):
    return ExplainOptions(configuration="network", cache=trained.path, draws=2, resamples=60, folds=2, **given)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_stream_that_tells_the_target_is_missed_by_the_score_of_the_target(trained, kind):
    source, tested = opened_of(trained, kind)
    found = suppress_streams(trained.cache, source.runs, tested, SuppressionOptions(draws=3, resamples=100))
    main, *others = {
        "regression": ("mean_ccc", "mean_rmse"),
        "multilabel": ("macro_map", "macro_f1"),
        "distribution": ("accuracy", "macro_f1", "distribution_js"),
    }[kind]
    assert {drop.score for drop in found.drops} == {main, *others}
    for method in ("missing", "mean", "shuffled"):
        assert found.get("net", method).interval.low > 0.08
        for score in others:  # also of RMSE and of the distance, of which less is better
            assert found.get("net", method, score).drop > 0
    within = "shuffled_in_class" if kind == "distribution" else "shuffled_in_stratum"
    assert found.get("net", within).drop < found.get("net", "shuffled").drop
    if kind == "regression":
        (rows,) = tested.repeats
        assert found.get("net", "mean").full == pytest.approx(regression_scores(rows.target, rows.outputs)["ccc"][0])


def test_rows_exchange_a_stream_within_similar_values_or_the_same_set_of_labels():
    label = np.array([0, 1, 1])
    assert strata_of("class", label, None) is label
    numbers = np.arange(40.0)[:, None]
    assert np.bincount(strata_of("regression", label, numbers)).tolist() == [8] * 5
    both = np.stack([np.arange(72) % 9, np.arange(72) // 8], axis=1).astype(float)
    strata = strata_of("regression", label, both)
    assert len(np.unique(strata)) == 9  # thirds of both columns
    few = strata_of("regression", label, both[:20])
    assert np.array_equal(few, (both[:20, 0] >= np.median(both[:20, 0])).astype(int))
    sets = np.array([[1, 0]] * 9 + [[0, 0]] * 8 + [[1, 1]] * 3 + [[0, 1]] * 2)
    strata = strata_of("multilabel", label, sets)
    assert len(set(strata[:9])) == len(set(strata[9:17])) == len(set(strata[17:])) == 1
    assert len(set(strata)) == 3


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_contributions_are_explained_for_labels_and_for_both_ends_of_columns(trained, kind):
    source, tested = opened_of(trained, kind)
    found = attribute_streams(trained.cache, source.runs, tested)
    names = {
        "regression": ("high valence", "low valence", "high arousal", "low arousal"),
        "multilabel": ("happy", "tense"),
    }
    assert found.outcomes == names[kind]
    net = tested.item.streams.index("net")
    assert (found.totals[:, net] > 0).all()
    assert (found.totals[:, net] > np.abs(found.totals[:, 1 - net])).all()
    assert found.error < 0.05 * found.scale


def test_contributions_to_numbers_sum_to_the_answer_in_its_unit_less_that_of_the_mean(trained):
    source, tested = opened_of(trained, "regression")
    record, places = tested.repeats[0].parts[0]
    rows = rows_of_samples(trained.cache, tested.repeats[0].sample_id[places])
    opened = open_run(trained.cache, source.runs, record, rows)
    valence = np.zeros(len(rows), np.int64)
    found = integrated_gradients(opened.trained, opened.inputs, valence, steps=100, against_others=False)
    baseline = [
        type(seen)({name: np.zeros_like(each) for name, each in seen.features.items()}, seen.valid, seen.steps)
        for seen in opened.inputs
    ]
    expected = opened.trained.answers(opened.inputs)[:, 0] - opened.trained.answers(baseline)[:, 0]
    assert np.ptp(expected) > 20
    assert found.of_stream("net") + found.of_stream("face") == pytest.approx(expected, abs=0.5)


def test_the_worth_of_saved_runs_of_all_subsets_is_measured_by_ccc_and_by_column(trained):
    source, tested = opened_of(trained, "regression")
    worth = measure_worth(saved_subsets(source.results, source.runs, cache=trained.cache), Resampling(100, 0))
    (rows,) = tested.repeats
    values = dict(zip(worth.game.subsets, worth.values["mean_ccc"], strict=True))
    expected = regression_scores(rows.target, rows.outputs)["ccc"]
    assert values[frozenset({"net", "face"})].value == pytest.approx(expected[0])
    assert values[frozenset()].value == pytest.approx(0, abs=0.05)  # the mean of the training rows
    assert worth.values["ccc.1"][-1].value == pytest.approx(expected[2])
    assert sum(worth.get(name).value for name in ("net", "face")) == pytest.approx(worth.total)
    assert worth.get("net").interval.low > 0.1


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_every_part_that_the_target_allows_is_made_and_the_others_are_named_with_their_reason(trained, tmp_path, kind):
    said = []
    written, sections = explain(trained.folders[kind], options_of(trained, out=tmp_path), said.append)
    assert written.is_file()
    by_key = {section.key: section for section in sections}
    possible = {"worth", "suppression", "mistakes", "label_noise", "attributions"}
    assert possible | ({"calibration"} if kind == "multilabel" else set()) <= by_key.keys()
    name = {"regression": "CCC", "multilabel": "mAP"}[kind]
    assert f"of {name} [" in by_key["worth"].sentences[0]
    assert f"its {name} of" in by_key["suppression"].tables[0].caption
    assert [column.title for column in by_key["worth"].tables[1].table.columns][1] == name
    assert "feature_space needs rows with a class" in said[0]
    with pytest.raises(
        ResultsError, match=rf"feature_space: not possible, network predicts {kind}: feature_space needs"
    ):
        explain(trained.folders[kind], options_of(trained, parts=("worth", "feature_space"), out=tmp_path))


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_a_sample_without_a_class_is_explained_by_a_column_or_a_label(trained, tmp_path, kind):
    options = options_of(trained, out=tmp_path)
    (each,) = explain_samples(trained.folders[kind], options, ["s0007"])
    if kind == "regression":
        assert each.explained == "valence"
        assert each.label.startswith("valence ")
        assert list(each.outputs) == ["valence", "arousal"]
    else:
        assert each.explained == next(iter(each.outputs))
    (other,) = explain_samples(trained.folders[kind], options, ["s0007"], explained=TARGETS[kind]["columns"][1])
    assert other.explained == TARGETS[kind]["columns"][1]
    part = {"regression": "column", "multilabel": "label"}[kind]
    with pytest.raises(ResultsError, match=rf"no {part} 'joy' \(there are: "):
        list(explain_samples(trained.folders[kind], options, ["s0007"], explained="joy"))


def test_errors_of_numbers_are_compared_with_the_best_single_stream_and_doubtful_values_named(trained, tmp_path):
    options = options_of(trained, out=tmp_path, parts=("mistakes", "label_noise"))
    _, (mistakes, noise) = explain(trained.folders["regression"], options)
    _, tested = opened_of(trained, "regression")
    _, single = opened_of(trained, "regression", "net")
    rows, other = tested.mean, single.mean
    errors = row_errors("regression", rows.target, rows.outputs)
    assert [row["error"] for row in mistakes.tables[0].rows[:3]] == pytest.approx(np.sort(errors)[::-1][:3])
    assert mistakes.numbers["other"] == "net"
    better = row_errors("regression", other.target, other.outputs) - errors > 0
    assert mistakes.numbers["smaller"] == better.sum()
    assert noise.numbers["suspects"] == sum(noise.numbers["by_part"].values())
    assert noise.tables[0].stem == "label_noise_by_part"


def test_subgroups_and_people_are_compared_by_the_score_of_the_target(trained, tmp_path, monkeypatch):
    sex = np.where(np.arange(160) % 3 > 0, "f", "m").tolist()
    table = trained.cache.manifest.table.with_columns(pl.Series("sex", sex))
    cache = Cache(
        trained.path, trained.cache.layout, replace(trained.cache.manifest, table=table), trained.cache.streams
    )
    monkeypatch.setattr("emofuse.analysis.sources.open_cache", lambda _: cache)
    options = options_of(trained, out=tmp_path, parts=("subgroups", "fairness"))
    _, (subgroups, fairness) = explain(trained.folders["regression"], options)
    _, tested = opened_of(trained, "regression")
    rows = tested.mean
    place = rows_of_samples(cache, rows.sample_id)
    of_sex = {name: np.array(sex)[place] == name for name in ("f", "m")}
    expected = {
        name: regression_scores(rows.target[here], rows.outputs[here])["ccc"][0] for name, here in of_sex.items()
    }
    groups = {group["group"]: group for group in fairness.numbers["attributes"]["sex"]["groups"]}
    for name, score in expected.items():
        assert groups[name]["mean_ccc"] == pytest.approx(score)
        assert groups[name]["mean_ccc_low"] < score < groups[name]["mean_ccc_high"]
    assert "the CCC of network is highest for" in fairness.sentences[0]
    listed = {(row["compared"], row["attribute"], row["subgroup"]): row for row in subgroups.numbers["comparisons"]}
    assert {"class", "valence", "arousal"}.isdisjoint(attribute for _, attribute, _ in listed)
    assert listed["net", "sex", "f"]["difference"] > 0.1  # the solved model of all streams less that without net
    assert subgroups.tables[0].table.columns[3].title == "CCC"


def test_each_label_is_a_decision_whose_confidence_is_calibrated(trained):
    answers = calibrated_answers(
        Analysis(open_source(trained.folders["multilabel"], cache=trained.path), ExplainOptions())
    )
    tested = answers.before.shape[0] // 2
    assert answers.of_labels == 2
    assert answers.before.shape == (2 * tested, 2)
    assert np.allclose(answers.before.sum(axis=1), 1)
    assert np.bincount(answers.unit).tolist() == [2] * tested
    same = (answers.before.argmax(axis=1) == answers.after.argmax(axis=1)).mean()
    assert same == 1  # a temperature changes no decision
    assert len(answers.temperatures) == 2
    outputs, target = np.array([[0.9, 0.3]]), np.array([[1.0, 0.0]])
    probs, has, unit = decisions("multilabel", outputs, np.array([-1]), np.array([5]), target=target)
    assert probs == pytest.approx(np.array([[0.1, 0.9], [0.7, 0.3]]))
    assert (has.tolist(), unit.tolist()) == ([1, 0], [5, 5])


@pytest.mark.parametrize("kind", ["regression", "distribution"])
def test_the_slope_of_heat_is_that_of_the_answer_of_a_column_and_of_a_class_against_the_others(trained, kind):
    source, tested = opened_of(trained, kind)
    record, places = tested.repeats[0].parts[0]
    row = rows_of_samples(trained.cache, tested.repeats[0].sample_id[places][:1])
    opened = open_run(trained.cache, source.runs, record, row)
    has_classes = kind == "distribution"
    slope = _slope(opened, "net", 1, against_others=has_classes)
    (seen,), each = opened.inputs, opened.trained.heads[0]
    answers = []
    for step in (-1e-2, 1e-2):
        moved = seen.features["net"].copy()
        moved[0, 2] += step / each.scaling["net"].scale[2]
        answers.append(opened.trained.answers([replace(seen, features={**seen.features, "net": moved})])[0])
    scores = [np.log(each) - np.log(each).mean() if has_classes else each for each in answers]
    unit = 1 if has_classes else each.target_scale.scale[1]
    assert (scores[1] - scores[0])[1] / 2e-2 == pytest.approx(slope[2] * unit, rel=0.02, abs=1e-3)
