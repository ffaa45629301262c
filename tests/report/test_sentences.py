"""Sentences say what the records say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emofuse.report import comparisons, sentences
from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.formats import join_some
from emofuse.report.grouping import group_runs
from emofuse.report.inputs import stream_uses
from emofuse.report.overview_figures import _training_caption
from emofuse.report.tables import cost_table
from emofuse.report.uncertainty_notes import comparison_notes, ranking_note

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


def test_reading_notes_say_what_repeats_are(make, unmeasured):
    one = sentences.reading_notes(group_runs([make("a")], "runs"), unmeasured)
    assert one[0] == "Each configuration has one run, so that scores have no spread."
    seeds = [make("a", split_seed=split, seed=seed) for split in (0, 1) for seed in (3, 4)]
    assert sentences.reading_notes(group_runs(seeds, "runs"), unmeasured)[0] == (
        "Mean ± standard deviation (n − 1) over the repeats, "
        "which differ in the seed of the split (0, 1) and the seed of the training (3, 4)."
    )


def test_reading_notes_say_what_an_interval_of_one_run_covers(make, make_run):
    results = group_runs([make("a", classes=("joy", "fear", "rage"))], "runs")
    measured = measure_uncertainty(results, make_run.folder)
    covers, resamples, macro = sentences.reading_notes(results, measured)[1:]
    assert macro == "Macro scores are means over all 3 classes, each with the same weight."
    assert covers == (
        "Brackets hold 95 % intervals. Percentile bootstrap: each of 2,000 resamples (PCG64, seed 0) draws as "
        "many test "
        "images as there are (20) with replacement. The interval covers the choice of test images. It does not cover "
        "the randomness of training or of the split: there is one run on one split."
    )
    assert resamples == (
        "All configurations are scored on the same resamples. Scores other than accuracy and macro F1 use the first "
        f"1,000 of them. Resamples without a row of some class: {measured.lacking}. Their macro scores are means over "
        "the classes that have rows or answers."
    )
    assert measured.lacking > 0


def test_reading_notes_say_that_repeats_are_drawn_and_training_is_covered(make, make_run):
    results = group_runs([make("a", seed=seed) for seed in (0, 1, 2)], "runs")
    note = sentences.reading_notes(results, measure_uncertainty(results, make_run.folder))[1]
    assert "over test images and repeats" in note
    assert "scores the mean over the 3 repeats; drawing repeats as well adds the variance between them" in note
    assert "So few repeats may understate that variance." in note
    assert note.endswith(
        "The interval covers the choice of test images and the randomness of training. It does not cover the choice of "
        "the test split: there is one."
    )


def test_reading_notes_say_that_splits_share_rows(make, make_run):
    results = group_runs([make("a", split_seed=split) for split in (0, 1)], "runs")
    measured = measure_uncertainty(results, make_run.folder)
    note = sentences.reading_notes(results, measured)[1]
    assert "Corrected resampled t interval over 2 splits (Nadeau and Bengio, Machine Learning 2003)" in note
    assert "multiplied by 1/2 + 0.143," in note
    assert "1 degree of freedom." in note
    assert "covers the choice of training and test rows and the randomness of training." in note
    assert f"The splits together tested {measured.coverage['a'].images:,} images." in note
    assert not any("resamples" in note for note in sentences.reading_notes(results, measured))


def test_reading_notes_name_configurations_whose_intervals_cover_different_things(make, make_run):
    runs = [make("single"), *(make("repeated", seed=seed) for seed in (0, 1))]
    results = group_runs(runs, "runs")
    notes = sentences.reading_notes(results, measure_uncertainty(results, make_run.folder))
    assert notes[-6].startswith("Brackets hold 95 % intervals. single: Percentile bootstrap: each of")
    assert notes[-5].startswith("repeated: Percentile bootstrap over test images and repeats: ")
    assert notes[-3].startswith("Each interval holds for itself: of many of them, about one in twenty misses.")


def test_reading_notes_say_over_how_many_classes_macro_scores_are(make, unmeasured):
    """Twenty test rows have twenty classes; of the other ten, some are answered."""
    names = tuple(f"c{place:02}" for place in range(30))
    runs = [make("a", classes=names, seed=seed) for seed in (0, 1)]
    occurring = []
    for run in runs:
        confusion = np.array(run.metrics["test"]["confusion"])
        occurring.append((confusion.sum(axis=0) + confusion.sum(axis=1)) > 0)
    low, high = sorted(int(each.sum()) for each in occurring)
    assert 20 <= low <= high < 30
    count = f"{low}" if low == high else f"{low}–{high}"
    absent = [name for place, name in enumerate(names) if not all(each[place] for each in occurring)]
    notes = sentences.reading_notes(group_runs(runs, "runs"), unmeasured)
    assert notes[1] == (
        f"Macro scores are means over the classes with test rows or answers ({count} of 30), each with the same "
        f"weight. Not in every run: {join_some(absent)}."
    )


def test_a_test_split_that_ranks_nothing_is_said_to(make, make_run):
    """The intervals of all have more in common than their scores differ, and no difference is significant."""
    runs = [make(name, skill=0.6, rows=300) for name in ("a", "b", "c")]
    results = group_runs(runs, "runs")
    measured = measure_uncertainty(results, make_run.folder)
    intervals = [measured.intervals[item.label]["accuracy"] for item in results.configurations]
    common = min(each.high for each in intervals) - max(each.low for each in intervals)
    scores = [run.metrics["test"]["accuracy"] for run in runs]
    assert sentences.reading_notes(results, measured)[0] == (
        "A test split of 30 rows does not rank these 3 configurations: their intervals of accuracy have a width of "
        f"{common:.3f} in common, more than the {max(scores) - min(scores):.3f} from the lowest accuracy to the "
        "highest, and no difference that was tested is significant. Their order may be chance."
    )


def test_a_test_split_that_may_rank_is_not_said_to_rank_nothing(make, make_run):
    runs = [make("a", skill=0.2, rows=3000), make("b", skill=0.9, rows=3000)]
    results = group_runs(runs, "runs")
    notes = sentences.reading_notes(results, measure_uncertainty(results, make_run.folder))
    assert not any("does not rank" in note for note in notes)
    single = group_runs(runs[:1], "runs")
    assert ranking_note(single, measure_uncertainty(single, make_run.folder)) == ""


def test_reading_notes_end_with_what_could_not_be_computed(make, unmeasured):
    problems = ("a has no interval.", "b was not compared.")
    notes = sentences.reading_notes(group_runs([make("a")], "runs"), replace(unmeasured, problems=problems))
    assert tuple(notes[-2:]) == problems


def test_comparison_notes_say_what_was_computed_and_how_often(make, make_run):
    runs = [make(name, seed=seed) for name in ("base", "a", "b") for seed in (0, 1)]
    results = group_runs(runs, "runs")
    difference, p_value, paired, corrected = comparison_notes(results, measure_uncertainty(results, make_run.folder))
    assert difference == "Δ is the difference to base, with its 95 % interval."
    assert p_value == (
        "On one test split, p is that of a two-sided paired bootstrap test, with the same resamples for both: "
        "the share "
        "of resamples whose difference is at least as far from the observed one as that is from zero, counted as "
        "(1 + number) / (1 + 2,000). It covers what the intervals of the two scores cover."
    )
    assert paired.startswith(
        "McNemar p compares the answers of the mean probabilities over all repeats that have the image among their "
        "test rows, image by image. Lost counts the images that only the other configuration classifies correctly, "
    )
    assert "With fewer than 25 of them the p value is the two-sided binomial one" in paired
    assert paired.endswith("it covers the choice of test images, not the randomness of training.")
    assert corrected == (
        "All p values are corrected by Holm's step-down method; the family is the 2 comparisons of this table "
        "(with the "
        "baseline), each of the three columns separately. Uncorrected values are in comparisons.csv."
    )


def test_comparison_notes_say_the_smallest_p_where_resamples_are_limited(make, make_run, monkeypatch):
    monkeypatch.setattr(comparisons, "MOST_WORK", 1)
    monkeypatch.setattr(comparisons, "LEAST_RESAMPLES", 150)
    results = group_runs([make("base"), *(make(f"c{place}") for place in range(4))], "runs")
    measured = measure_uncertainty(results, make_run.folder)
    floor = (
        "The number of resamples is limited, because there are many runs and comparisons: after correction a bootstrap "
        "p is 0.026 or more, however large the difference is. A report of fewer configurations has more resamples for "
        "each comparison."
    )  # 4 / 151, rounded down
    notes = comparison_notes(results, measured)
    assert floor in notes
    assert "McNemar's p is computed without resamples and has no such lower limit." in notes
    monkeypatch.setattr(comparisons, "LEAST_RESAMPLES", 15)
    notes = comparison_notes(results, measure_uncertainty(results, make_run.folder))
    assert (
        f"{floor.replace('0.026', '0.250')} So this test finds no difference at the level of 0.05, which is no sign of "
        "equality."
    ) in notes
    monkeypatch.undo()
    unlimited = comparison_notes(results, measure_uncertainty(results, make_run.folder))
    assert not [note for note in unlimited if "limit" in note]


def test_comparison_notes_say_which_test_splits_have_and_that_pairs_are_of_the_family(make, make_run):
    results = group_runs([make(name, split_seed=split) for name in ("base", "a", "b") for split in (0, 1)], "runs")
    notes = comparison_notes(results, measure_uncertainty(results, make_run.folder, [("a", "b")]))
    assert notes[0].startswith("Δ is the difference of the first configuration less the second")
    assert notes[1].startswith("Over several splits, interval and p are those of the corrected resampled t-test")
    assert not any("paired bootstrap" in note for note in notes)
    assert (
        "the family is the 3 comparisons of this table (with the baseline and those that were asked for)" in notes[-1]
    )


def test_comparison_notes_name_repeats_only_where_there_are_some_and_are_silent_without_comparisons(
    make, make_run, unmeasured
):
    results = group_runs([make("base"), make("a")], "runs")
    notes = comparison_notes(results, measure_uncertainty(results, make_run.folder))
    assert notes[2].startswith("McNemar p compares the answers, image by image.")
    assert "the family is the 1 comparison of this table" in notes[3]
    assert comparison_notes(results, unmeasured) == []


def test_reachable_is_explained_only_where_it_is_known(make, unmeasured):
    known = sentences.reading_notes(group_runs([make("a", dataset=DEMO)], "runs"), unmeasured)
    assert known[-1].startswith(
        "Reachable is the accuracy to expect from a classifier that reads every cue of its streams"
    )
    notes = sentences.reading_notes(group_runs([make("a")], "runs"), unmeasured)
    assert not any("Reachable" in note for note in notes)


def test_cues_that_only_an_order_shows_are_named_where_there_are_some(make, unmeasured):
    ordered = {**DEMO, "order_cues": ["mouth", "blush"]}
    notes = sentences.reading_notes(group_runs([make("a", dataset=ordered)], "runs"), unmeasured)
    assert notes[-1] == (
        "Only the order of the steps of a sequence shows mouth and blush: Reachable counts this for stems that know "
        "the order (gru, lstm, transformer)."
    )
    notes = sentences.reading_notes(group_runs([make("a", dataset=DEMO)], "runs"), unmeasured)
    assert not any("order of the steps" in note for note in notes)


def test_a_stream_without_a_valid_row_is_noticed(make):
    run = make("a", ("lbp", "objects"), missing={"objects": {"no_detection": 10**6}})
    results = group_runs([run], "runs")
    assert sentences.empty_stream_notices(results, stream_uses(results)) == [
        "Stream objects has no valid row: none of 200 rows has features of it. a learned nothing from it."
    ]


def test_notes_of_training_are_told_once(make):
    both = {"notes": ["5 rows are in no split."]}
    runs = [make("a", change=both), make("a", seed=1, change=both), make("b", change=both)]
    assert sentences.run_notes(group_runs(runs, "runs")) == ["5 rows are in no split."]
    assert sentences.run_notes(group_runs([*runs, make("c")], "runs")) == ["a and b: 5 rows are in no split."]


def test_a_note_of_some_repeats_says_of_how_many(make):
    chance = {"notes": ["At chance."]}
    runs = [make("a", change=chance), make("a", seed=1), make("b", change=chance)]
    assert sentences.run_notes(group_runs(runs, "runs")) == ["a and b (2 of 3 runs): At chance."]
    assert sentences.run_notes(group_runs(runs[:2], "runs")) == ["At chance (1 of 2 runs)."]


def test_rules_for_rows_are_told_of_runs_that_followed_them(make):
    new = make("a")
    streams = {name: {**stream, "fitted": True} for name, stream in new.streams.items()}
    told = sentences.method(group_runs([replace(new, streams=streams)], "runs"))
    assert told[-3:] == [
        (
            "Rows whose images cannot be read are left out. An image without a face, or one on which a stream failed, "
            "keeps its row and lacks the stream."
        ),
        "A stream that fewer than two training rows have counts as missing in every row.",
        "Macro scores are means over the labels that have rows or predictions.",
    ]


def test_the_method_says_how_sequences_and_maps_become_vectors(make):
    def run(name, shape, **stems):
        made = make(name)
        streams = {stream: {**record, "used_shape": shape} for stream, record in made.streams.items()}
        spec = {**made.spec, "head": {**made.spec["head"], **stems}}
        return replace(made, streams=streams, spec=spec)

    runs = [run("a", [6, 3]), run("b", [6, 3], temporal="lstm"), run("c", [1, 8, 8], spatial="cnn"), make("d")]
    text = " ".join(sentences.method(group_runs(runs, "runs")))
    assert "A sequence passes a temporal stem before it is embedded: mean (lstm for b)." in text
    assert "A map passes a spatial stem before it is embedded: cnn." in text
    assert "stem" not in " ".join(sentences.method(group_runs([make("a")], "runs")))


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
        "The test split chose nothing; it was scored once, with these weights.",
        "Macro scores are means over the labels that have rows or predictions.",
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


def test_the_method_says_which_further_options_of_training_are_used(make):
    plain = " ".join(sentences.method(group_runs([make("a")], "runs")))
    assert "weighted" not in plain
    assert "schedule" not in plain
    runs = [make("a", train={"class_weights": "balanced", "ema": 0.99}), make("b", train={"schedule": "cosine"})]
    text = " ".join(sentences.method(group_runs(runs, "runs")))
    assert "The loss of a row is weighted by its class: balanced (none for b)." in text
    assert "The learning rate follows a schedule: constant (cosine for b)." in text
    assert "with this decay is validated and kept (0: the weights themselves): 0.99 (0 for b)." in text
    assert "focal" not in text


def test_the_method_says_that_rows_are_balanced_and_that_heads_see_components(make):
    plain = " ".join(sentences.method(group_runs([make("a")], "runs")))
    assert "drawn so that classes are even" not in plain
    assert "components" not in plain
    run = make("a", train={"balance": "views"})
    of_share = {"wanted": 0.95, "components": [31, 35], "variance": [0.951, 0.952]}
    streams = {"resnet50": {**run.streams["resnet50"], "pca": of_share}}
    other = make("b")
    fixed = {**other.streams["resnet50"], "pca": {"wanted": 8, "components": [8], "variance": [0.5]}}
    runs = [replace(run, streams=streams), replace(other, streams={"resnet50": fixed})]
    text = " ".join(sentences.method(group_runs(runs, "runs")))
    assert "Training rows are drawn so that classes are even: views (none for b)." in text
    assert "principal components of the standardised features, fitted on the training rows of each head and not" in text
    assert "31 to 35 of resnet50, which hold 95 % of its variance and 8 of resnet50." in text


def test_the_method_names_a_neutral_label_and_other_heads(make):
    run = make("a", ("action_units",))
    spec = {**run.spec, "features": {**run.spec["features"], "neutral_label": "calm"}, "head": {"kind": "gated"}}
    text = " ".join(sentences.method(group_runs([make("b", ("action_units",), change={"spec": spec})], "runs")))
    assert "standardised with the mean and the deviation of the training faces labelled calm instead." in text
    assert "The kind of head is gated; its parameters are listed with each configuration." in text


def test_sentences_about_many_configurations_stay_short(make):
    runs = []
    for number in range(20):
        rate = 10.0 ** -(number % 6 + 1)
        weights = ("resnet50",) if number % 2 else ()
        train = {"learning_rate": rate, "batch_size": 32 if number < 5 else 64}
        run = make(f"c{number}", train=train, random_weights=weights, change={"notes": ["5 rows are in no split."]})
        runs.append(run)
    results = group_runs([*runs, make("last")], "runs")
    text = " ".join(sentences.method(results))
    assert "learning rate 0.1 (17 configurations have one of 5 other values)" in text
    assert "batch size 64 (32 for 5 configurations)" in text
    assert "c1, c3, c5, c7, c9 and 5 more use at least one of them." in sentences.random_weights_warning(results)
    assert sentences.run_notes(results) == ["c0, c1, c2, c3, c4 and 15 more: 5 rows are in no split."]
    assert sentences.featured_note(results).startswith("Of 21 configurations, the 6 best by validation macro F1")


def test_the_baseline_is_featured_whether_or_not_it_is_among_the_best(make):
    def note(baseline):
        scores = [{"history": [{"val_macro_f1": index / 20}], "best_epoch": 1} for index in range(14)]
        runs = [make(f"c{index}", change=change) for index, change in enumerate(scores)]
        return sentences.featured_note(group_runs(runs, "runs", baseline=baseline))

    rest = "The tables list all of them, and per_class.csv has the numbers of every class."
    assert note("c0") == f"Of 14 configurations, the 6 best by validation macro F1, and the baseline. {rest}"
    assert note("c13") == f"Of 14 configurations, the 6 best by validation macro F1. {rest}"


def test_a_few_configurations_all_have_figures(make):
    assert sentences.featured_note(group_runs([make("a"), make("b")], "runs")) == ""


def test_the_method_says_of_solved_heads_that_they_have_penalties_and_no_epochs(make_run):
    runs = [make_run("trained")]
    for kind in ("logistic", "averaged_logistic", "kernel_ridge"):
        run = make_run(kind)
        runs.append(replace(run, spec={**run.spec, "head": {"kind": kind}}))
    results = group_runs(runs, "runs")
    text = " ".join(sentences.method(results))
    assert "A logistic head is multinomial logistic regression" in text
    assert "An averaged_logistic head is one multinomial logistic regression for each stream" in text
    assert "leave-one-out predictions of the training rows" in text
    assert text.count("Training minimises cross-entropy by Adam: learning rate 0.0001") == 1
    solved = " ".join(sentences.method(group_runs(runs[1:], "runs")))
    assert "epoch" not in solved
    assert "Of kernel_ridge and logistic heads a step is a penalty, the strongest first" in _training_caption(results)
    (epochs,) = (column for column in cost_table(results).columns if column.title == "Best epoch")
    assert [cell.text for cell in epochs.cells][1:] == ["–", "–", "–"]


FOLDS = {"ensemble": {"folds": 5, "seeds": [], "fold_seed": 0}}


def ensemble(make, name, **changes):
    """A run of five heads that were validated out of fold on all rows of train and val."""
    run = make(name)
    heads = [{"fold": k, "seed": 0, "best_epoch": 3 + k, "history": [], "fitted": {}} for k in range(5)]
    counts = run.rows["train"]["rows"] + run.rows["val"]["rows"]
    rows = {split: {"rows": counts, "missing": {}} for split in ("train", "val")}
    return replace(run, spec={**run.spec, **FOLDS, **changes}, heads=heads, rows={**run.rows, **rows})


def test_ensembles_and_second_trainings_are_said(make):
    again = make("again")
    again = replace(again, spec={**again.spec, "refit": "train_val"}, refit=[{"rows": 180, "epochs": 4}])
    results = group_runs([make("one"), ensemble(make, "five"), again], "runs", order=["one", "five", "again"])
    text = " ".join(sentences.method(results))
    assert (
        "five answers with the mean of 5 heads, one for each of 5 folds of the training and validation rows; a "
        "validation score counts every row once, answered by the heads that did not learn from it."
    ) in text
    assert "For again, what was chosen on the validation rows" in text
    assert "The line of an ensemble is the mean over its heads" in _training_caption(results)
    cost = {column.title: [cell.text for cell in column.cells] for column in cost_table(results).columns}
    assert cost["Answer"] == ["1 head", "mean of 5 heads", "1 head, trained again"]
    assert cost["Best epoch"][1] == "3–7"
    plain = cost_table(group_runs([make("one")], "runs"))
    assert "Answer" not in [column.title for column in plain.columns]


def test_an_ensemble_is_ranked_by_the_score_of_its_mean(make):
    five = ensemble(make, "five")
    metrics = {**five.metrics, "val": {**five.metrics["val"], "macro": {"f1": 0.99}}}
    results = group_runs([make("one", skill=0.8), replace(five, metrics=metrics)], "runs")
    assert [item.label for item in results.ranked] == ["five", "one"]
    assert results.ranked[0].validation("macro_f1").mean == 0.99


def test_rows_are_counted_by_the_runs_that_count_each_once(make):
    one = make("one")
    results = group_runs([one, ensemble(make, "five")], "runs")
    assert results.runs_by_split == [one]
    (use,) = stream_uses(results)
    assert use.rows(["train", "val", "test"]).high == 200
    assert group_runs([ensemble(make, "five")], "runs").runs_by_split
