"""`emofuse sweep best`: what is tried within a time, what is recommended, and that test rows choose nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_question import add_sequence_and_map, finished_groups, planted

from emofuse.cache.reader import open_cache
from emofuse.errors import SpecError, TrainingError
from emofuse.results import ResultPaths, list_runs, read_predictions, run_dir
from emofuse.specs import RunSpec, StratifiedSplit, TrainSpec, parse_spec
from emofuse.sweep import best_candidates, best_search, trainers
from emofuse.sweep.best import FOLDS, BestOptions, plan_best, run_best, spec_of_best
from emofuse.sweep.best_candidates import STAGES, Candidates, Ranked
from emofuse.sweep.best_search import BestSearch
from emofuse.sweep.configurations import StreamType
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.searching import open_trainer
from emofuse.training.trained import load_head

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

ON_CPU = SweepOptions(device="cpu")
ENOUGH = BestOptions(minutes=60.0)


@pytest.fixture(autouse=True, scope="module")
def _small_networks():
    train = TrainSpec(epochs=2, batch_size=32, learning_rate=1e-2, patience=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_candidates, "_SIZES", {"embed_dim": 4, "width": 4, "depth": 1})
        patch.setattr(best_candidates, "_DROPOUTS", (0.3,))
        patch.setattr(best_candidates, "_CHANGES", ({"dropout": 0.6}, {"stream_dropout": 0.2}))
        patch.setattr(
            Candidates, "_train", lambda _, learning_rate: train.model_copy(update={"learning_rate": learning_rate})
        )
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    return open_cache(write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", **planted()))


@pytest.fixture(scope="module")
def done(cache, tmp_path_factory):
    """A finished search that nothing disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return run_best(cache, ENOUGH, folder, ON_CPU), folder


@pytest.fixture
def search(cache, monkeypatch):
    """Makes the strategy of a search of some seconds, for which every run has a row of some seconds."""
    asked: list[str] = []
    original = best_search.searched_runs

    def searched(*arguments):
        runs = original(*arguments)
        asked.extend(run.digest for run in runs)
        return runs

    monkeypatch.setattr(best_search, "searched_runs", searched)

    def make(seconds: float, row_seconds: float = 0.0) -> BestSearch:
        spec = spec_of_best(cache, ENOUGH)
        with open_trainer(cache, spec, ON_CPU) as trainer:
            candidates = Candidates({name: StreamType("backbone") for name in cache.streams}, spec.base.split, 90)
            return BestSearch(candidates, spec, trainer, _Rows(asked, row_seconds), seconds)

    return make


class _Rows:
    """Rows of which every run took the same time."""

    def __init__(self, asked: list[str], seconds: float) -> None:
        self._asked, self._seconds = asked, seconds

    def rows(self):
        return [SimpleNamespace(digest=digest, seconds=self._seconds) for digest in self._asked]


def tried_by(search: BestSearch) -> list:
    """Let a search run to its end, with scores by the order of the candidates."""
    tried = []
    while batch := search.ask():
        tried += batch
        search.tell({each.key: -float(len(each.name)) for each in batch})
    return tried


# --- one search ------------------------------------------------------------------------------------------------------


def test_one_call_tries_exact_heads_and_networks_and_saves_the_mean_of_the_best_ones_fold_heads(done):
    found, folder = done
    kinds = {each.configuration.run.head.kind for each in found.summary.scored}
    assert kinds == {"kernel_ridge", "logistic", "averaged_logistic", "concat", "late", "attention"}
    assert len({each.configuration.run.features.streams for each in found.summary.scored}) == 3
    (record,) = list_runs(ResultPaths(folder).runs)
    assert record.digest == found.record.digest
    assert (record.name, len(record.heads)) == (found.summary.choice.ranked[0].configuration.name, FOLDS)
    assert len(load_head(found.folder).heads) == FOLDS
    assert found.summary.report.page.is_file()
    tried, why, result, _, use = found.sentences
    assert tried.startswith(f"Tried: {len(found.summary.scored)} candidates on 3 subsets of the streams, ")
    assert why.startswith(f"Recommended: {record.name}, because its accuracy on rows that its heads did not learn from")
    assert result.startswith("It is the mean of 5 heads. On ")
    assert use == f"Use it: emofuse predict {found.folder} IMAGE"


def test_the_score_of_the_search_is_that_of_the_saved_heads_on_the_rows_they_did_not_learn_from(cache, done):
    found, _ = done
    used = found.summary.choice.ranked[0]
    folds = np.array([row.val_accuracy for row in used.rows])
    assert used.score == pytest.approx(folds.mean())
    assert found.record.metrics["val"]["accuracy"] == pytest.approx(used.score, abs=0.01)  # folds differ by a row
    assert found.record.rows["val"]["rows"] == np.isin(cache.splits, ["train", "val"])[cache.labels >= 0].sum()


