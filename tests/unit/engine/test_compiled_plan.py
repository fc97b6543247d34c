"""The compiled plan agrees with the reference plan, and its results do not depend on the number of threads."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradwire_engine import MSE, CrossEntropy
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import Problem, ReferencePlan
from gradwire_engine.plans.codes import SOURCE_TYPES
from gradwire_engine.plans.compiled.availability import unavailable_reason, vector_registers
from gradwire_engine.plans.compiled.plan import CompiledPlan
from gradwire_engine.training import LossNotFiniteError, TrainingConfig, train

FLOAT64, FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)


def test_the_compiled_plan_is_available():
    assert unavailable_reason() is None


def stack(*widths, relu_first=False):
    layers = [None] if relu_first else []
    for each in pairwise(widths):
        layers += [each, None]
    return Network.from_stack(layers[:-1])


def compiled(problem, weights, threads=1, registers=None):
    return CompiledPlan(problem, weights, threads, registers or vector_registers())


def weights_for(network, dtype=FLOAT64, seed=0):
    rng = np.random.default_rng(seed)
    vector = np.empty(network.size, dtype)
    for layer in network.layers:
        W, b = layer.weights(vector)
        W[...] = rng.standard_normal(W.shape) * np.sqrt(1 / layer.in_features)
        b[...] = rng.standard_normal(b.shape) * 0.1
    return vector


def config(batch_size=10, epochs=1, learning_rate=0.05):
    return TrainingConfig(epochs, batch_size, learning_rate, shuffle=True, seed=3)


def examples_for(network, rows, kind, dtype=FLOAT64, seed=1):
    """Return inputs, and targets of the given kind: "labels", "one-hot", "soft" or "values"."""
    rng = np.random.default_rng(seed)
    outputs = network.out_features
    inputs = rng.standard_normal((rows, network.in_features)).astype(dtype)
    labels = rng.integers(0, outputs, rows)
    if kind == "labels":
        return Examples.of(inputs, labels, classification=True)
    if kind == "one-hot":
        return Examples.of(inputs, np.eye(outputs, dtype=np.uint8)[labels], classification=True)
    if kind == "soft":
        return Examples.of(inputs, rng.dirichlet(np.ones(outputs), rows), classification=True)
    return Examples.of(inputs, rng.standard_normal((rows, outputs)).astype(dtype), classification=False)


def run(plan, settings_, train_set, test_set=None):
    epochs = list(train(plan, settings_, train_set, test_set))
    return plan.weights(), epochs


def assert_same_metrics(ours, theirs, tolerance=1e-10):
    ours, theirs = (asdict(metrics) for metrics in (ours, theirs))
    assert ours == {
        name: None if value is None else pytest.approx(value, rel=tolerance, abs=tolerance)
        for name, value in theirs.items()
    }


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 300), min_size=2, max_size=7),
    rows=st.integers(1, 400),
    batch=st.integers(1, 1000),
    kind=st.sampled_from(["labels", "one-hot", "soft", "values"]),
    relu_first=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_stack_trains_as_with_the_reference_plan(widths, rows, batch, kind, relu_first, seed):
    # Validation ensures that a classification problem has at least two outputs.
    assume(kind == "values" or widths[-1] > 1)
    network = stack(*widths, relu_first=relu_first)
    batch = max(batch, rows // 40)  # Train for only a few steps, because the reference plan is slow.
    problem = Problem(network, MSE() if kind == "values" else CrossEntropy(), FLOAT64)
    data, start = examples_for(network, rows, kind, seed=seed), weights_for(network, seed=seed)
    theirs, (reference,) = run(ReferencePlan(problem, start), config(batch), data)
    ours, (epoch,) = run(compiled(problem, start), config(batch), data)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    assert epoch.running_loss == pytest.approx(reference.running_loss, rel=1e-10)
    assert_same_metrics(epoch.train, reference.train)


@pytest.mark.parametrize("rows", [1000, 1025, 2500])
def test_batches_and_layers_larger_than_a_block_train_as_with_the_reference_plan(rows):
    network = stack(1100, 40, 7)
    problem = Problem(network, CrossEntropy(), FLOAT64)
    data, start = examples_for(network, rows, "labels"), weights_for(network)
    theirs, _ = run(ReferencePlan(problem, start), config(rows), data)
    for threads in (1, 2):
        ours, _ = run(compiled(problem, start, threads), config(rows), data)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["labels", "one-hot"])
def test_mse_and_cross_entropy_of_probabilities_train_as_with_the_reference_plan(kind):
    network = stack(8, 20, 5)
    data, start = examples_for(network, 60, kind), weights_for(network)
    for loss in (MSE(), CrossEntropy(from_logits=False)):
        problem = Problem(network, loss, FLOAT64)
        theirs, (reference,) = run(ReferencePlan(problem, start), config(learning_rate=1e-3), data)
        ours, (epoch,) = run(compiled(problem, start), config(learning_rate=1e-3), data)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
        assert_same_metrics(epoch.train, reference.train, 1e-9)


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_float32_agrees_with_the_reference_plan_after_20_steps(kind):
    network = stack(50, 64, 32, 10)
    problem = Problem(network, MSE() if kind == "values" else CrossEntropy(), FLOAT32)
    data, start = examples_for(network, 200, kind, FLOAT32), weights_for(network, FLOAT32)
    theirs, _ = run(ReferencePlan(problem, start), config(10), data)
    ours, _ = run(compiled(problem, start), config(10), data)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize(("widths", "batch"), [((784, 128, 32, 10), 10), ((300, 200, 10), 128), ((40, 700, 3), 1)])
def test_results_do_not_depend_on_the_number_of_threads_or_the_tile_size(dtype, widths, batch):
    network = stack(*widths)
    problem = Problem(network, CrossEntropy(), dtype)
    data, start = examples_for(network, 300, "labels", dtype), weights_for(network, dtype)
    outcomes = set()
    for threads, registers in ((1, 32), (1, 32), (2, 32), (3, 32), (1, 8), (2, 8)):
        weights, (epoch,) = run(compiled(problem, start, threads, registers), config(batch), data, data)
        outcomes.add((weights.tobytes(), epoch.running_loss, epoch.train, epoch.test))
    assert len(outcomes) == 1


def test_regression_metrics_are_bit_identical_for_any_number_of_threads():
    network = stack(60, 400, 4)
    problem = Problem(network, MSE(), FLOAT32)
    data = examples_for(network, 1000, "values", FLOAT32)
    metrics = set()
    for threads in (1, 2, 3):
        plan = compiled(problem, weights_for(network, FLOAT32), threads)
        metrics.add(plan.evaluate(plan.place(data)))
    assert len(metrics) == 1


def test_each_plan_can_continue_from_the_weights_of_the_other():
    network = stack(30, 24, 5)
    problem = Problem(network, CrossEntropy(), FLOAT64)
    data = examples_for(network, 100, "labels")
    whole, _ = run(ReferencePlan(problem, weights_for(network)), config(epochs=4), data)
    for first, second in ((compiled, ReferencePlan), (ReferencePlan, compiled)):
        half, _ = run(first(problem, weights_for(network)), config(epochs=2), data)
        plan = second(problem, half)
        list(train(plan, config(epochs=4), data, initial_epoch=2))
        np.testing.assert_allclose(plan.weights(), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", SOURCE_TYPES)
@pytest.mark.parametrize("features", [16, 37])
def test_inputs_of_any_number_type_are_converted_without_scaling(dtype, features):
    network = stack(features, 8, 3)
    problem = Problem(network, CrossEntropy(), FLOAT32)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 100, (50, features)).astype(dtype)
    if not dtype.startswith("u"):
        inputs -= np.asarray(50, dtype)
    labels = np.arange(50) % 3
    plans = [compiled(problem, weights_for(network, FLOAT32)) for _ in range(2)]
    for plan, given_inputs in zip(plans, (inputs, inputs.astype(np.float32)), strict=True):
        run(plan, config(learning_rate=1e-3), Examples.of(given_inputs, labels.astype(np.uint8), classification=True))
    assert plans[0].weights().tobytes() == plans[1].weights().tobytes()


def test_column_major_data_gives_the_same_result():
    network = stack(20, 4)
    problem = Problem(network, MSE(), FLOAT64)
    data = examples_for(network, 40, "values")
    columns_first = Examples.of(np.asfortranarray(data.inputs), np.asfortranarray(data.targets), classification=False)
    outcomes = {
        run(compiled(problem, weights_for(network)), config(), each)[0].tobytes() for each in (data, columns_first)
    }
    assert len(outcomes) == 1


def test_memory_mapped_data_is_read_in_place(tmp_path):
    network = stack(20, 4)
    problem = Problem(network, CrossEntropy(), FLOAT32)
    data = examples_for(network, 40, "labels", FLOAT32)
    data.inputs.tofile(tmp_path / "inputs")
    mapped = np.memmap(tmp_path / "inputs", np.float32, "r", shape=data.inputs.shape)
    plan = compiled(problem, weights_for(network, FLOAT32))
    placed = plan.place(Examples.of(mapped, data.targets, classification=True))
    assert placed.data.inputs[0] == mapped.ctypes.data
    expected = compiled(problem, weights_for(network, FLOAT32))
    assert plan.evaluate(placed) == expected.evaluate(expected.place(data))


def test_if_outputs_are_equal_the_first_is_predicted():
    network = stack(3, 40)
    problem = Problem(network, CrossEntropy(), FLOAT32)
    plan = compiled(problem, np.zeros(network.size, np.float32))
    data = Examples.of(np.ones((10, 3), np.float32), np.arange(10), classification=True)
    assert plan.evaluate(plan.place(data)).accuracy == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_cross_entropy_is_stable_for_huge_logits(dtype):
    network = stack(1, 3)
    weights = np.array([1e4, 0, -1e4, 0, 0, 0], dtype)
    plan = compiled(Problem(network, CrossEntropy(), dtype), weights)
    data = Examples.of(np.ones((2, 1), dtype), np.array([0, 1]), classification=True)
    assert plan.evaluate(plan.place(data)).loss == pytest.approx(5000)


@pytest.mark.parametrize(
    "loss", [MSE(), CrossEntropy(), CrossEntropy(from_logits=False)], ids=lambda loss: type(loss).__name__
)
def test_a_loss_that_is_not_finite_is_an_error(loss):
    network = stack(4, 8, 3)
    plan = compiled(Problem(network, loss, FLOAT32), weights_for(network, FLOAT32))
    with pytest.raises(LossNotFiniteError):
        list(train(plan, config(epochs=60, learning_rate=1e38), examples_for(network, 50, "labels", FLOAT32)))


def test_predictions_agree_with_the_reference_plan():
    network = stack(30, 50, 20)
    problem = Problem(network, CrossEntropy(), FLOAT64)
    inputs = np.random.default_rng(0).standard_normal((250, 30))
    start = weights_for(network)
    np.testing.assert_allclose(
        compiled(problem, start).predict(inputs), ReferencePlan(problem, start).predict(inputs), atol=1e-12
    )
    assert compiled(problem, start).weights().tobytes() == start.tobytes()
