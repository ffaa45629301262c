"""How it was chosen: sentences, table and CSV of a search."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from emofuse.report.choice import choice_caption, choice_sentences, choice_table, divergence_sentences
from emofuse.report.numbers import csv_text, search_rows
from emofuse.report.search import SearchedConfiguration, SearchSummary

GRID = SearchSummary(
    kind="grid",
    select="macro_f1",
    configurations=(
        SearchedConfiguration("lbp, 0.001", {"streams": ["lbp"], "learning_rate": 0.001}, 0.31, 0.02, 10),
        SearchedConfiguration(
            "lbp, 3e-05", {"streams": ["lbp"], "learning_rate": 3.1622776601683795e-05}, 0.52, 0.01, 10, chosen=True
        ),
        SearchedConfiguration(
            "both, 0.001", {"streams": ["lbp", "resnet50"], "learning_rate": 0.001}, None, None, 10, diverged=2
        ),
        SearchedConfiguration("both, 3e-05", {"streams": ["lbp", "resnet50"]}, 0.41, None, 1, halved=4, chosen=True),
    ),
    heads=31,
    folds=5,
    seeds=2,
    best_of=("streams",),
)


def texts(table, title):
    (column,) = [column for column in table.columns if column.title == title]
    return [cell.text for cell in column.cells]


def test_a_search_is_ranked_by_its_score_and_those_without_one_come_last():
    assert [item.score for item in GRID.ranked] == [0.52, 0.31, 0.41, None]  # as chosen: what was halved comes last
    assert [item.score for item in replace(GRID, select="loss").ranked] == [0.31, 0.52, 0.41, None]


def test_sentences_tell_what_was_tried_and_by_what_it_was_chosen():
    tried, halved, diverged, chosen, tested = choice_sentences(GRID)
    assert tried == (
        "The search tried every combination of the factors: 4 configurations, 31 trained heads (5-fold "
        "cross-validation and 2 seeds)."
    )
    assert halved == "Successive halving ended 4 of them before their last epoch."
    assert diverged == "The loss of 2 was not finite; a configuration with such a run has no score."
    assert chosen == (
        "For every value of streams, the configuration with the highest validation macro F1, mean over 5 folds and 2 "
        "seeds, was chosen."
    )
    assert tested == (
        "The search never saw a test row. Only the 2 chosen were then trained for the final runs and scored on the "
        "test rows of the split, once."
    )


def test_sentences_of_a_plain_search_are_short():
    best = replace(GRID.configurations[1], runs=1)
    search = SearchSummary("tpe", "loss", (best,), heads=1)
    tried, chosen, tested = choice_sentences(search)
    assert tried == (
        "Optuna's tree-structured Parzen estimator proposed combinations of the factors: 1 configuration, "
        "1 trained head."
    )
    assert chosen == "The configuration with the lowest validation loss was chosen."
    assert tested.startswith("The search never saw a test row. Only the chosen one was then trained for the final ")
    assert choice_sentences(replace(search, kind="random"))[0].startswith(
        "The search drew combinations of the factors evenly, each once: 1 configuration"
    )


def test_the_table_has_the_chosen_and_the_best_others_by_rank():
    table = choice_table(GRID)
    assert texts(table, "Configuration") == ["lbp, 3e-05", "lbp, 0.001", "both, 3e-05", "both, 0.001"]
    assert texts(table, "Rank") == ["1", "2", "3", "4"]
    assert texts(table, "Validation macro F1") == ["0.5200", "0.3100", "0.4100", "–"]
    assert [column.cells[0].spread for column in table.columns][2] == "0.0100"
    assert texts(table, "Heads") == ["10", "10", "1", "10"]
    assert texts(table, "Ended early") == ["–", "–", "4 halved", "2 diverged"]
    assert texts(table, "Chosen") == ["chosen", "–", "chosen", "–"]
    assert choice_caption(GRID) == (
        "The chosen configurations and the best 2 of the 2 others, by validation score ± its standard error, "
        "corrected for the training rows that folds share (Nadeau and Bengio, 2003). All are in search.csv."
    )


def test_of_hundreds_the_table_has_the_chosen_and_ten_others():
    many = tuple(
        SearchedConfiguration(f"c{index:03}", {}, index / 500, None, 1, chosen=index == 7) for index in range(500)
    )
    search = replace(GRID, configurations=many)
    assert texts(choice_table(search), "Rank") == [*map(str, range(1, 11)), "493"]
    assert choice_caption(search).startswith(
        "The chosen configurations and the best 10 of the 499 others, by validation score."
    )


# --- final runs that diverged -----------------------------------------------------------------------------------------

A, B, C, D = (
    SearchedConfiguration("a", {}, 0.6, None, 1, chosen=True, final_runs=2, final_diverged=("seed 1 in epoch 3",)),
    SearchedConfiguration(
        "b", {}, 0.5, None, 1, fallback=True, final_runs=2, final_diverged=("seed 0 in epoch 1", "seed 1 in epoch 1")
    ),
    SearchedConfiguration("c", {}, 0.4, None, 1, fallback=True, used=True, final_runs=2),
    SearchedConfiguration("d", {}, 0.3, None, 1),
)


def finals(*items) -> SearchSummary:
    return SearchSummary("grid", "macro_f1", items, heads=len(items))


def test_a_choice_that_diverged_is_said_with_what_takes_its_place():
    told = choice_sentences(finals(D, C, B, A))
    assert told[-4:] == [
        (
            "The search never saw a test row. Only the 1 chosen and 2 to take the place of the choice were then "
            "trained for the final runs and scored on the test rows of the split, once."
        ),
        "THE CHOSEN CONFIGURATION DIVERGED in its final runs and is not used: a, and so did b, next in the ranking.",
        "Fallback: c, the next best by validation score, takes its place. Test scores played no part in this.",
        (
            "Final runs that diverged: a: 1 of 2 (seed 1 in epoch 3); b: 2 of 2 (seed 0 in epoch 1 and seed 1 in epoch "
            "1). They have no test score. The scores of their configurations are means over the other seeds, where "
            "there are any."
        ),
    ]


def test_another_finalist_that_diverged_changes_no_choice():
    first = replace(A, final_diverged=(), used=True)
    second = replace(A, name="b", score=0.5)
    told = divergence_sentences(finals(first, second))
    assert len(told) == 1
    assert told[0].startswith("Final runs that diverged: b: 1 of 2 (seed 1 in epoch 3). They have no test score. ")
    assert divergence_sentences(finals(first)) == []


def test_that_nothing_can_take_its_place_is_said():
    told = divergence_sentences(finals(A, B))
    assert (
        told[1]
        == "Nothing takes its place, because every configuration that can be chosen had a final run that diverged."
    )


def test_of_many_that_diverged_the_first_are_named():
    many = [replace(A, name=f"c{index}", score=1 - index / 100) for index in range(60)]
    told = divergence_sentences(finals(*many))
    assert told[0].endswith("is not used: c0, and so did c1, c2, c3, c4, c5 and 54 more, next in the ranking.")
    assert "c4: 1 of 2 (seed 1 in epoch 3); and those of 55 more configurations, see the table. They" in told[2]


def test_the_table_and_the_csv_tell_chosen_from_fallback():
    search = finals(D, C, B, A)
    assert texts(choice_table(search), "Chosen") == [
        "chosen, 1 of 2 final runs diverged", "fallback, 2 of 2 final runs diverged", "fallback", "–",
    ]  # fmt: skip
    assert choice_caption(search).startswith("The chosen configurations and the best 1 of the 1 others")
    rows = search_rows(search)
    assert [row["chosen"] for row in rows] == ["yes", "fallback", "fallback", "no"]
    assert [(row["final_runs"], row["final_diverged"]) for row in rows] == [(2, 1), (2, 2), (2, 0), (0, 0)]
    also_chosen = replace(C, fallback=False, chosen=True)
    assert texts(choice_table(finals(A, also_chosen)), "Chosen")[1] == "chosen, fallback"


def test_the_csv_has_every_configuration_with_unrounded_settings():
    rows = list(csv.DictReader(io.StringIO(csv_text(search_rows(GRID)))))
    assert list(rows[0]) == [
        "rank", "configuration", "chosen", "val_macro_f1_mean", "val_macro_f1_se", "runs", "diverged", "halved",
        "final_runs", "final_diverged", "setting_streams", "setting_learning_rate",
    ]  # fmt: skip
    assert [row["configuration"] for row in rows] == ["lbp, 3e-05", "lbp, 0.001", "both, 3e-05", "both, 0.001"]
    assert rows[0]["setting_learning_rate"] == "3.1622776601683795e-05"
    assert [row["setting_streams"] for row in rows] == ["lbp", "lbp", "lbp resnet50", "lbp resnet50"]
    assert [row["setting_learning_rate"] for row in rows][1:] == ["0.001", "", "0.001"]
    assert [row["val_macro_f1_mean"] for row in rows] == ["0.52", "0.31", "0.41", ""]
    assert [row["chosen"] for row in rows] == ["yes", "no", "yes", "no"]


def test_settings_that_are_specs_stand_as_json():
    head = {"kind": "concat", "depth": 2}
    (row,) = search_rows(
        replace(GRID, configurations=(SearchedConfiguration("a", {"head": head, "kind": "x"}, 0.5, None, 1),))
    )
    assert (row["setting_head"], row["setting_kind"]) == ('{"kind": "concat", "depth": 2}', "x")
