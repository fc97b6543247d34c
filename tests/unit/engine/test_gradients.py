"""Compares every gradient with finite differences in float64."""

import numpy as np
import pytest

from gradwire_engine import MSE, CrossEntropy, Linear, ReLU, Sequential

STEP = 1e-6


def numeric_gradient(function, array):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + STEP
        above = function()
        array[index] = kept - STEP
        below = function()
        array[index] = kept
        gradient[index] = (above - below) / (2 * STEP)
    return gradient


def targets_for(kind, rng):
    return {
        "classes": rng.integers(0, 4, 5),
        "one-hot": np.eye(4)[rng.integers(0, 4, 5)],
        "soft": rng.dirichlet(np.ones(4), 5),
        "real": rng.standard_normal((5, 4)),
    }[kind]


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (CrossEntropy(), "classes"),
        (CrossEntropy(), "one-hot"),
        (CrossEntropy(), "soft"),
        (MSE(), "classes"),
        (MSE(), "one-hot"),
        (MSE(), "real"),
    ],
)
def test_the_gradients_of_a_stack_equal_finite_differences(loss, kind):
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(3, 6, dtype=np.float64), ReLU(), Linear(6, 5, dtype=np.float64), ReLU(), Linear(5, 4, dtype=np.float64)
    )
    x, y = rng.standard_normal((5, 3)), targets_for(kind, rng)

    def value():
        return loss.forward(model.forward(x), y)

    value()
    grad_x = model.backward(loss.backward())
    assert np.allclose(grad_x, numeric_gradient(value, x), atol=1e-7)
    for parameter in model.parameters():
        assert np.allclose(parameter.grad, numeric_gradient(value, parameter.data), atol=1e-7)


def test_the_gradient_of_cross_entropy_of_probabilities_equals_finite_differences():
    rng = np.random.default_rng(2)
    loss, p, y = CrossEntropy(from_logits=False), rng.dirichlet(np.ones(4), 5), rng.integers(0, 4, 5)
    loss.forward(p, y)
    assert np.allclose(loss.backward(), numeric_gradient(lambda: loss.forward(p, y), p), atol=1e-5)


def test_mse_with_one_output_equals_the_textbook_formula():
    y_pred, y_true = np.array([[1.0], [3.0]]), np.array([0.5, 1.0])
    loss = MSE()
    loss.forward(y_pred, y_true)
    assert np.allclose(loss.backward(), 2 * (y_pred - y_true[:, None]) / len(y_true))


def test_gradients_accumulate_until_zero_grad():
    layer = Linear(2, 2)
    x, g = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    for _ in range(2):
        layer.forward(x)
        layer.backward(g)
    assert np.allclose(layer.W.grad, 6)
    assert np.allclose(layer.b.grad, 6)


def test_a_relu_passes_positive_values_and_their_gradients():
    relu = ReLU()
    x = np.array([[-2.0, -0.0, 0.0, 3.0]])
    assert relu.forward(x).tolist() == [[0, 0, 0, 3]]
    assert relu.backward(np.array([[5.0, 6.0, 7.0, 8.0]])).tolist() == [[0, 0, 0, 8]]


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4), ()])
def test_a_linear_layer_takes_rows_only(shape):
    with pytest.raises(ValueError, match="Linear"):
        Linear(4, 3).forward(np.zeros(shape))
