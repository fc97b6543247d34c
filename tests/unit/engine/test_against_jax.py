"""Compares an epoch with an independent float64 implementation in JAX, which uses automatic differentiation."""

import numpy as np
import pytest

from gradwire_engine import MSE, CrossEntropy
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import Problem, ReferencePlan
from gradwire_engine.training import TrainingConfig, train

jax = pytest.importorskip("jax")


@pytest.fixture(autouse=True)
def _double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def jax_epoch(problem, weights, examples, config):
    jnp = jax.numpy

    def loss(vector, x, y):
        for layer in problem.network.layers:
            W, b = layer.weights(vector)
            x = x @ W.T + b
            x = jax.nn.relu(x) if layer.relu else x
        if isinstance(problem.loss, CrossEntropy):
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))
        return jnp.mean((x - y) ** 2)

    vector = jnp.asarray(weights)
    for start in range(0, examples.rows, config.batch_size):
        batch = slice(start, start + config.batch_size)
        gradient = jax.grad(loss)(vector, examples.inputs[batch], examples.targets[batch])
        vector = vector - config.learning_rate * gradient
    return np.asarray(vector)


@pytest.mark.parametrize("cross_entropy", [True, False])
def test_an_epoch_agrees_with_jax(cross_entropy):
    rng = np.random.default_rng(3)
    network = Network.from_stack([(7, 20), None, (20, 9), None, (9, 4)])
    weights = rng.standard_normal(network.size) * 0.3
    x = rng.standard_normal((103, 7))  # The last batch has fewer rows.
    y = rng.integers(0, 4, 103) if cross_entropy else rng.standard_normal((103, 4))
    problem = Problem(network, CrossEntropy() if cross_entropy else MSE(), np.dtype(np.float64))
    examples = Examples.of(x, y, classification=cross_entropy)
    config = TrainingConfig(epochs=1, batch_size=10, learning_rate=0.1, shuffle=False, seed=0)
    plan = ReferencePlan(problem, weights)
    list(train(plan, config, examples))
    assert np.max(abs(plan.weights() - jax_epoch(problem, weights, examples, config))) < 1e-10
