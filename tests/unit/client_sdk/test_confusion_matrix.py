"""The confusion matrix and the metrics of each class, as terminals and notebooks show them."""

import asyncio

import numpy as np
import pytest

import gradwire as gw
from gradwire_proto.v1.metrics_pb2 import ClassCounts, EvaluationSet

HOSTILE = "<img src=x>"
COUNTS = ClassCounts(
    evaluated_on=EvaluationSet.EVALUATION_SET_TRAIN,
    epoch=4,
    class_names=["cat", HOSTILE],
    actual=[20, 10],
    predicted=[18, 12],
    correct=[15, 7],
    confusion=[15, 5, 3, 7],
)


def counts_of(matrix):
    """Class counts without names for a confusion matrix."""
    matrix = np.array(matrix)
    sums = {"actual": matrix.sum(axis=1), "predicted": matrix.sum(axis=0), "correct": matrix.diagonal()}
    return ClassCounts(epoch=1, evaluated_on=2, confusion=matrix.ravel(), **sums)


@pytest.fixture
def client(scripted):
    scripted.answer("GetClassCounts", lambda request: COUNTS)
    with gw.Client(scripted.address) as connected:
        yield connected


def test_a_matrix_is_an_array_with_names(client):
    matrix = client.models.confusion_matrix("m", epoch=4)
    assert np.array_equal(matrix, [[15, 5], [3, 7]])
    assert np.asarray(matrix, dtype=float).dtype == float
    assert np.trace(matrix) == 22
    assert (matrix.class_names, matrix.evaluated_on, matrix.epoch) == (("cat", HOSTILE), "train", 4)
    assert str(matrix).splitlines() == [
        "actual \\ predicted  cat  <img src=x>",
        "               cat   15            5",
        "       <img src=x>    3            7",
        "Evaluated on the training set after epoch 4.",
    ]
    assert repr(matrix) == str(matrix)


def test_a_report_has_the_metrics_of_each_class(client):
    report = client.models.classification_report("m")
    assert report.precision == pytest.approx([15 / 18, 7 / 12])
    assert report.recall == pytest.approx([15 / 20, 7 / 10])
    assert report.f1 == pytest.approx([30 / 38, 14 / 22])
    assert [(each.name, each.rows) for each in report] == [("cat", 20), (HOSTILE, 10)]
    assert str(report).splitlines()[1].split() == ["cat", "0.8333", "0.7500", "0.7895", "20"]
    assert str(report).endswith("Evaluated on the training set after epoch 4.")


def test_notebooks_show_text_on_colors(client):
    html = client.models.confusion_matrix("m")._repr_html_()
    assert "<th>&lt;img src=x&gt;</th>" in html
    assert HOSTILE not in html
    assert '<td style="background:rgba(0,114,178,0.45)">15</td>' in html, "three quarters of the row"
    assert "training set after epoch 4" in html
    assert "training set after epoch 4" in client.models.classification_report("m")._repr_html_()


def test_a_large_matrix_is_printed_as_its_most_frequent_mistakes(client, scripted):
    matrix = 100 * np.eye(21, dtype=int)
    matrix[3, 20], matrix[20, 0] = 5, 7
    scripted.answer("GetClassCounts", lambda request: counts_of(matrix))
    assert str(client.models.confusion_matrix("m")).splitlines() == [
        "actual  predicted  rows",
        "    20          0     7",
        "     3         20     5",
        "Evaluated on the test set after epoch 1.",
    ]


def test_the_async_client_returns_the_same(client, scripted):
    async def both():
        async with gw.AsyncClient(scripted.address) as other:
            return await other.models.confusion_matrix("m"), await other.models.classification_report("m")

    matrix, report = asyncio.run(both())
    assert str(matrix) == str(client.models.confusion_matrix("m"))
    assert report == client.models.classification_report("m")
