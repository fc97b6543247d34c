"""What a notebook shows for histories, jobs and lists, including the curves."""

import math
import re
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest
from epochs import epochs
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gradwire as gw
from gradwire._curve import Curve
from gradwire._job import AsyncJob
from gradwire._jobs import JobTable
from gradwire._models import ModelTable
from gradwire._notebook import progress_html, transfer_html
from gradwire._progress import JobProgress
from gradwire._svg import COLORS, Series, chart, nice_step
from gradwire_proto.v1.training_service_pb2 import Job

HOSTILE = '"><script>alert(1)</script>'


def checked(html):
    """Check that HTML is well-formed and does not contain hostile text as an element, and return it."""
    root = ET.fromstring(html)
    assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "<script" not in html
    return re.sub(r' style="text-align:\w+"', "", html)


def async_job(**fields):
    last = {"epoch": 2, "running_loss": 0.5, "test": {"loss": 0.25, "accuracy": 0.5}}
    return AsyncJob(None, Job(**({"name": "jobs/x", "epochs": 5, "state": 3, "last_epoch": last} | fields)))


def test_a_history_shows_its_curves_its_epochs_and_the_best():
    html = checked(gw.History(epochs=epochs([1.0, 0.5], [1.1, 0.6], accuracy=0.9))._repr_html_())
    assert html.count("<svg") == 2
    assert "History(2 epochs, test accuracy 0.9)" in html
    assert "<td>0.6000</td>" in html
    assert "Best epoch: 2" in html
    assert "Stopped" not in html


def test_a_history_says_why_training_ended_and_whether_it_is_a_sample():
    values = epochs([1.0, 0.5])
    html = checked(gw.History(epochs=values, stop_reason="TIME_LIMIT")._repr_html_())
    assert "2 epochs in 24 ms. Stopped at the time limit. Best epoch: 2 (" in html
    assert "A sample of 2 epochs. Best of them: 2 (" in checked(gw.History(epochs=values, complete=False)._repr_html_())


@pytest.mark.parametrize(
    "history",
    [
        gw.History(),
        gw.History(epochs=epochs([1.0])),
        gw.History(epochs=epochs([math.nan, math.nan])),
        gw.History(epochs=epochs([1.0, 0.5])),
        gw.History(epochs=epochs([1e300, -1e300])),
    ],
)
def test_unusual_histories_are_shown(history):
    checked(history._repr_html_())


def test_a_job_shows_its_state_its_progress_and_its_error():
    html = checked(async_job()._repr_html_())
    assert "<td>RUNNING</td>" in html
    assert "<td>2/5</td>" in html
    assert "test accuracy 0.5" in html
    html = checked(async_job(name=f"jobs/{HOSTILE}", state=6, error={"message": HOSTILE})._repr_html_())
    assert html.count("&lt;script&gt;") == 2


def test_lists_of_jobs_and_models_are_tables_of_at_most_50_rows():
    jobs = JobTable([async_job(labels={"team": HOSTILE})] * 53)
    assert isinstance(jobs, list)
    html = checked(jobs._repr_html_())
    assert html.count("<tr>") == 51
    assert "and 3 more jobs" in html
    model = gw.ModelInfo(HOSTILE, "x", "4-3", 15, "0", epochs([0.5])[0], datetime(2026, 1, 2, tzinfo=UTC))
    html = checked(ModelTable([model])._repr_html_())
    assert "1: train loss 0.5" in html
    assert checked(model._repr_html_()) == html
    checked(JobTable([])._repr_html_())


def test_progress_shows_the_state_the_curves_and_the_note():
    job = JobProgress(HOSTILE, 5, rows=100, state="QUEUED")
    job.note = HOSTILE
    assert checked(progress_html([job])).count("&lt;script&gt;") == 2
    assert "<svg" not in progress_html([job])
    job.state = "RUNNING"
    for each in epochs([1.0, 0.5], accuracy=0.5):
        job.add(each)
    html = checked(progress_html([job]))
    assert "epoch 2/5, 10k rows/s, 1 s left" in html
    assert '<progress value="0.4000" max="1">' in html
    assert html.count("<svg") == 2
    assert progress_html([job, job]).count("<svg") == 4
    checked(transfer_html("uploading", 1, 0))


