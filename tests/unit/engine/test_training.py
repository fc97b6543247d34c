"""The epoch loop: reproducibility, resuming, evaluation, stopping, and non-finite losses."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine import MSE, CrossEntropy
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import Problem, ReferencePlan
from gradwire_engine.training import LossNotFiniteError, StoppedError, TrainingConfig, train

NETWORK = Network.from_stack([(6, 8), None, (8, 3)])


def config(**changes):
    values = {"epochs": 6, "batch_size": 7, "learning_rate": 0.1, "shuffle": True, "seed": 5}
    return TrainingConfig(**(values | changes))


def examples(rows=50, dtype=np.float32):
    rng = np.random.default_rng(0)
    return Examples.of(rng.standard_normal((rows, 6)).astype(dtype), rng.integers(0, 3, rows), classification=True)


def plan(weights=None, dtype=np.float32, loss=None):
    start = np.random.default_rng(1).standard_normal(NETWORK.size) * 0.3 if weights is None else weights
    return ReferencePlan(Problem(NETWORK, loss or CrossEntropy(), np.dtype(dtype)), start.astype(dtype))


def outcomes(epochs):
    return [(epoch.running_loss, epoch.train, epoch.test) for epoch in epochs]


def test_the_same_job_gives_bit_identical_results():
    runs = []
    for _ in range(2):
        running = plan()
        runs.append((outcomes(train(running, config(), examples(), examples(20))), running.weights().tobytes()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("evaluate_every", [1, 2])
@pytest.mark.parametrize("done", [1, 3, 5])
def test_a_job_that_continues_after_any_epoch_gives_bit_identical_results(done, evaluate_every):
    chosen = config(evaluate_every=evaluate_every)
    whole = plan()
    expected = outcomes(train(whole, chosen, examples()))
    first = plan()
    list(train(first, config(epochs=done), examples()))
    second = plan(first.weights())
    assert outcomes(train(second, chosen, examples(), initial_epoch=done)) == expected[done:]
    assert second.weights().tobytes() == whole.weights().tobytes()


def test_the_seed_determines_the_row_order_only_if_rows_are_shuffled():
    def weights(**changes):
        running = plan()
        list(train(running, config(**changes), examples()))
        return running.weights().tobytes()

    assert weights() != weights(seed=6)
    assert weights(shuffle=False) == weights(shuffle=False, seed=6)


class RecordingPlan(ReferencePlan):
    """Records the rows of every step."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.rows = []

    def train(self, placed, rows, *rest):
        self.rows.append(rows)
        return super().train(placed, rows, *rest)


def row_orders(initial_epoch=0, **changes):
    recording = RecordingPlan(Problem(NETWORK, CrossEntropy(), np.dtype(np.float32)), plan().weights())
    orders = []
    for _ in train(recording, config(**changes), examples(), initial_epoch=initial_epoch):
        orders.append(np.concatenate(recording.rows))
        recording.rows.clear()
    return orders


def test_every_epoch_trains_on_all_rows_in_a_different_order():
    orders = row_orders(epochs=5)
    for order in orders:
        assert sorted(order) == list(range(50))
    for first, second in combinations(orders, 2):
        assert not np.array_equal(first, second)
    assert all(np.array_equal(order, np.arange(50)) for order in row_orders(epochs=3, shuffle=False))


def test_the_order_of_an_epoch_is_the_permutation_of_its_own_random_stream():
    """Draws the order again with NumPy alone, because another order would change the results of every stored job."""
    for epoch, order in enumerate(row_orders(initial_epoch=2, epochs=4), start=3):
        stream = np.random.SeedSequence(5, spawn_key=(1, epoch))
        assert np.array_equal(order, np.random.Generator(np.random.PCG64(stream)).permutation(50))


def test_the_metrics_of_each_set_are_computed_on_that_set():
    running = plan()
    for epoch in train(running, config(epochs=2), examples(), examples(20)):
        assert epoch.train == running.evaluate(running.place(examples()))
        assert epoch.test == running.evaluate(running.place(examples(20)))
        assert epoch.test != epoch.train


@pytest.mark.parametrize(
    ("stack", "relu_input", "relus"),
    [
        ([(4, 5), None, (5, 3)], False, [True, False]),
        ([None, (4, 5), None, (5, 3)], True, [True, False]),
        ([None, None, (4, 5), (5, 3), None], True, [False, True]),
        ([(4, 3)], False, [False]),
    ],
)
def test_the_outputs_of_a_stack_match_its_formula(stack, relu_input, relus):
    network = Network.from_stack(stack)
    assert network.relu_input == relu_input
    assert [layer.relu for layer in network.layers] == relus
    rng = np.random.default_rng(3)
    vector, x = rng.standard_normal(network.size), rng.standard_normal((6, 4))
    predicted = ReferencePlan(Problem(network, MSE(), np.dtype(np.float64)), vector).predict(x)
    taken = 0
    for widths in stack:
        if widths is None:
            x = np.maximum(x, 0)
            continue
        inputs, outputs = widths
        W = vector[taken : taken + inputs * outputs].reshape(outputs, inputs)
        b = vector[taken + inputs * outputs : taken + (inputs + 1) * outputs]
        x, taken = x @ W.T + b, taken + (inputs + 1) * outputs
    np.testing.assert_allclose(predicted, x, rtol=1e-12, atol=1e-12)


