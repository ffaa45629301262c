"""Numbers and names as a reader sees them."""

from __future__ import annotations

import math

import pytest

from emofuse.report.configurations import Spread
from emofuse.report.formats import (
    escape_markdown,
    format_difference,
    format_interval,
    format_p,
    format_range,
    format_score,
    format_sd,
    join_some,
)
from emofuse.statistics import Interval
from emofuse.wording import join_names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("<0.001", "<0.001"),
        ("two\nlines  here", "two lines here"),
        ("*x* [y](z) `c` \\", "\\*x\\* \\[y\\](z) \\`c\\` \\\\"),
        ("action_units + LBP", "action_units + LBP"),
    ],
)
def test_markdown_shows_names_as_they_are(text, shown):
    assert escape_markdown(text) == shown


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "+0.123"), (-0.05, "−0.050"), (0.0, "0.000"), (-0.0001, "0.000"), (math.nan, "–")]
)
def test_differences_carry_their_sign(value, text):
    assert format_difference(value) == text


def test_scores_and_counts_are_short():
    assert [format_score(value) for value in (0.12345, None, math.nan)] == ["0.123", "–", "–"]
    assert [format_range(Spread.of(values)) for values in ([1200, 1200], [3, 5], [])] == ["1,200", "3–5", "–"]


def test_p_values_below_a_thousandth_are_only_said_to_be_so():
    assert [format_p(value) for value in (1.0, 0.0496, 0.001, 0.00099, 1e-300)] == [
        "1.000", "0.050", "0.001", "<0.001", "<0.001",
    ]  # fmt: skip


def test_intervals_have_two_ends_or_nothing():
    assert format_interval(Interval(0.12345, 0.2)) == "0.123, 0.200"
    assert format_interval(Interval(-0.01, 0.2), signed=True) == "−0.010, +0.200"
    assert [format_interval(none) for none in (None, Interval(math.nan, math.nan))] == ["", ""]


def test_one_repeat_has_no_deviation():
    assert [format_sd(Spread.of(values)) for values in ([0.5], [0.4, 0.6])] == ["", "0.141"]


def test_names_are_joined_and_many_names_are_counted():
    assert [join_names(names) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert join_some("abcdef") == "a, b, c, d, e and f"
    assert join_some(str(number) for number in range(63)) == "0, 1, 2, 3, 4 and 58 more"
