"""Tables of what went into the runs: labels, streams, missing rows."""

from __future__ import annotations

import pytest

from emofuse.report.grouping import group_runs
from emofuse.report.inputs import labels_table, missing_table, stream_uses, streams_table

CLASSES = ("joy", "fear")


@pytest.fixture
def make(make_run):
    def make(name="a", **how):
        return make_run(name, **{"classes": CLASSES, "rows": 100, **how})

    return make


def rows(table):
    return [tuple(cell.text for cell in row) for row in table.rows]


def test_labels_are_counted_by_split_and_in_all(make):
    table = labels_table(group_runs([make()], "runs"))
    assert [column.title for column in table.columns] == ["Label", "Train", "Validation", "Test"]
    assert rows(table) == [("joy", "35", "10", "5"), ("fear", "35", "10", "5"), ("All", "70", "20", "10")]


def test_counts_that_differ_between_repeats_are_shown_as_ranges(make):
    runs = [
        make(streams=("lbp",), split_seed=0, missing={"lbp": {"no_detection": 4}}),
        make(streams=("lbp",), split_seed=1, missing={"lbp": {"no_detection": 6}}),
    ]
    (row,) = rows(missing_table(stream_uses(group_runs(runs, "runs"))))
    assert row == ("lbp", "no detection", "4–6 (7.1 %)", "4–6 (25.0 %)", "4–6 (50.0 %)", "12–18 (15.0 %)")


def test_missing_rows_are_told_by_stream_and_reason(make):
    missing = {"lbp": {"no_detection": 7, "unreadable": 1}}
    table = missing_table(stream_uses(group_runs([make(streams=("lbp", "resnet50"), missing=missing)], "runs")))
    assert rows(table) == [
        ("lbp", "no detection", "7 (10.0 %)", "7 (35.0 %)", "7 (70.0 %)", "21 (21.0 %)"),
        ("lbp", "unreadable", "1 (1.4 %)", "1 (5.0 %)", "1 (10.0 %)", "3 (3.0 %)"),
        ("resnet50", "none missing", "0", "0", "0", "0"),
    ]


def test_a_stream_is_empty_only_if_no_row_of_any_run_has_it(make):
    nothing, something = {"objects": {"no_detection": 100}}, {"objects": {"no_detection": 10}}
    runs = [make(streams=("objects",), seed=seed, missing=missing) for seed, missing in enumerate([nothing, something])]
    assert [use.is_empty for use in stream_uses(group_runs(runs[:1], "runs"))] == [True]
    assert [use.is_empty for use in stream_uses(group_runs(runs, "runs"))] == [False]


def test_streams_tell_widths_weights_and_digests(make):
    streams = ("lbp", "places365", "resnet50")
    run = make(streams=streams, random_weights=("resnet50",))
    lbp, places365, resnet50 = rows(streams_table(stream_uses(group_runs([run], "runs"))))
    digests = [run.streams[name]["digest"][:12] for name in streams]
    assert lbp == ("lbp", "lbp", "256 of 512", "none needed", "–", digests[0])
    sha256 = run.streams["places365"]["weights"]["sha256"][:12]
    assert places365 == ("places365", "places365", "2,048", "places365 (registry)", sha256, digests[1])
    assert resnet50 == ("resnet50", "backbone", "2,048", "RANDOM, seed 0", "–", digests[2])


def test_a_stream_name_of_two_caches_is_told_apart_by_its_digest(make):
    runs = [make("a", stream_digest="1" * 64), make("b", stream_digest="2" * 64)]
    uses = stream_uses(group_runs(runs, "runs"))
    assert [use.label for use in uses] == ["resnet50 (11111111)", "resnet50 (22222222)"]
    assert [len(use.runs) for use in uses] == [1, 1]


def test_widths_that_configurations_derive_differently_are_all_told(make):
    wide = {"kind": "lbp", "digest": "1" * 64, "dim": 512, "used_dim": 512, "weights": None}
    narrow = wide | {"used_dim": 128}
    runs = [make(n, streams=("lbp",), change={"streams": {"lbp": s}}) for n, s in (("a", wide), ("b", narrow))]
    assert rows(streams_table(stream_uses(group_runs(runs, "runs"))))[0][2] == "128, 512 of 512"