def test_every_nth_epoch_and_the_last_one_are_evaluated():
    epochs = list(train(plan(), config(epochs=5, evaluate_every=2), examples(), examples(20)))
    assert [epoch.train is not None for epoch in epochs] == [False, True, False, True, True]
    assert [epoch.test is not None for epoch in epochs] == [False, True, False, True, True]


def test_evaluation_in_blocks_gives_the_same_metrics(monkeypatch):
    whole = plan().evaluate(plan().place(examples(100)))
    monkeypatch.setattr("gradwire_engine.plans.reference.EVALUATION_ROWS", 7)
    blocks = plan().evaluate(plan().place(examples(100)))
    assert blocks.accuracy == whole.accuracy
    assert blocks.loss == pytest.approx(whole.loss)


class ClockPlan(RecordingPlan):
    """Advances a clock while it trains and evaluates."""

    seconds_per_call = 0.0

    def __init__(self, monkeypatch):
        super().__init__(Problem(NETWORK, CrossEntropy(), np.dtype(np.float32)), plan().weights())
        self.now = 1000.0
        monkeypatch.setattr("gradwire_engine.training.time.perf_counter", lambda: self.now)

    def train(self, *arguments):
        self.now += self.seconds_per_call
        return super().train(*arguments)

    def evaluate(self, placed):
        self.now += 0.25
        return super().evaluate(placed)


def test_the_time_of_an_epoch_is_split_into_training_and_evaluation(monkeypatch):
    running = ClockPlan(monkeypatch)
    running.seconds_per_call = 2.0
    first, last = train(running, config(epochs=2, batch_size=25, evaluate_every=2), examples(), examples(20))
    assert (first.train_seconds, first.evaluate_seconds, first.seconds) == (4.0, 0.0, 4.0)
    assert (last.train_seconds, last.evaluate_seconds, last.seconds) == (4.0, 0.5, 4.5)


@pytest.mark.parametrize(
    ("seconds", "slices"), [(0.0, [7, 14, 28, 1]), (0.049, [7, 14, 28, 1]), (0.051, [7] * 7 + [1])]
)
def test_training_asks_about_ten_times_a_second_whether_to_stop(monkeypatch, seconds, slices):
    running, asked = ClockPlan(monkeypatch), []
    running.seconds_per_call = seconds
    stop = lambda: asked.append(len(running.rows))  # noqa: E731
    next(train(running, config(), examples(), should_stop=stop))
    assert [len(rows) for rows in running.rows] == slices
    assert asked == list(range(len(slices)))


def test_training_can_be_stopped_in_the_middle_of_an_epoch():
    answers = iter([False, False, True])
    with pytest.raises(StoppedError):
        next(train(plan(), config(batch_size=1), examples(), should_stop=lambda: next(answers)))


def test_the_error_for_a_loss_that_is_not_finite_names_epoch_and_learning_rate():
    with pytest.raises(LossNotFiniteError, match=r"in epoch \d+ with lr=1e\+30; try a smaller lr, for example 0\.1,"):
        list(train(plan(loss=MSE()), config(learning_rate=1e30, epochs=50), examples()))


def test_integer_inputs_are_converted_without_scaling():
    integers = np.random.default_rng(0).integers(0, 200, (40, 6)).astype(np.uint8)
    labels = np.arange(40) % 3
    results = []
    for inputs in (integers, integers.astype(np.float32)):
        running = plan()
        list(train(running, config(learning_rate=1e-4), Examples.of(inputs, labels, classification=True)))
        results.append(running.weights().tobytes())
    assert results[0] == results[1]


stacks = st.lists(st.one_of(st.none(), st.integers(1, 12)), min_size=1, max_size=8).filter(any)


@settings(max_examples=60, deadline=None)
@given(
    stack=stacks, width=st.integers(1, 9), rows=st.integers(1, 30), batch=st.integers(1, 40), seed=st.integers(0, 99)
)
def test_any_stack_trains_without_changing_the_layout_of_its_weights(stack, width, rows, batch, seed):
    widths, layers = width, []
    for entry in stack:
        layers.append(None if entry is None else (widths, entry))
        widths = entry or widths
    network = Network.from_stack(layers)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(network.size) * 0.1
    running = ReferencePlan(Problem(network, MSE(), np.dtype(np.float64)), weights)
    assert running.weights().tobytes() == weights.tobytes()
    data = Examples.of(rng.standard_normal((rows, width)), rng.standard_normal((rows, network.out_features)), False)
    (epoch,) = train(running, config(epochs=1, batch_size=batch, learning_rate=1e-3), data)
    assert np.isfinite(epoch.train.loss)
    assert running.predict(data.inputs).shape == (rows, network.out_features)
