"""The confusion matrix and the metrics of each class, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_matrix
from sklearn.metrics import precision_recall_fscore_support

import gradwire as gw


def random_outputs(rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, classes)), rng.integers(0, classes, rows)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (5, 2), (200, 7), (30, 50)])
def test_the_matrix_and_the_metrics_are_those_of_scikit_learn(rows, classes):
    logits, targets = random_outputs(rows, classes)
    labels = list(range(classes))
    matrix = gw.confusion_matrix(logits, targets)
    assert np.array_equal(matrix, sklearn_matrix(targets, logits.argmax(axis=1), labels=labels))
    expected = precision_recall_fscore_support(targets, logits.argmax(axis=1), labels=labels, zero_division=0)
    report = gw.classification_report(logits, targets)
    found = np.array([(each.precision, each.recall, each.f1, each.rows) for each in report])
    assert np.allclose(found.T, expected)


def test_one_hot_targets_and_lists_are_accepted():
    logits, targets = random_outputs(40, 3)
    expected = gw.confusion_matrix(logits, targets)
    assert np.array_equal(gw.confusion_matrix(logits, np.eye(3)[targets]), expected)
    assert np.array_equal(gw.confusion_matrix(logits.tolist(), targets.tolist()), expected)
    assert np.array_equal(gw.confusion_matrix(logits, targets.astype(float)), expected)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((3, 2)), [0, 1], r"got \(3, 2\) and \(2,\)"),
        (np.zeros(3), [0, 1, 0], "logits must have shape"),
        (np.zeros((0, 2)), [], "logits must have shape"),
        (np.zeros((2, 2)), [0, 2], "target 2 in row 1 is not the index of one of the 2 classes"),
        (np.zeros((2, 2)), [-1, 0], "target -1 in row 0"),
        (np.zeros((2, 2)), [0.5, 0], "target 0.5 in row 0"),
        (np.zeros((2, 2)), ["cat", "dog"], "got text"),
    ],
)
def test_wrong_targets_are_refused(logits, targets, message):
    for function in (gw.confusion_matrix, gw.classification_report):
        with pytest.raises(ValueError, match=message):
            function(logits, targets)


def test_a_matrix_has_at_most_ten_thousand_classes_and_a_report_any_number():
    logits, targets = np.zeros((2, 10_001), np.float32), [0, 10_000]
    with pytest.raises(ValueError, match="10,001 classes is too large: at most 10,000"):
        gw.confusion_matrix(logits, targets)
    report = gw.classification_report(logits, targets)
    assert len(report) == 10_001
    assert str(report).endswith("9,999 other classes are not shown.")
    assert len(str(report).splitlines()) == 4


def test_a_report_is_a_table_with_the_names_of_the_classes():
    report = gw.classification_report(np.eye(2), [0, 0], ["<cat>", "dog"])
    assert str(report).splitlines() == [
        "class  precision  recall      f1  rows",
        "<cat>     1.0000  0.5000  0.6667     2",
        "dog       0.0000  0.0000  0.0000     0",
    ]
    assert "&lt;cat&gt;" in report._repr_html_()
    assert "<cat>" not in report._repr_html_()
    with pytest.raises(ValueError, match="1 class_names for 2 classes"):
        gw.classification_report(np.eye(2), [0, 0], ["cat"])


def test_a_table_has_at_most_fifty_classes_those_with_the_lowest_f1():
    classes = 51
    targets = np.arange(classes)
    for count in (50, 51):
        report = gw.classification_report(np.eye(count), targets[:count], [f"c{number}" for number in range(count)])
        assert len(str(report).splitlines()) == (51 if count == 50 else 52)
    # Class 7 is the only one with errors, and class 3 has no rows.
    logits, targets = np.eye(classes), np.where(targets == 3, 7, targets)
    report = gw.classification_report(logits, targets)
    lines = str(report).splitlines()
    assert lines[1].split() == ["7", "1.0000", "0.5000", "0.6667", "2"]
    assert "3" not in {line.split()[0] for line in lines}
    assert lines[-1] == "1 other classes are not shown."
    html = report._repr_html_()
    assert (html.count("<tr>"), html.count("<th>"), html.count("<td>")) == (51, 5, 250)
    assert "<div>1 other classes are not shown.</div>" in html


def test_a_matrix_of_ten_thousand_classes_is_the_largest(monkeypatch):
    monkeypatch.setattr("gradwire_engine.classification.MAX_CLASSES", 3)
    assert gw.confusion_matrix(np.eye(3), [2, 1, 0]).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match="4 classes is too large: at most 3"):
        gw.confusion_matrix(np.eye(4), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3, 1))),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros((2, 3, 1)), [0, 0]),
        (np.zeros((2, 0)), [0, 0]),
        (np.zeros((2, 3)), 0),
    ],
)
def test_shapes_that_do_not_match_are_refused(logits, targets):
    with pytest.raises(ValueError, match="logits must have shape"):
        gw.confusion_matrix(logits, targets)
