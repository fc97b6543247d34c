"""The targets that losses accept and reject, and a comparison of the metrics with scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from gradwire_engine import MSE, CrossEntropy, accuracy
from gradwire_engine.examples import Examples
from gradwire_engine.metrics import ClassSums, ErrorSums


def test_cross_entropy_is_stable_for_huge_logits():
    logits = np.array([[1e4, 0.0], [0.0, -1e4]])
    assert CrossEntropy().forward(logits, np.array([0, 0])) == pytest.approx(0.0)
    assert CrossEntropy().forward(logits, np.array([1, 1])) == pytest.approx(1e4)


def test_probabilities_are_clipped_before_the_logarithm():
    loss = CrossEntropy(from_logits=False).forward(np.array([[0.0, 1.0]]), np.array([0]))
    assert loss == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize("loss", [MSE(), CrossEntropy()])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([0, 3]), r"class indices must be 0..2 for 3 outputs, got 0..3"),
        (np.array([-1, 0]), r"got -1..0"),
        (np.array([0.5, 1.5]), "1-D float targets need a model with one output"),
        (np.ones((2, 4)), r"targets of shape \(2, 4\) do not fit predictions of shape \(2, 3\)"),
        (np.array([0, 1, 2]), "do not fit"),
    ],
)
def test_an_error_says_which_targets_do_not_fit(loss, targets, message):
    with pytest.raises(ValueError, match=message):
        loss.forward(np.ones((2, 3)), targets)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_with_one_output_1d_targets_of_any_type_are_regression_targets(dtype):
    predictions = np.array([[1.0], [200.0]])
    assert MSE().forward(predictions, np.array([3, 200], dtype)) == pytest.approx(2.0)


def test_accuracy_accepts_class_indices_and_one_hot_rows():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 4.0]])
    assert accuracy(logits, np.array([0, 1, 0])) == pytest.approx(2 / 3)
    assert accuracy(logits, np.eye(2)[[0, 1, 0]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="accuracy takes"):
        accuracy(logits, np.ones((3, 5)))


@pytest.mark.filterwarnings("ignore:.*ill-defined.*")
@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_match_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    outputs, labels = rng.standard_normal((60, 7)), rng.integers(0, 4, 60)  # No row belongs to classes 4 to 6.
    sums = ClassSums.zero(7)
    for start in range(0, 60, 16):
        sums.add(outputs[start : start + 16], labels[start : start + 16])
    found, predicted = sums.metrics(loss=0.5), outputs.argmax(axis=1)
    options = {"average": "macro", "zero_division": 0}
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found.precision == pytest.approx(sk.precision_score(labels, predicted, **options))
    assert found.recall == pytest.approx(sk.recall_score(labels, predicted, **options))
    assert found.f1 == pytest.approx(sk.f1_score(labels, predicted, **options))


def test_regression_metrics_match_scikit_learn():
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((50, 3)) + 100
    outputs = targets + rng.standard_normal((50, 3)) * 0.3
    sums = ErrorSums.zero(3)
    sums.add(outputs[:20], targets[:20])
    sums.add(outputs[20:], targets[20:])
    found = sums.metrics(0.1, 50, Examples.of(outputs, targets, classification=False).spread)
    assert found.mean_absolute_error == pytest.approx(sk.mean_absolute_error(targets, outputs))
    assert found.r2 == pytest.approx(sk.r2_score(targets, outputs))


def test_r2_is_none_if_a_target_is_constant():
    sums = ErrorSums.zero(1)
    sums.add(np.ones((4, 1)), np.ones((4, 1)))
    assert sums.metrics(0.0, 4, np.zeros(1)).r2 is None


def test_r2_is_none_if_the_targets_of_one_of_several_outputs_are_constant():
    targets = np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    sums = ErrorSums.zero(2)
    sums.add(targets + 0.5, targets)
    found = sums.metrics(0.25, 3, Examples.of(targets, targets, classification=False).spread)
    assert found.r2 is None
    assert found.mean_absolute_error == 0.5


def test_the_metrics_of_a_class_that_is_rare_or_never_predicted():
    """Class 0 has 1 of 2 rows right, class 1 all, class 2 occurs once and is not predicted, and class 3 is unused."""
    labels, outputs = np.array([0, 0, 1, 2]), np.eye(4)[[0, 1, 1, 0]]
    sums = ClassSums.zero(4)
    sums.add(outputs, labels)
    found = sums.metrics(0.0)
    assert (found.accuracy, found.recall) == (0.5, 0.5)
    assert found.precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert found.f1 == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert accuracy(outputs, labels) == 0.5
    assert accuracy(outputs, np.array([2, 2, 2, 2])) == 0
