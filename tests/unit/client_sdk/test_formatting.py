"""Numbers, times and curves as short text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire._curve import Curve
from gradwire_engine.formatting import count_text, number_text, plural, sparkline, time_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.1235"),
        (0.0, "0.0000"),
        (9999.0, "9999.0000"),
        (1234567.0, "1.23e+06"),
        (0.0000123, "1.23e-05"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (None, ""),
    ],
)
def test_a_metric_has_at_most_nine_characters(value, text):
    assert number_text(value) == text
    assert len(text) <= 9


def test_counts_and_times_are_short():
    assert [count_text(n) for n in (7, 950, 12_400, 999_999, 1_240_000)] == ["7", "950", "12.4k", "1000k", "1.24M"]
    assert [time_text(t) for t in (0.2, 59, 125, 3 * 3600 + 1200)] == ["1 s", "59 s", "2 min 5 s", "3 h 20 min"]
    assert [plural(n, "job") for n in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


def test_a_sparkline_runs_from_the_smallest_to_the_largest_value():
    assert sparkline([3.0, 2.0, 1.0, 0.0], 10) == "█▆▃▁"
    assert sparkline(range(100), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 0.0], 10, ascii_only=True) == "#_"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([5.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([math.nan, math.inf], "  "),
        ([1.0, math.nan, 0.0], "█ ▁"),
        ([0.0, 5e-324], "▁█"),
        ([-1e308, 1e308], "▁▁"),
    ],
)
def test_a_sparkline_of_unusual_values(values, line):
    assert sparkline(values, 10) == line


@given(st.lists(st.floats(), max_size=60), st.integers(1, 50))
def test_a_sparkline_of_any_values_has_at_most_its_width(values, width):
    assert len(sparkline(values, width)) == min(len(values), width)


def test_a_curve_has_few_points_however_many_epochs_there_are():
    curve = Curve((epoch, float(epoch)) for epoch in range(1, 100_001))
    assert 256 <= len(curve) <= 512
    assert curve.epochs[-1] == 100_000
    assert curve.epochs == sorted(curve.epochs)
    assert curve.values[0] == pytest.approx((1 + curve.epochs[0]) / 2)


def test_a_short_curve_has_each_value_and_a_gap_for_nan():
    curve = Curve([(1, 2.0), (3, math.nan), (5, 1.0)])
    assert curve.epochs == [1, 3, 5]
    assert (curve.values[0], math.isnan(curve.values[1]), curve.values[2]) == (2.0, True, 1.0)