def test_the_html_of_a_long_job_is_small():
    job = JobProgress("x", 100_000)
    for each in epochs([1 / (number + 1) for number in range(20_000)], [1.0] * 20_000, accuracy=0.5):
        job.add(each)
    assert len(progress_html([job])) < 40_000


def test_a_curve_has_gaps_for_nan_and_a_dot_for_a_single_point():
    svg = chart("loss", [Series("train", Curve(enumerate([3.0, 2.0, math.nan, 1.0], start=1)), COLORS[0])])
    assert (svg.count("<polyline"), svg.count("<circle")) == (1, 1)
    assert "no finite values" in chart("loss", [Series("train", Curve([(1, math.nan)]), COLORS[0])])


def test_every_point_lies_inside_the_chart():
    values = [0.9, 0.31, 0.12, 0.07, 0.3]
    svg = chart("loss", [Series("train", Curve(enumerate(values, start=1)), COLORS[0])])
    points = re.findall(r"([\d.]+),([\d.]+)", re.search(r'points="([^"]+)"', svg)[1])
    assert len(points) == 5
    assert all(48 <= float(x) <= 320 and 26 <= float(y) <= 166 for x, y in points)
    heights = [float(y) for _, y in points]
    assert heights.index(min(heights)) == 0
    assert heights.index(max(heights)) == 3


@given(st.lists(st.floats(), max_size=20))
def test_any_curve_can_be_drawn(values):
    svg = checked(chart("loss", [Series("train", Curve(enumerate(values, start=1)), COLORS[0])]))
    assert "nan" not in svg.replace("no finite values", "")
    assert "inf" not in svg.replace("no finite values", "")


SVG = "{http://www.w3.org/2000/svg}"


def read_chart(svg):
    """Return the elements of a chart: the text and the position of labels, grid lines, and the points of curves."""
    root = ET.fromstring(svg)
    assert root.get("viewBox") == "0 0 330 190"
    texts = [(float(each.get("x")), float(each.get("y")), each) for each in root.iter(f"{SVG}text")]
    assert all(0 <= x <= 330 and 0 <= y <= 190 for x, y, _ in texts)
    points = [
        [tuple(map(float, point.split(","))) for point in each.get("points").split()]
        for each in root.iter(f"{SVG}polyline")
    ]
    points += [[(float(each.get("cx")), float(each.get("cy")))] for each in root.iter(f"{SVG}circle")]
    grid = [float(each.get("y1")) for each in root.iter(f"{SVG}line") if each.get("y1") == each.get("y2") != "10"]
    return texts, points, grid


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-4000, 4000, allow_subnormal=False), min_size=2, max_size=20),
    st.sampled_from([1.0, 1e-3]),
    st.integers(1, 9),
)
@example([3.0, 3.0, 3.0], 1.0, 1)
@example([0.0, 0.0], 1.0, 4)
@example([-2.0, -2.0], 1.0, 1)
@example([0.0, 1.0], 1.0, 1)
@example([100.0, 100.1], 1.0, 1)
@example([0.0, 1e-5], 1.0, 1)
def test_the_points_of_a_chart_can_be_read_from_its_axes(values, factor, first):
    values = [round(value * factor, 6) for value in values]
    series = Series("train", Curve(enumerate(values, first)), COLORS[0])
    texts, (points,), grid = read_chart(chart("loss", [series]))
    # Each grid line has the label of its value to its left.
    ticks = [(y - 4, float(each.text)) for x, y, each in texts if x == 43]
    assert [y for y, _ in ticks] == pytest.approx(grid, abs=0.11)
    assert 2 <= len(ticks) <= 8
    (low_y, low), (high_y, high) = ticks[0], ticks[-1]
    assert (low_y, high_y) == pytest.approx((166, 26), abs=0.11)
    assert low <= min(values)
    assert max(values) <= high
    assert [(y - low_y) / (high_y - low_y) * (high - low) + low for _, y in points] == pytest.approx(
        values, abs=(high - low) / 500
    )
    # Each epoch has its label below it, up to the ends of the plot.
    labels = {int(each.text): x for x, y, each in texts if y == 182}
    last = first + len(values) - 1
    assert labels.keys() == {first, (first + last) // 2, last}
    assert (labels[first], labels[last]) == (48, 320)
    assert [x for x, _ in points] == pytest.approx(
        [48 + 272 * at / (last - first) for at in range(len(values))], abs=0.1
    )
    assert all(labels[epoch] == points[epoch - first][0] for epoch in labels)


def test_a_constant_curve_and_a_single_epoch_are_in_the_middle():
    for value in (3.0, 0.0, -3.0, 1e-200):
        (((x, y),),) = read_chart(chart("loss", [Series("train", Curve([(7, value)]), COLORS[0])]))[1]
        assert (x, y) == (184, 96)
    noise = Curve([(1, 3.0), (2, 3.0 + 1e-12)])  # It is constant except for rounding.
    ((left, right),) = read_chart(chart("loss", [Series("train", noise, COLORS[0])]))[1]
    assert (left, right) == ((48, 96), (320, 96))


def test_a_chart_without_finite_values_says_so_and_has_axes():
    curve = Curve([(3, math.nan), (9, math.nan)])
    texts, points, grid = read_chart(chart("loss", [Series("train", curve, COLORS[0])]))
    assert (points, len(grid)) == ([], 6)
    assert [each.text for _, y, each in texts if y == 182] == ["3", "6", "9"]
    assert "no finite values" in [each.text for _, _, each in texts]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 0.04], ["0.00", "0.01", "0.02", "0.03", "0.04"]),
        ([0.0, 0.0004], ["0.0000", "0.0001", "0.0002", "0.0003", "0.0004"]),
        ([0.0, 0.000045], ["0e+00", "1e-05", "2e-05", "3e-05", "4e-05", "5e-05"]),
        ([-20_000.0, 20_000.0], ["-20k", "-10k", "0", "10k", "20k"]),
        ([9990.0, 10_010.0], ["9990", "9995", "10k", "10k", "10k"]),
        ([0.0, 5e12], ["0", "1e+12", "2e+12", "3e+12", "4e+12", "5e+12"]),
        ([0.0, 9e11], ["0", "200G", "400G", "600G", "800G", "1e+12"]),
    ],
)
def test_the_labels_of_an_axis_are_short(values, labels):
    texts, _, _ = read_chart(chart("loss", [Series("train", Curve(enumerate(values, 1)), COLORS[0])]))
    assert [each.text for x, _, each in texts if x == 43] == labels


