"""Subgroups of rows, two models in each of them, and groups of people."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain

import numpy as np
import polars as pl
import pytest

from emofuse.analysis.answers import TestedRows
from emofuse.analysis.attributes import Subgroup, _of_column, find_subgroups, people_of
from emofuse.analysis.plots import MOST_SERIES
from emofuse.analysis.scoring import Scoring
from emofuse.analysis.sections.subgroups import SubgroupComparison, fairness_section, subgroups_section
from emofuse.analysis.subgroups import LEAST_UNITS, compare_in_subgroups, measure_fairness
from emofuse.cache.reader import Cache, open_cache
from emofuse.statistics import Resampling, holm

RESAMPLING = Resampling(400, 0)


def named(column, values, **options):
    return {
        group.name: np.flatnonzero(group.rows).tolist() for group in _of_column(column, pl.Series(values), **options)
    }


def test_values_of_a_column_are_subgroups_and_missing_ones_too():
    assert named("sex", ["f", "m", None, "f"]) == {"f": [0, 3], "m": [1], "none given": [2]}


def test_many_numbers_are_cut_into_quarters_and_few_are_values():
    quarters = named("age", list(range(20, 60)))
    assert [len(rows) for rows in quarters.values()] == [10, 10, 10, 10]
    assert list(chain(*quarters.values())) == list(range(40))
    assert named("brightness", [0.1, 0.2, 0.1, 0.2]) == {"0.1": [0, 2], "0.2": [1, 3]}


def test_what_lists_hold_is_a_subgroup_each():
    assert named("object", [["person", "tree"], ["person"], None, ["tree", "tree"]]) == {
        "person": [0, 1],
        "tree": [0, 3],
    }


def test_a_column_of_names_and_one_of_a_single_value_form_no_subgroups():
    assert named("file", [f"{number}" for number in range(30)]) == {}
    assert named("film", ["one"] * 30) == {}


def test_rare_values_are_one_subgroup_together():
    values = [name for place, name in enumerate("abcdefghijklmno") for _ in range(20 - place)]
    groups = named("scene", values)
    assert len(groups) == 13
    assert len(groups["3 rarer values"]) == 8 + 7 + 6


def test_classes_and_faces_are_subgroups_and_columns_of_the_manifest(tmp_path, write_cache):
    faces = np.array([1, 2] * 10, np.uint8)
    streams = {
        "landmarks": ("landmarks", np.zeros((20, 3), np.float32), faces),
        "action_units": ("action_units", np.zeros((20, 30), np.float32), faces),
        "resnet50": ("backbone", np.zeros((20, 3), np.float32), np.ones(20, np.uint8)),
    }
    labels = np.arange(20) % 2
    cache = open_cache(write_cache(tmp_path / "f.zarr", ("x", "y"), labels, ["test"] * 20, streams))
    groups, left_out = find_subgroups(("x", "y"), labels, cache, np.arange(20))
    assert [(each.attribute, each.name) for each in groups] == [
        ("class", "x"),
        ("class", "y"),
        ("face", "found"),
        ("face", "not found"),
    ]
    assert groups[3].rows.tolist() == (faces == 2).tolist()
    assert left_out == []


def test_differences_and_intervals_are_those_of_the_rows_of_the_subgroup():
    rng = np.random.default_rng(0)
    first, second = (rng.random(80) < share for share in (0.8, 0.5))
    groups = [Subgroup("class", "x", np.arange(80) < 50), Subgroup("class", "y", np.arange(80) >= 50)]
    found = compare_in_subgroups(groups, first.astype(float), second.astype(float), np.arange(80), RESAMPLING)
    assert found[0].first == pytest.approx(first[:50].mean())
    assert found[1].test.difference == pytest.approx(first[50:].mean() - second[50:].mean())
    alone = compare_in_subgroups(
        [Subgroup("all", "all", np.ones(50, bool))],
        first[:50].astype(float),
        second[:50].astype(float),
        np.arange(50),
        RESAMPLING,
    )
    assert found[0].test.interval.low == pytest.approx(alone[0].test.interval.low, abs=0.06)
    corrected = holm([each.test.p for each in found])
    assert [each.corrected for each in found] == pytest.approx(corrected.tolist())


def test_a_small_subgroup_is_neither_tested_nor_counted_for_the_correction():
    right = np.ones(60)
    worse = (np.arange(60) % 3 > 0).astype(float)
    small = np.arange(60) < LEAST_UNITS - 1
    found = compare_in_subgroups(
        [Subgroup("a", "small", small), Subgroup("a", "large", ~small)], right, worse, np.arange(60), RESAMPLING
    )
    assert found[0].is_small
    assert found[0].corrected is None
    assert found[1].corrected == pytest.approx(found[1].test.p)


def test_groups_of_rows_count_as_units():
    right, worse = np.ones(60), np.repeat([0.0, 1.0], 30)
    unit = np.arange(60) // 6
    (found,) = compare_in_subgroups([Subgroup("a", "all", np.ones(60, bool))], right, worse, unit, RESAMPLING)
    assert found.units == 10
    assert found.is_small


CLASSES = Scoring("class", ("x", "y"))


def answers_of(right, unit=None):
    """Answers to rows of class 0."""
    outputs = np.eye(2)[np.where(right, 0, 1)]
    unit = np.arange(len(right)) if unit is None else unit
    return TestedRows((), (), np.arange(len(right)).astype(str), np.zeros(len(right), np.int64), unit, outputs)


def test_a_real_gap_between_groups_is_found_and_its_chance_is_small():
    right = np.arange(200) % 10 < np.where(np.arange(200) < 100, 9, 5)
    groups = [Subgroup("sex", "f", np.arange(200) < 100), Subgroup("sex", "m", np.arange(200) >= 100)]
    found = measure_fairness(groups, answers_of(right), CLASSES, RESAMPLING)
    assert (found.best, found.worst, found.gap) == ("f", "m", pytest.approx(0.4))
    assert found.gap_interval.low > 0.2
    assert found.p < 0.01
    assert 0 < found.gap_by_chance < 0.15


def test_groups_that_are_alike_have_a_gap_by_chance():
    right = np.random.default_rng(4).random(400) < 0.6
    groups = [Subgroup("speaker", str(number), np.arange(400) % 10 == number) for number in range(10)]
    found = measure_fairness(groups, answers_of(right), CLASSES, RESAMPLING)
    assert found.p > 0.05
    assert found.gap_by_chance == pytest.approx(found.gap, abs=0.15)


def test_small_groups_are_shown_and_not_ranked():
    rows = np.arange(100)
    groups = [
        Subgroup("age", "old", rows < 5),
        Subgroup("age", "young", (rows >= 5) & (rows < 50)),
        Subgroup("age", "mid", rows >= 50),
    ]
    found = measure_fairness(groups, answers_of(rows >= 50), CLASSES, RESAMPLING)
    assert [group.is_small for group in found.groups] == [True, False, False]
    assert (found.best, found.worst) == ("mid", "young")
    assert measure_fairness(groups[:2], answers_of(rows >= 50), CLASSES, RESAMPLING).best is None


def test_whole_speakers_are_dealt_to_sexes():
    """Two of four speakers are right throughout: with rows dealt singly such a gap would look impossible."""
    unit = np.arange(200) // 50
    groups = [Subgroup("sex", "f", unit < 2), Subgroup("sex", "m", unit >= 2)]
    found = measure_fairness(groups, answers_of(unit < 2, unit), CLASSES, RESAMPLING)
    assert found.gap == 1
    assert found.p == pytest.approx(1 / 3, abs=0.1)


def test_speakers_that_are_one_unit_each_have_intervals_over_their_rows():
    unit = np.arange(200) // 50
    right = np.random.default_rng(0).random(200) < 0.4 + 0.1 * unit
    groups = [Subgroup("speaker", str(number), unit == number) for number in range(4)]
    found = measure_fairness(groups, answers_of(right, unit), CLASSES, RESAMPLING)
    assert found.over_rows
    assert all(
        0.05 < group.intervals["accuracy"].high - group.intervals["accuracy"].low < 0.4 for group in found.groups
    )
    assert found.gap_interval.low < found.gap < found.gap_interval.high
    assert "Intervals of speaker draw rows" in " ".join(fairness_section("model", [found], CLASSES).sentences)


def test_columns_of_people_are_found_by_their_names(tmp_path, write_cache):
    cache = open_cache(write_cache(tmp_path / "f.zarr", ("x", "y"), np.arange(4) % 2, ["test"] * 4, {}))
    columns = {"sex": ["f", "m", "f", "m"], "page": [1, 2, 1, 2], "speaker_age": [3, 4, 3, 4]}
    table = cache.manifest.table.with_columns(pl.Series(name, values) for name, values in columns.items())
    with_people = Cache(cache.path, cache.layout, replace(cache.manifest, table=table), cache.streams)
    found = people_of(with_people, np.arange(4))
    assert [groups[0].attribute for groups in found] == ["sex", "speaker_age"]
    assert [group.name for group in found[0]] == ["f", "m"]


def test_a_figure_of_subgroups_shows_every_stream_or_says_which():
    right = np.ones(60)
    group = Subgroup("sex", "f", np.arange(60) < 30)
    for count in (5, MOST_SERIES + 1):
        compared = compare_in_subgroups([group], right, right, np.arange(60), RESAMPLING)
        same = [
            SubgroupComparison(f"stream {place}", "Of each stream: two models.", compared) for place in range(count)
        ]
        (figure,) = subgroups_section(same, grouped=False).figures
        assert figure.caption.count("Of each stream: two models.") == 1
        assert ("Shown: the first 6 of 7 streams; the table has all." in figure.caption) == (count > MOST_SERIES)


def test_a_figure_of_subgroups_fits_a_page_and_says_how_many_it_shows():
    right = np.ones(60)
    groups = [Subgroup("scene", f"scene {place}", np.arange(60) < 30) for place in range(40)]
    compared = compare_in_subgroups(groups, right, right, np.arange(60), RESAMPLING)
    same = [SubgroupComparison(f"stream {place}", "Of each stream: two models.", compared) for place in range(4)]
    (figure,) = subgroups_section(same, grouped=False).figures
    assert "Shown: the first 17 of 40 subgroups; the table has all." in figure.caption
    height_pt = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', figure.svg.decode()).group(1))
    assert height_pt / 72 < 9