def test_a_second_call_trains_nothing_and_recommends_the_same(cache, done):
    first, folder = done
    groups = finished_groups(folder)
    second = run_best(cache, ENOUGH, folder, ON_CPU)
    assert (second.summary.trained, second.summary.finals.trained, second.summary.report_written) == (0, 0, False)
    assert second.sentences == first.sentences
    assert finished_groups(folder) == groups


def test_an_interrupted_search_continues_where_it_stopped(cache, done, tmp_path, monkeypatch):
    original, calls = trainers.train_rows, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(trainers, "train_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_best(cache, ENOUGH, tmp_path / "best", ON_CPU)
    kept = len(ResultsFolder(tmp_path / "best").rows())
    assert kept > 0
    found = run_best(cache, ENOUGH, tmp_path / "best", ON_CPU)
    lines = [line for path in finished_groups(tmp_path / "best") for line in path.read_text().splitlines()]
    digests = [json.loads(line)["digest"] for line in lines]
    assert len(digests) == len(set(digests)) == kept + found.summary.trained
    assert found.record.digest == done[0].record.digest


def test_poisoned_test_labels_and_features_change_no_choice(tmp_path, done, write_cache):
    question = planted()
    test = np.array(question["splits"]) == "test"
    question["labels"] = np.where(test & (question["labels"] >= 0), 2 - question["labels"], question["labels"])
    for name, (kind, features, status) in question["streams"].items():
        question["streams"][name] = kind, np.where(test[:, None], 100, features).astype(np.float32), status
    wrong = open_cache(write_cache(tmp_path / "wrong.zarr", **question))
    found, other = done[0], run_best(wrong, ENOUGH, tmp_path / "best", ON_CPU)
    assert other.record.name == found.record.name
    scores = [[each.score for each in one.summary.scored] for one in (found, other)]
    assert scores[0] == scores[1]
    assert found.record.metrics["test"] != other.record.metrics["test"]


def test_the_score_that_compares_candidates_can_be_chosen(cache, tmp_path):
    options = replace(ENOUGH, score="loss", streams=("signal",))
    found = run_best(cache, options, tmp_path / "best", ON_CPU)
    losses = [each.score for each in found.summary.scored]
    assert found.summary.choice.ranked[0].score == min(losses)
    assert "its loss on rows that its heads did not learn from is the lowest" in found.sentences[1]


def test_test_rows_may_be_drawn(cache, tmp_path):
    options = replace(ENOUGH, split=StratifiedSplit(seed=3), streams=("signal",))
    found = run_best(cache, options, tmp_path / "best", ON_CPU)
    predictions = read_predictions(run_dir(ResultPaths(tmp_path / "best").runs, found.record.digest))
    assert len(predictions.label) == found.record.rows["test"]["rows"] == 14


# --- what the time allows --------------------------------------------------------------------------------------------


def test_the_stages_follow_each_other_and_no_candidate_is_tried_twice(search):
    tried = tried_by(search(1e6))
    keys = [each.key for each in tried]
    assert len(keys) == len(set(keys))
    kinds = [each.run.head.kind for each in tried]
    first_network = next(place for place, kind in enumerate(kinds) if kind in {"concat", "late", "attention"})
    assert set(kinds[:3]) == {"kernel_ridge"}
    assert {"logistic", "averaged_logistic"} <= set(kinds[:first_network])


def test_however_short_the_time_there_is_one_candidate(search):
    strategy = search(0.0)
    (only,) = tried_by(strategy)
    assert only.run.head.kind == "kernel_ridge"
    assert len(strategy.notes) == 1
    assert strategy.notes[0].startswith("The time did not allow ")


def test_no_candidate_begins_once_the_time_is_used(search):
    longer = tried_by(search(1000.0, row_seconds=1.0))
    shorter = tried_by(search(100.0, row_seconds=1.0))
    assert 1 < len(shorter) < len(longer)
    assert len(shorter) * FOLDS <= 100
    assert len(longer) * FOLDS <= 1000


def test_with_little_time_every_kind_of_head_has_its_share(search):
    tried = tried_by(search(120.0, row_seconds=1.0))
    assert {"kernel_ridge", "logistic", "concat"} <= {each.run.head.kind for each in tried}


def test_time_that_a_stage_could_not_use_is_for_what_other_stages_left_out(search, monkeypatch):
    monkeypatch.setitem(best_search.SHARES, "look", 0.01)
    monkeypatch.setitem(best_search.SHARES, "exact", 0.01)
    monkeypatch.setitem(best_search.SHARES, "networks", 0.01)
    strategy = search(1e6, row_seconds=100.0)
    tried = tried_by(strategy)
    assert strategy.notes == ()
    assert {"kernel_ridge", "logistic", "averaged_logistic", "concat", "late", "attention"} == {
        each.run.head.kind for each in tried
    }


def test_scores_of_other_configurations_are_refused(search):
    strategy = search(1e6)
    strategy.ask()
    with pytest.raises(ValueError, match="score of a configuration that is not in the batch: x"):
        strategy.tell({"x": 1.0})
    with pytest.raises(ValueError, match="scores of the previous batch are missing"):
        strategy.ask()


def test_candidates_that_the_memory_does_not_allow_are_left_out_and_counted(search, monkeypatch):
    original = best_search.plan_runs

    def plan(data, runs, **options):
        if runs[0].head.kind == "logistic":
            raise TrainingError("logistic needs more memory")
        return original(data, runs, **options)

    monkeypatch.setattr(best_search, "plan_runs", plan)
    strategy = search(1e6)
    assert "logistic" not in {each.run.head.kind for each in tried_by(strategy)}
    assert strategy.notes == ("3 candidates were left out, because the memory does not allow them.",)


# --- candidates ------------------------------------------------------------------------------------------------------


def candidates_of(names, rows=500, **kinds):
    types = {name: kinds.get(name, StreamType("backbone")) for name in names}
    return Candidates(types, StratifiedSplit(), rows)


def test_all_subsets_of_few_streams_are_looked_at_and_some_of_many():
    few, many = candidates_of("abcd").subsets(), candidates_of("abcdefgh").subsets()
    assert (len(few), len(set(few))) == (15, 15)
    assert few[:6] == [tuple("abcd"), tuple("abc"), tuple("abd"), tuple("acd"), tuple("bcd"), ("a",)]
    assert candidates_of("a").subsets() == [("a",)]
    assert sorted({len(subset) for subset in many}) == [1, 2, 7, 8]
    assert len(many) == 8 + 28 + 8 + 1


def test_kernels_have_landmarks_only_where_there_are_more_rows():
    small, large = candidates_of("ab", rows=500), candidates_of("ab", rows=9_000)
    assert {each.run.head.landmarks for each in small.of_stage("look", [])} == {4096}
    assert {each.run.head.landmarks for each in large.of_stage("look", [])} == {512}


def test_sequences_and_maps_are_for_networks_alone():
    mixed = candidates_of("abc", c=StreamType("custom", is_sequence=True))
    assert mixed.vectors == ("a", "b")
    looked = [Ranked(each, 0.0) for each in mixed.of_stage("look", [])]
    assert {stream for each in mixed.of_stage("exact", looked) for stream in each.run.features.streams} == {"a", "b"}
    assert ("a", "b", "c") in {each.run.features.streams for each in mixed.of_stage("networks", looked)}


def test_a_cache_of_sequences_and_maps_alone_has_its_networks(tmp_path, write_cache):
    path = write_cache(tmp_path / "features.zarr", **planted())
    add_sequence_and_map(path)
    found = run_best(open_cache(path), replace(ENOUGH, streams=("sequence", "map")), tmp_path / "best", ON_CPU)
    assert {each.configuration.run.head.kind for each in found.summary.scored} == {"concat", "late", "attention"}


def test_names_of_candidates_are_unique_and_say_what_differs():
    made = candidates_of("abc", rows=9_000)
    tried: list = []
    for stage in STAGES:
        tried += made.of_stage(stage, [Ranked(each, 0.0) for each in tried])
    by_key = {each.key: each.name for each in tried}
    assert len(set(by_key.values())) == len(by_key)
    assert any(
        name.startswith("a+b+c, late, ") and ", dropout 0.3, learning_rate 0.0003" in name for name in by_key.values()
    )
    assert "a+b+c, kernel_ridge, kernel rbf, factor 0.5, landmarks 2048" in by_key.values()


# --- plans and errors ------------------------------------------------------------------------------------------------


def test_options_for_rare_classes_are_tried_where_the_score_counts_them_like_frequent_ones():
    candidates = candidates_of(["a", "b"])
    ranked = [
        Ranked(candidates.of_stage("look", [])[0], 1.0),
        Ranked(candidates.of_stage("networks", [Ranked(candidates.of_stage("look", [])[0], 1.0)])[0], 0.5),
    ]
    by_accuracy = candidates.of_stage("refine", ranked)
    by_f1 = replace(candidates, score="macro_f1").of_stage("refine", ranked)
    more = {each.name for each in by_f1} - {each.name for each in by_accuracy}
    assert {name.split(", ")[-1] for name in more} == {
        "logit_adjustment 0.5",
        "logit_adjustment 0.25",
        "class_weights balanced",
    }


def test_a_plan_counts_the_candidates_of_each_stage_and_writes_nothing(cache, tmp_path):
    lines = plan_best(cache, replace(ENOUGH, minutes=5), tmp_path / "best", ON_CPU).splitlines()
    assert lines[0] == "The best model of features: 5 minutes, 5 folds, candidates compared by accuracy"
    assert [line.split()[0] for line in lines[1:5]] == list(STAGES)
    assert lines[1].startswith("look      up to   3 candidates, all of them about ")
    assert not (tmp_path / "best").exists()


def test_a_stream_that_is_not_in_the_cache_is_named(cache, tmp_path):
    with pytest.raises(SpecError, match=r"streams: 'signa' is not in the cache, did you mean 'signal'\?"):
        run_best(cache, replace(ENOUGH, streams=("signa",)), tmp_path / "best", ON_CPU)


def test_a_cache_without_test_rows_is_refused_before_the_search(tmp_path, write_cache):
    question = planted()
    question["splits"] = ["train" if split == "test" else split for split in question["splits"]]
    cache = open_cache(write_cache(tmp_path / "features.zarr", **question))
    with pytest.raises(TrainingError, match="no labelled row has split 'test'"):
        run_best(cache, ENOUGH, tmp_path / "best", ON_CPU)
    assert not (tmp_path / "best" / "rows").exists()


def test_outer_folds_estimate_the_whole_search_on_all_rows(cache, tmp_path):
    options = replace(ENOUGH, streams=("signal",), test_folds=2)
    found = run_best(cache, options, tmp_path / "best", ON_CPU)
    assert len(found.nested.folds) == 2
    assert sum(record.rows["test"]["rows"] for record in found.nested.records) == (cache.labels >= 0).sum()
    assert found.sentences[3].startswith("The same search inside each of 2 outer folds, in which every row is tested")
    assert options.seconds == ENOUGH.seconds / 3


@pytest.mark.parametrize(
    ("kind", "columns", "select"),
    [
        ("regression", ["valence", "arousal"], "ccc"),
        ("distribution", ["joy_votes", "fear_votes", "calm_votes"], "accuracy"),
        ("multilabel", ["happy", "tense"], "map"),
    ],
)
def test_the_best_model_of_any_target_is_found_and_answers(plant_targets, tmp_path, kind, columns, select):
    cache = plant_targets(tmp_path / "features.zarr")
    plain = {"name": "a", "features": {"streams": ["net"]}, "target": {"kind": kind, "columns": columns}}
    target = parse_spec(RunSpec, plain, "test").target
    found = run_best(cache, replace(ENOUGH, target=target), tmp_path / "out", ON_CPU)
    assert found.spec.select == select
    assert found.record.target_kind == kind
    kinds = {each.configuration.run.head.kind for each in found.summary.scored}
    assert ("logistic" in kinds) is (kind != "regression")
    assert {"kernel_ridge", "concat", "late", "attention"} <= kinds
    words = {"regression": "CCC", "distribution": "accuracy", "multilabel": "mAP"}[kind]
    assert f"because its {words} on rows that its heads did not learn from is the highest" in found.sentences[1]
    assert f"which chose nothing: {words} " in found.sentences[2]
    assert read_predictions(found.folder).target is not None


def test_rows_are_weighted_in_the_search_and_in_the_recommended_run(plant_targets, tmp_path):
    cache = plant_targets(tmp_path / "features.zarr")
    plain = run_best(cache, ENOUGH, tmp_path / "plain", ON_CPU)
    found = run_best(cache, replace(ENOUGH, weight_column="weight"), tmp_path / "weighted", ON_CPU)
    assert {each.configuration.run.weight_column for each in found.summary.scored} == {"weight"}
    assert found.record.spec["weight_column"] == "weight"
    scores = {each.configuration.name: each.score for each in plain.summary.scored}
    assert any(scores.get(each.configuration.name) != each.score for each in found.summary.scored)


def test_outer_folds_estimate_a_regression_by_its_own_scores(plant_targets, tmp_path):
    cache = plant_targets(tmp_path / "features.zarr")
    plain = {"name": "a", "features": {"streams": ["net"]}, "target": {"kind": "regression", "columns": ["valence"]}}
    target = parse_spec(RunSpec, plain, "test").target
    options = replace(ENOUGH, streams=("net",), test_folds=2, target=target)
    found = run_best(cache, options, tmp_path / "out", ON_CPU)
    assert re.search(r"in which every row is tested once: CCC \d\.\d{3} \[.+\], RMSE [\d.]+ \[", found.sentences[3])
