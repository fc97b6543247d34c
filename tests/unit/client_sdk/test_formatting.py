"""Numbers, times and curves as short text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire._curve import Curve
from gradwire_engine.formatting import count_text, finite_mean, number_text, plural, size_text, sparkline, time_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.1235"),
        (0.0, "0.0000"),
        (9999.0, "9999.0000"),
        (-9999.5, "-9999.5000"),
        (10_000.0, "1.00e+04"),
        (1e-4, "0.0001"),
        (9.99e-5, "9.99e-05"),
        (1234567.0, "1.23e+06"),
        (-1234567.0, "-1.23e+06"),
        (0.0000123, "1.23e-05"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (None, ""),
    ],
)
def test_a_metric_has_four_decimals_or_three_digits(value, text):
    assert number_text(value) == text


def test_counts_and_times_are_short():
    assert [count_text(n) for n in (7, 950, 12_400, 999_999, 1_240_000)] == ["7", "950", "12.4k", "1000k", "1.24M"]
    assert [time_text(t) for t in (0.2, 59, 125, 3 * 3600 + 1200)] == ["1 s", "59 s", "2 min 5 s", "3 h 20 min"]
    assert [plural(n, "job") for n in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert [count_text(n) for n in (999, 1000, 999_499, 999_500, 1e6, 1e9, 5e12)] == [
        "999", "1k", "999k", "1000k", "1M", "1G", "5000G",
    ]  # fmt: skip
    assert [time_text(t) for t in (59.2, 60, 3599, 3600, 7322)] == [
        "1 min 0 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 2 min",
    ]  # fmt: skip
    assert [size_text(n) for n in (0, 999, 1000, 999_499, 10**6, 12_345_678)] == [
        "0 B", "999 B", "1 kB", "999 kB", "1.0 MB", "12.3 MB",
    ]  # fmt: skip


def test_a_sparkline_runs_from_the_smallest_to_the_largest_value():
    assert sparkline([3.0, 2.0, 1.0, 0.0], 10) == "█▆▃▁"
    assert sparkline(range(100), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 0.0], 10, ascii_only=True) == "#_"
    assert sparkline([0.0, 0.0, 1.0, 1.0, 1.0], 2) == "▁█"
    assert sparkline([0.0, math.nan, 2.0, 4.0], 2) == "▁█"


def test_a_mean_leaves_out_what_is_not_finite_and_does_not_overflow():
    assert finite_mean([math.nan, 2.0, math.inf, 4.0]) == 3.0
    assert finite_mean([1.6e308, 1.6e308]) == 1.6e308
    assert math.isnan(finite_mean([math.nan]))
    assert math.isnan(finite_mean([]))


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


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), max_size=70), st.sampled_from([2, 4, 6]))
def test_the_points_of_a_curve_are_the_means_of_groups(numbers, most):
    size = 1
    while most * size < len(numbers):
        size *= 2
    groups = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradwire._curve._MAX_POINTS", most)
        curve = Curve((10 * epoch, float(number)) for epoch, number in enumerate(numbers, start=1))
    assert curve.values == pytest.approx([sum(group) / len(group) for group in groups])
    assert curve.epochs == [10 * min(end, len(numbers)) for end in range(size, len(numbers) + size, size)]


def test_the_point_of_a_group_is_the_mean_of_its_finite_values(monkeypatch):
    monkeypatch.setattr("gradwire._curve._MAX_POINTS", 2)
    curve = Curve(enumerate([1.0, math.nan, math.nan, math.inf, 4.0, math.nan, 6.0, 8.0], start=1))
    assert curve.epochs == [4, 8]
    assert curve.values == [1.0, 6.0]


def test_a_short_curve_has_each_value_and_a_gap_for_nan():
    curve = Curve([(1, 2.0), (3, math.nan), (5, 1.0)])
    assert curve.epochs == [1, 3, 5]
    assert (curve.values[0], math.isnan(curve.values[1]), curve.values[2]) == (2.0, True, 1.0)