def test_a_legend_names_each_curve_in_its_color_without_overlap():
    names = ["train", "x" * 16, "y" * 17]
    curves = [
        Series(name, Curve([(1, 1.0), (2, 2.0)]), color, name == "train")
        for name, color in zip(names, COLORS, strict=False)
    ]
    svg = chart("a", curves)
    root = ET.fromstring(svg)
    lines = [each for each in root.iter(f"{SVG}line") if each.get("y1") == "10"]
    labels = [each for each in root.iter(f"{SVG}text") if each.get("y") == "14"]
    assert [each.text for each in labels] == ["a", "train", "x" * 16, "y" * 15 + "…"]
    assert [each.get("stroke") for each in lines] == [*COLORS[:3]]
    assert [each.get("stroke-dasharray") is not None for each in lines] == [True, False, False]
    assert [each.get("stroke-dasharray") is not None for each in root.iter(f"{SVG}polyline")] == [True, False, False]
    # A character is about 7 pixels wide.
    ends = [float(each.get("x")) + 6.5 * len(each.text) for each in labels]
    for end, line, label in zip(ends, lines, labels[1:], strict=False):
        assert end < float(line.get("x1")) < end + 20
        assert float(line.get("x1")) + 15 < float(line.get("x2")) < float(label.get("x"))


@pytest.mark.parametrize(
    ("span", "step"),
    [
        (1.0, 0.2),
        (1.01, 0.5),
        (5.0, 1.0),
        (5.01, 2.0),
        (25.0, 5.0),
        (25.1, 10.0),
        (0.9, 0.2),
        (7.0, 2.0),
        (5e-7, 1e-7),
        (3e9, 1e9),
    ],
)
def test_ticks_are_round_numbers(span, step):
    assert nice_step(span) == pytest.approx(step)


def test_a_chart_takes_its_text_color_from_the_page():
    svg = chart("loss", [Series(HOSTILE, Curve([(1, 1.0)]), COLORS[0])])
    checked(svg)
    assert 'fill="currentColor"' in svg
    assert not re.search(r'fill="(#fff|#000|white|black)', svg)
