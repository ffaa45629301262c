"""Sentences say what the records say."""

from __future__ import annotations

import pytest

from emofuse.report import sentences
from emofuse.report.configurations import group_runs
from emofuse.report.inputs import stream_uses

DEMO = {"name": "demo", "reachable_accuracy": {"scene": 0.4}, "cue_streams": {"scene": ["resnet50"]}}


@pytest.fixture
def make(make_run):
    def make(name, streams=("resnet50",), **how):
        return make_run(name, streams, **{"classes": ("joy", "fear"), "rows": 200, **how})

    return make


def test_random_weights_are_warned_of_with_streams_and_users(make):
    runs = [make("a", ("lbp",)), make("b", ("lbp", "resnet50", "places365"), random_weights=("resnet50", "places365"))]
    warning = sentences.random_weights_warning(group_runs(runs, "runs"))
    assert warning.startswith(
        "The extractors of resnet50 and places365 ran with random instead of pretrained weights. b use"
    )
    every = sentences.random_weights_warning(group_runs(runs[1:], "runs"))
    assert "Every configuration uses at least one of them." in every


def test_pretrained_weights_need_no_warning(make):
    assert sentences.random_weights_warning(group_runs([make("a")], "runs")) == ""


def test_the_headline_names_the_best_against_the_baseline(make):
    results = group_runs([make("weak", skill=0.1), make("strong", skill=0.9)], "runs")
    strong = results.configurations[1]
    gain = strong.metric("accuracy").mean - results.baseline.metric("accuracy").mean
    assert sentences.headline(results) == (
        f"Highest accuracy on the test split: strong, accuracy {strong.metric('accuracy').mean:.3f}, "
        f"macro F1 {strong.metric('macro.f1').mean:.3f}; +{gain:.3f} accuracy against weak."
    )


def test_the_headline_admits_that_nothing_beats_the_baseline(make):
    results = group_runs([make("weak", skill=0.1), make("strong", skill=0.9)], "runs", baseline="strong")
    assert sentences.headline(results).startswith("No configuration is above the baseline strong on the test split: ")
    single = group_runs([make("only")], "runs")
    assert sentences.headline(single).startswith("only reaches on the test split: accuracy ")


def test_reading_notes_say_what_repeats_are(make):
    one = sentences.reading_notes(group_runs([make("a")], "runs"))
    assert one[0] == "One run of each configuration, so without a spread."
    seeds = [make("a", split_seed=split, seed=seed) for split in (0, 1) for seed in (3, 4)]
    assert sentences.reading_notes(group_runs(seeds, "runs"))[0] == (
        "Mean ± standard deviation (n − 1) over the repeats, "
        "which differ in the seed of the split (0, 1) and the seed of the training (3, 4)."
    )


def test_reading_notes_give_the_standard_error_of_the_test_split(make):
    results = group_runs([make("a", skill=0.5)], "runs")
    accuracy = results.baseline.metric("accuracy").mean
    error = (accuracy * (1 - accuracy) / 20) ** 0.5
    expected = f"With 20 test rows, the binomial standard error of one accuracy near {accuracy:.2f} is {error:.3f}."
    assert expected in sentences.reading_notes(results)


def test_reachable_is_explained_only_where_it_is_known(make):
    known = sentences.reading_notes(group_runs([make("a", dataset=DEMO)], "runs"))
    assert known[-1].startswith("Reachable: the accuracy expected of a classifier that reads without error every cue")
    assert not any("Reachable" in note for note in sentences.reading_notes(group_runs([make("a")], "runs")))


def test_a_stream_without_a_valid_row_is_noticed(make):
    run = make("a", ("lbp", "objects"), missing={"objects": {"no_detection": 10**6}})
    results = group_runs([run], "runs")
    assert sentences.empty_stream_notices(results, stream_uses(results)) == [
        "Stream objects has no valid row: of 200 rows none has a vector. a learned nothing from it."
    ]


def test_notes_of_training_are_told_once(make):
    both = {"notes": ["5 rows are in no split."]}
    runs = [make("a", change=both), make("a", seed=1, change=both), make("b", change=both)]
    assert sentences.run_notes(group_runs(runs, "runs")) == ["5 rows are in no split."]
    assert sentences.run_notes(group_runs([*runs, make("c")], "runs")) == ["a and b: 5 rows are in no split."]


def test_the_method_tells_the_defaults(make):
    head = (
        "The head embeds each stream in 512 values (linear, then batch norm over the rows that have it), "
        "puts a learned vector in the place of a missing stream, joins the embeddings, "
        "and ends in 2 hidden layers of 512 values with ReLU and a softmax over 2 classes."
    )
    assert sentences.method(group_runs([make("a")], "runs")) == [
        "Rows follow the dataset's own split.",
        "Each stream's features are standardised with the mean and the deviation of the training rows that have it.",
        head,
        "Training minimises cross-entropy by Adam: learning rate 0.0001, batch size 64, 100 epochs.",
        "The weights kept are those of the epoch with the highest macro F1 on the validation rows.",
        "The test split chose nothing: it was scored once, with these weights.",
    ]


def test_the_method_tells_who_differs(make):
    options = {"optimizer": "adamw", "weight_decay": 0.01, "label_smoothing": 0.1, "patience": 5, "select": "loss"}
    runs = [make("a", train=options, split_seed=0), make("b", train=options, split_seed=0)]
    runs.append(make("c", ("action_units",), train=options | {"batch_size": 32, "weight_decay": 0.0}, split_seed=0))
    text = " ".join(sentences.method(group_runs(runs, "runs")))
    assert "a stratified 70/20/10 split into training, validation and test rows." in text
    assert "Facial action units are standardised with the median and the MAD of the training faces instead." in text
    assert (
        "Training minimises cross-entropy by AdamW: learning rate 0.0001, weight decay 0.01 (none for c), "
        "label smoothing 0.1, batch size 64 (32 for c), 100 epochs, stopped after 5 epochs without a better one."
        in text
    )
    assert "of the epoch with the lowest loss on the validation rows" in text


def test_the_method_names_a_neutral_label_and_other_heads(make):
    run = make("a", ("action_units",))
    spec = {**run.spec, "features": {**run.spec["features"], "neutral_label": "calm"}, "head": {"kind": "gated"}}
    text = " ".join(sentences.method(group_runs([make("b", ("action_units",), change={"spec": spec})], "runs")))
    assert "standardised with the mean and the deviation of the training faces labelled calm instead." in text
    assert "The kind of head is gated; its parameters are listed with each configuration." in text
