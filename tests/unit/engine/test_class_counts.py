"""The class counts that workers store, compared with a loop over the rows."""

import numpy as np
import pytest

from gradwire_engine import class_counts
from gradwire_engine.class_counts import count_classes
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network


def problem(rows, classes, seed=0, dtype=np.float32):
    """Return a network, its weights, inputs and class indices."""
    rng = np.random.default_rng(seed)
    network = Network.from_stack([(5, 8), None, (8, classes)])
    inputs = rng.normal(size=(rows, 5)).astype(np.float32)
    return network, rng.normal(size=network.size).astype(dtype), inputs, rng.integers(0, classes, rows)


def counted_one_by_one(network, vector, inputs, targets):
    """The confusion matrix, from a loop that shares no code with the engine."""
    matrix = np.zeros((network.out_features, network.out_features), int)
    first, second = vector[: 6 * 8], vector[6 * 8 :]
    for row, target in zip(inputs, targets, strict=True):
        hidden = np.maximum(first[:40].reshape(8, 5) @ row + first[40:], 0)
        outputs = second[: -network.out_features].reshape(-1, 8) @ hidden + second[-network.out_features :]
        matrix[target, np.argmax(outputs)] += 1
    return matrix


@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (1, 2), (300, 7), (40, 100)])
def test_the_rows_are_counted_by_actual_and_predicted_class(rows, classes):
    network, vector, inputs, targets = problem(rows, classes)
    expected = counted_one_by_one(network, vector, inputs, targets)
    counts = count_classes(network, vector, Examples.of(inputs, targets, True))
    assert counts.confusion.dtype == np.int64
    assert np.array_equal(counts.confusion, expected)
    assert np.array_equal(counts.actual, np.bincount(targets, minlength=classes))
    assert np.array_equal(counts.predicted, expected.sum(axis=0))
    assert np.array_equal(counts.correct, [expected[each, each] for each in range(classes)])


def test_more_than_100_classes_have_no_matrix():
    network, vector, inputs, targets = problem(500, 101)
    expected = counted_one_by_one(network, vector, inputs, targets)
    counts = count_classes(network, vector, Examples.of(inputs, targets, True))
    assert counts.confusion is None
    assert np.array_equal(counts.actual, expected.sum(axis=1))
    assert np.array_equal(counts.predicted, expected.sum(axis=0))
    assert np.array_equal(counts.correct, expected.diagonal())


def test_the_blocks_and_the_types_of_the_data_change_nothing(monkeypatch):
    network, vector, inputs, targets = problem(100, 4, dtype=np.float64)
    inputs = (10 * inputs).astype(np.int8)
    expected = count_classes(network, vector, Examples.of(inputs, targets, True)).confusion
    one_hot = Examples.of(inputs, np.eye(4)[targets], True)
    blocks = []
    monkeypatch.setattr(class_counts, "BLOCK_BYTES", 8 * 8 * 7)  # Seven rows.
    found = count_classes(network, vector, one_hot, lambda: blocks.append(1)).confusion
    assert np.array_equal(found, expected)
    assert len(blocks) == 15
    monkeypatch.setattr(class_counts, "BLOCK_BYTES", 1)
    assert np.array_equal(count_classes(network, vector, one_hot).confusion, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
@pytest.mark.parametrize("classes", [100, 101])
def test_targets_can_have_any_type_of_integers(dtype, classes):
    network, vector, inputs, targets = problem(500, classes)
    expected = count_classes(network, vector, Examples.of(inputs, targets, True))
    counts = count_classes(network, vector, Examples.of(inputs, targets.astype(dtype), True))
    for name, values in vars(expected).items():
        assert np.array_equal(getattr(counts, name), values), name


def test_an_exception_between_two_blocks_stops_the_count(monkeypatch):
    monkeypatch.setattr(class_counts, "BLOCK_BYTES", 1)
    network, vector, inputs, targets = problem(3, 2)
    blocks = iter([None, KeyError("stopped")])

    def on_block():
        error = next(blocks)
        if error:
            raise error

    with pytest.raises(KeyError, match="stopped"):
        count_classes(network, vector, Examples.of(inputs, targets, True), on_block)
