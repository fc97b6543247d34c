"""Specs: validation rules, tensor messages, and the conversion of resolved specs to networks and modules."""

import contextlib
import math
import random
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from fuzz.random_calls import Requests
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine import CrossEntropy, Linear, ReLU, Sequential
from gradwire_engine.metrics import Metrics
from gradwire_engine.spec.messages import epoch_message, epoch_of
from gradwire_engine.spec.prepare import loss_of, starting_weights
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import architecture, network, references, resolve, weights_bytes
from gradwire_engine.spec.summary import TensorSummary, summarize
from gradwire_engine.spec.tensors import TensorError, from_tensor, tensor_ref, tensor_type, to_tensor
from gradwire_engine.spec.tracing import trace
from gradwire_engine.spec.validation import MAX_FEATURES, MAX_LAYERS, check_data, check_spec, is_classification
from gradwire_engine.training import Epoch
from gradwire_proto.v1.metrics_pb2 import Epoch as EpochMessage
from gradwire_proto.v1.spec_pb2 import Dataset, Device, Initialization, JobSpec, Layer, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, Tensor, TensorRef

X = np.random.default_rng(0).random((20, 4)).astype(np.float32)
Y = np.arange(20) % 3


def good_spec():
    spec = JobSpec(
        model=trace(Sequential(fc1=Linear(8), relu=ReLU(), fc2=Linear(3))).spec,
        train=Dataset(inputs=tensor_ref(X), targets=tensor_ref(Y)),
        epochs=2,
        batch_size=5,
    )
    spec.loss.cross_entropy.SetInParent()
    spec.optimizer.sgd.learning_rate = 0.1
    return spec


def fields(spec):
    return [violation.field for violation in check_spec(spec)]


def test_a_good_spec_has_no_violations():
    assert check_spec(good_spec()) == []


def change(path, value):
    def apply(spec):
        *parents, last = path.split(".")
        for name in parents:
            spec = spec.model.layers[int(name[6:])] if name.startswith("layer#") else getattr(spec, name)
        setattr(spec, last, value)

    return apply


def shape(field, *sizes):
    def apply(spec):
        *parents, last = field.split(".")
        target = spec
        for name in [*parents, last]:
            target = getattr(target, name)
        target.shape[:] = sizes

    return apply


@pytest.mark.parametrize(
    ("mutate", "field"),
    [
        (change("epochs", 0), "epochs"),
        (change("batch_size", -3), "batch_size"),
        (change("evaluate_every", -1), "evaluate_every"),
        (change("dtype", DataType.DATA_TYPE_INT8), "dtype"),
        (change("device", 17), "device"),
        (change("optimizer.sgd.learning_rate", 0.0), "optimizer.sgd.learning_rate"),
        (change("optimizer.sgd.learning_rate", -0.5), "optimizer.sgd.learning_rate"),
        (change("optimizer.sgd.learning_rate", float("nan")), "optimizer.sgd.learning_rate"),
        (change("optimizer.sgd.learning_rate", float("inf")), "optimizer.sgd.learning_rate"),
        (lambda spec: spec.ClearField("optimizer"), "optimizer"),
        (lambda spec: spec.ClearField("loss"), "loss"),
        (lambda spec: spec.ClearField("train"), "train"),
        (lambda spec: spec.train.ClearField("targets"), "train.targets"),
        (lambda spec: spec.model.ClearField("layers"), "model.layers"),
        (change("layer#0.linear.out_features", 0), "model.layers[0].linear.out_features"),
        (change("layer#0.linear.out_features", -8), "model.layers[0].linear.out_features"),
        (change("layer#0.linear.out_features", 10**9), "model.layers[0].linear.out_features"),
        (change("layer#0.linear.in_features", -1), "model.layers[0].linear.in_features"),
        (change("layer#0.linear.in_features", 5), "model.layers[0].linear.in_features"),
        (change("layer#2.linear.in_features", 9), "model.layers[2].linear.in_features"),
        (change("layer#2.linear.initialization", 9), "model.layers[2].linear.initialization"),
        (change("layer#2.name", "fc1"), "model.layers[2].name"),
        (change("layer#2.name", "no spaces"), "model.layers[2].name"),
        (lambda spec: spec.model.layers.append(Layer(name="new")), "model.layers[3]"),
        (lambda spec: spec.model.class_names.extend(["cat", "dog"]), "model.class_names"),
        (lambda spec: spec.model.class_names.extend(["cat", "dog", "cat"]), "model.class_names"),
        (lambda spec: spec.model.class_names.extend(["cat", "dog", "x" * 129]), "model.class_names"),
        (shape("train.inputs", 20), "train.inputs"),
        (shape("train.inputs", 20, 2, 2), "train.inputs"),
        (shape("train.inputs", 0, 4), "train.inputs"),
        (shape("train.inputs", 2**40, 2**40), "train.inputs"),
        (shape("train.targets", 19), "train.targets"),
        (change("train.inputs.sha256", "ABC"), "train.inputs"),
        (change("train.inputs.dtype", 99), "train.inputs"),
        (change("train.targets.dtype", DataType.DATA_TYPE_FLOAT32), "train.targets"),
        (lambda spec: spec.initial_weights.CopyFrom(tensor_ref(X)), "initial_weights"),
        (change("layer#2.linear.initialization", Initialization.INITIALIZATION_GIVEN), "initial_weights"),
    ],
)
def test_each_invalid_field_is_named(mutate, field):
    spec = good_spec()
    mutate(spec)
    assert field in fields(spec)


def given_spec():
    """Return a spec with initial weights."""
    spec = resolve(good_spec())
    for layer in (0, 2):
        spec.model.layers[layer].linear.initialization = Initialization.INITIALIZATION_GIVEN
    spec.initial_weights.CopyFrom(tensor_ref(np.zeros(8 * 5 + 3 * 9, np.float32)))
    return spec


def test_an_unknown_dtype_is_refused_with_initial_weights_too():
    spec = given_spec()
    assert fields(spec) == []
    spec.dtype = 99
    assert fields(spec) == ["dtype"]


def test_random_and_mutated_specs_have_violations_or_can_be_resolved():
    requests = Requests(random.Random(0), {JobSpec.DESCRIPTOR.full_name: [good_spec(), given_spec()]}, [])
    valid = 0
    for number in range(3000):
        data = requests.random(JobSpec.DESCRIPTOR) if number % 3 == 0 else requests.mutated(JobSpec.DESCRIPTOR)
        with contextlib.suppress(DecodeError):
            spec = JobSpec.FromString(data)
            if not check_spec(spec):
                assert resolve(spec).train == spec.train
                valid += 1
    assert valid > 100


@pytest.mark.parametrize(
    "mutate",
    [
        change("epochs", 1),
        change("batch_size", 1),
        change("evaluate_every", 1),
        change("layer#0.linear.out_features", MAX_FEATURES),
        change("layer#0.linear.in_features", 4),
        change("layer#2.linear.in_features", 8),
        change("layer#1.name", "x" * 128),
        lambda spec: spec.model.layers.extend(Layer(name=f"r{i}", relu={}) for i in range(MAX_LAYERS - 3)),
        lambda spec: spec.test.CopyFrom(spec.train),
        lambda spec: spec.model.class_names.extend(["a", "x" * 127, "x" * 128]),
        shape("train.inputs", 20, MAX_FEATURES),
    ],
)
def test_values_at_their_bounds_are_accepted(mutate):
    spec = good_spec()
    mutate(spec)
    assert check_spec(spec) == []


@pytest.mark.parametrize(
    ("mutate", "field"),
    [
        (change("layer#0.linear.out_features", MAX_FEATURES + 1), "model.layers[0].linear.out_features"),
        (change("layer#0.linear.in_features", MAX_FEATURES + 1), "model.layers[0].linear.in_features"),
        (change("layer#0.linear.in_features", 3), "model.layers[0].linear.in_features"),
        (change("layer#2.linear.in_features", 7), "model.layers[2].linear.in_features"),
        (change("layer#1.name", "x" * 129), "model.layers[1].name"),
        (lambda spec: spec.model.class_names.extend(["a", "b", "c", "d"]), "model.class_names"),
        (lambda spec: spec.model.class_names.extend(["a", "b", ""]), "model.class_names"),
        (lambda spec: spec.model.class_names.extend(["a", "b", "x" * 129]), "model.class_names"),
        (lambda spec: (change("layer#0.name", "1")(spec), change("layer#1.name", "")(spec)), "model.layers[1].name"),
        (lambda spec: spec.model.layers.extend(Layer(relu={}) for _ in range(MAX_LAYERS - 2)), "model.layers"),
    ],
)
def test_values_just_beyond_their_bounds_are_the_only_violation(mutate, field):
    spec = good_spec()
    mutate(spec)
    assert set(fields(spec)) == {field}


def test_the_parameters_of_all_layers_count_with_their_biases():
    """(4 + 1) * 1000 + (1000 + 1) * 999,000 exceeds the limit by 4,000, but not without the biases or inputs."""
    spec = good_spec()
    spec.model.layers[0].linear.out_features, spec.model.layers[2].linear.out_features = 1000, 999_000
    assert fields(spec) == ["model.layers"]
    spec.model.layers[2].linear.out_features = 998_000
    assert fields(spec) == []


def test_a_model_can_have_a_billion_parameters():
    spec = good_spec()
    del spec.model.layers[0]
    spec.model.layers[1].linear.out_features = 1_000_000
    spec.train.inputs.shape[1] = 999
    assert fields(spec) == []
    spec.train.inputs.shape[1] = 1000
    assert fields(spec) == ["model.layers"]


def test_too_many_layers_or_parameters_are_refused():
    spec = good_spec()
    spec.model.layers.extend(Layer(name=f"r{i}", relu={}) for i in range(1000))
    assert "model.layers" in fields(spec)
    wide = good_spec()
    for layer in (0, 2):
        wide.model.layers[layer].linear.out_features = 900_000
    assert "model.layers" in fields(wide)


def test_a_model_without_a_linear_layer_is_refused():
    spec = good_spec()
    del spec.model.layers[2], spec.model.layers[0]
    assert "model.layers" in fields(spec)


def test_all_violations_are_reported_together():
    spec = good_spec()
    spec.epochs, spec.batch_size, spec.optimizer.sgd.learning_rate = 0, 0, 0
    assert set(fields(spec)) == {"epochs", "batch_size", "optimizer.sgd.learning_rate"}


def test_a_test_set_must_fit_the_training_set():
    spec = good_spec()
    spec.test.CopyFrom(Dataset(inputs=tensor_ref(X[:, :3]), targets=tensor_ref(Y)))
    assert "test.inputs" in fields(spec)
    spec.test.inputs.CopyFrom(tensor_ref(np.ones((20, 5), np.float32)))
    assert fields(spec) == ["test.inputs"]
    spec.test.inputs.CopyFrom(tensor_ref(X))
    assert fields(spec) == []
    spec.test.CopyFrom(Dataset(inputs=tensor_ref(X), targets=tensor_ref(np.eye(3)[Y])))
    assert "test.targets" in fields(spec)


def with_targets(targets, loss="cross_entropy", outputs=3):
    spec = good_spec()
    spec.train.targets.CopyFrom(tensor_ref(targets))
    spec.model.layers[2].linear.out_features = outputs
    spec.ClearField("loss")
    getattr(spec.loss, loss).SetInParent()
    return spec


def data_violations(spec, inputs, targets):
    arrays = {spec.train.inputs.sha256: inputs, spec.train.targets.sha256: targets}
    return [v.field for v in check_data(spec, lambda ref: summarize(arrays[ref.sha256]))]


@pytest.mark.parametrize(
    ("targets", "loss", "outputs", "field"),
    [
        (np.eye(4)[Y], "cross_entropy", 3, "train.targets"),
        (np.eye(3)[Y][:, :2], "mean_squared_error", 3, "train.targets"),
        (Y.astype(np.float32), "cross_entropy", 3, "train.targets"),
        (Y.astype(np.float32), "mean_squared_error", 3, "train.targets"),
        (np.zeros(20, np.int64), "cross_entropy", 1, "loss.cross_entropy"),
    ],
)
def test_targets_of_the_wrong_shape_are_named(targets, loss, outputs, field):
    assert field in fields(with_targets(targets, loss, outputs))


@pytest.mark.parametrize(
    ("targets", "loss", "outputs"),
    [
        (Y % 2, "cross_entropy", 2),
        (np.eye(2)[Y % 2], "cross_entropy", 2),
        (np.full((20, 2), 0.5), "cross_entropy", 2),
        (Y, "mean_squared_error", 1),
        (Y - 5.5, "mean_squared_error", 1),
        (np.full((20, 1), -3), "mean_squared_error", 1),
        (np.full((20, 3), -0.5), "mean_squared_error", 3),
    ],
)
def test_targets_that_fit_are_accepted(targets, loss, outputs):
    spec = with_targets(targets, loss, outputs)
    assert check_spec(spec) == []
    assert data_violations(spec, X, targets) == []


@pytest.mark.parametrize(
    "targets",
    [np.full(20, 3), np.full(20, -1), np.full((20, 3), 0.5), np.eye(3)[Y] * np.nan, np.eye(3)[Y] - 0.2],
)
def test_invalid_target_values_are_named(targets):
    spec = with_targets(targets)
    assert check_spec(spec) == []
    assert data_violations(spec, X, targets) == ["train.targets"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_named_with_their_row(bad):
    inputs = X.copy()
    inputs[13, 2] = bad
    spec = good_spec()
    spec.train.inputs.CopyFrom(tensor_ref(inputs))
    assert data_violations(spec, inputs, Y) == ["train.inputs"]
    assert summarize(inputs).first_bad_row == 13


def test_elements_beyond_the_first_block_are_summarized_too():
    rows = 2**20 + 9
    values = np.zeros(rows, np.float32)
    values[-3], values[-2] = -4, 6
    assert (summarize(values).minimum, summarize(values).maximum) == (-4, 6)
    values[-5] = np.inf
    assert summarize(values).first_bad_row == rows - 5
    matrix = np.eye(2, dtype=np.uint8)[np.zeros(rows, np.int8)]
    assert (summarize(matrix).distributions, summarize(matrix).one_hot) == (True, True)
    matrix[-2] = 1
    assert (summarize(matrix).distributions, summarize(matrix).one_hot) == (False, False)


def test_a_very_long_row_is_summarized_in_blocks():
    row = np.zeros((1, 20 << 20), np.uint8)
    row[0, -1] = 1
    tracemalloc.start()
    try:
        found = summarize(row)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == TensorSummary(-1, 0, 1, distributions=True, one_hot=True)
    assert peak < 8 << 20
    row[0, 0] = 1
    assert (summarize(row).distributions, summarize(row).one_hot) == (False, False)
    halves = np.zeros((2, 3 << 20), np.float32)
    halves[:, [0, -1]] = 0.5
    assert (summarize(halves).distributions, summarize(halves).one_hot) == (True, False)
    halves[1, -1] = np.nan
    assert summarize(halves).first_bad_row == 1


def plain_summary(rows, dimensions):
    """Summarize rows of numbers in plain Python."""
    for index, row in enumerate(rows):
        if not all(map(math.isfinite, row)):
            return (index, "nan", "nan", False, False)
    elements = [element for row in rows for element in row]
    distributions = dimensions == 2 and all(
        min(row) >= 0 and max(row) <= 1 and abs(math.fsum(row) - 1) < 1e-3 for row in rows
    )
    one_hot = distributions and all(element in (0, 1) for element in elements)
    return (-1, str(min(elements)), str(max(elements)), distributions, one_hot)


ELEMENTS = [0.0, 0.0, 1.0, 1.0, 0.5, 0.25, 0.0015, 0.998, 0.9995, 1.0005, -0.5, 2.0, math.nan, math.inf, -math.inf]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), block=st.integers(1, 5))
def test_a_summary_in_blocks_is_that_of_plain_python(data, sizes, block):
    # Without the last elements, all are finite, and without more of them, all rows can be distributions.
    allowed = ELEMENTS[: data.draw(st.sampled_from([4, 10, 12, 15]))]
    rows = np.array(data.draw(st.lists(st.sampled_from(allowed), min_size=math.prod(sizes), max_size=math.prod(sizes))))
    rows = rows.reshape(sizes[0], -1)
    if np.isfinite(rows).all() and data.draw(st.booleans()):
        rows[:, -1] = 1 - rows[:, :-1].sum(axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradwire_engine.spec.summary._BLOCK_ELEMENTS", block)
        found = summarize(rows.reshape(sizes))
    bounds = str(found.minimum), str(found.maximum)
    expected = plain_summary(rows.tolist(), len(sizes))
    assert (found.first_bad_row, *bounds, found.distributions, found.one_hot) == expected


def test_a_summary_takes_the_memory_of_one_block(monkeypatch):
    monkeypatch.setattr("gradwire_engine.spec.summary._BLOCK_ELEMENTS", 1 << 12)
    matrix = np.zeros((1 << 12, 64), np.uint8)
    matrix[:, 0] = 1
    tracemalloc.start()
    try:
        assert summarize(matrix).one_hot
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < matrix.nbytes / 4


def test_inputs_with_too_many_features_are_refused():
    spec = good_spec()
    spec.train.inputs.shape[1] = 1_000_001
    assert "train.inputs" in [violation.field for violation in check_spec(spec)]


@pytest.mark.parametrize(
    ("targets", "loss", "outputs", "expected"),
    [
        (Y, "cross_entropy", 3, True),
        (Y, "mean_squared_error", 3, True),
        (np.eye(3)[Y], "mean_squared_error", 3, True),
        (np.eye(3)[Y] * 0.5, "mean_squared_error", 3, False),
        (X[:, 0], "mean_squared_error", 1, False),
        (Y, "mean_squared_error", 1, False),
        (np.ones((20, 1)), "mean_squared_error", 1, False),
        (np.eye(2)[Y % 2], "mean_squared_error", 2, True),
    ],
)
def test_classification_is_distinguished_from_regression(targets, loss, outputs, expected):
    spec = with_targets(targets, loss, outputs)
    assert is_classification(spec, lambda _: summarize(targets)) is expected


def test_a_resolved_spec_has_explicit_widths_and_defaults():
    spec = resolve(good_spec())
    assert [layer.linear.in_features for layer in spec.model.layers if layer.HasField("linear")] == [4, 8]
    assert (spec.dtype, spec.evaluate_every) == (DataType.DATA_TYPE_FLOAT32, 1)
    assert network(spec.model).size == 4 * 8 + 8 + 8 * 3 + 3


def test_a_resolved_spec_keeps_what_is_given_and_names_the_layers_without_a_name():
    spec = good_spec()
    spec.model.layers[1].name = ""
    spec.model.layers[0].linear.initialization = Initialization.INITIALIZATION_SIMPLE
    spec.model.layers[2].linear.ClearField("initialization")
    spec.dtype, spec.device, spec.evaluate_every = DataType.DATA_TYPE_FLOAT64, Device.DEVICE_CPU, 3
    resolved = resolve(spec)
    assert [layer.name for layer in resolved.model.layers] == ["fc1", "1", "fc2"]
    assert [layer.linear.initialization for layer in resolved.model.layers[::2]] == [
        Initialization.INITIALIZATION_SIMPLE,
        Initialization.INITIALIZATION_KAIMING,
    ]
    assert (resolved.dtype, resolved.device, resolved.evaluate_every) == (spec.dtype, spec.device, 3)
    assert resolve(good_spec()).device == Device.DEVICE_AUTO


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        ((4, 3), "4-3"),
        (range(1, 13), "1-2-3-4-5-6-7-8-9-10-11-12"),
        (range(1, 14), "1-2-3-4-5-6-7-8-9-10-...-13"),
        (range(1, 20), "1-2-3-4-5-6-7-8-9-10-...-19"),
    ],
)
def test_an_architecture_shows_its_widths_and_shortens_long_ones(widths, text):
    layers = [Layer(linear={"in_features": a, "out_features": b}) for a, b in pairwise(widths)]
    assert architecture(ModelSpec(layers=[*layers, Layer(relu={})])) == text


def test_the_tensors_of_a_job_are_those_that_it_sets():
    spec = good_spec()
    assert references(spec) == {"train.inputs": spec.train.inputs, "train.targets": spec.train.targets}
    spec.test.CopyFrom(spec.train)
    spec.initial_weights.CopyFrom(tensor_ref(X))
    assert list(references(spec)) == ["train.inputs", "train.targets", "test.inputs", "test.targets", "initial_weights"]
    assert references(spec)["initial_weights"].sha256 == tensor_ref(X).sha256


@pytest.mark.parametrize(
    ("weights", "accepted"),
    [
        (np.zeros(8 * 3 + 3, np.float32), True),
        (np.zeros(8 * 3 + 2, np.float32), False),
        (np.zeros(8 * 3 + 4, np.float32), False),
        (np.zeros(8 * 3 + 3, np.float64), False),
        (np.zeros((9, 3), np.float32), False),
    ],
)
def test_given_weights_must_fit_the_layers_that_they_are_for(weights, accepted):
    spec = good_spec()
    spec.model.layers[2].linear.in_features = 8
    spec.model.layers[2].linear.initialization = Initialization.INITIALIZATION_GIVEN
    spec.initial_weights.CopyFrom(tensor_ref(weights))
    assert fields(spec) == ([] if accepted else ["initial_weights"])


def test_given_weights_need_the_width_of_their_layer_and_the_dtype_of_the_job():
    spec = given_spec()
    spec.dtype = DataType.DATA_TYPE_FLOAT64
    assert fields(spec) == ["initial_weights"]
    spec.initial_weights.dtype = DataType.DATA_TYPE_FLOAT64
    assert fields(spec) == []
    spec.initial_weights.sha256 = ""
    assert fields(spec) == ["initial_weights"]
    spec = given_spec()
    spec.model.layers[0].linear.in_features = 0
    spec.initial_weights.shape[0] = 8 + 3 * 9
    assert fields(spec) == ["model.layers"]


@pytest.mark.parametrize(
    ("monitor", "with_test", "accepted"),
    [
        ("", False, True),
        ("", True, True),
        ("train.accuracy", False, True),
        ("test.accuracy", True, True),
        ("test.accuracy", False, False),
        ("train.r2", True, False),
        ("accuracy", True, False),
    ],
)
def test_a_monitor_must_be_a_metric_of_the_job(monitor, with_test, accepted):
    spec = good_spec()
    spec.early_stopping.patience, spec.early_stopping.monitor = 1, monitor
    if with_test:
        spec.test.CopyFrom(spec.train)
    assert check_spec(spec) == []
    assert data_violations(spec, X, Y) == ([] if accepted else ["early_stopping.monitor"])
    if not accepted:
        (violation,) = check_data(spec, lambda ref: summarize({16: X}.get(len(ref.shape), Y)))
        assert ("There is no test set" in violation.description) is not with_test


def test_the_elements_of_every_tensor_are_checked():
    spec = given_spec()
    bad = {"test.inputs": X * np.nan, "test.targets": Y + 1, "initial_weights": np.full(67, np.inf, np.float32)}
    spec.test.CopyFrom(Dataset(inputs=tensor_ref(bad["test.inputs"]), targets=tensor_ref(bad["test.targets"])))
    spec.initial_weights.CopyFrom(tensor_ref(bad["initial_weights"]))
    assert check_spec(spec) == []
    arrays = {tensor_ref(array).sha256: array for array in (X, Y, *bad.values())}
    assert [violation.field for violation in check_data(spec, lambda ref: summarize(arrays[ref.sha256]))] == [*bad]


def test_a_model_can_mix_given_and_drawn_weights():
    spec = resolve(good_spec())
    spec.model.layers[2].linear.initialization = Initialization.INITIALIZATION_GIVEN
    given = np.arange(27, dtype=np.float32)
    first, again = starting_weights(spec, given), starting_weights(spec, given)
    assert np.array_equal(first, again)
    assert np.array_equal(first[-27:], given)
    assert first[:32].std() > 0
    spec.seed = 1
    assert not np.array_equal(first[:32], starting_weights(spec, given)[:32])


def drawn_weights(*layers, seed=7):
    """Return the initial matrices of a job with these layers and four features."""
    spec = good_spec()
    spec.model.CopyFrom(trace(Sequential(*layers)).spec)
    spec.seed = seed
    spec = resolve(spec)
    vector = starting_weights(spec, None)
    return [layer.weights(vector)[0] for layer in network(spec.model).layers]


@pytest.mark.parametrize(("init", "deviation"), [("kaiming", np.sqrt(2 / 4)), ("simple", 0.01)])
def test_a_job_draws_deferred_layers_by_their_own_method(init, deviation):
    W, _ = drawn_weights(Linear(500, init=init), Linear(3))
    assert W.std() == pytest.approx(deviation, rel=0.05)


def test_each_layer_of_a_job_is_drawn_from_its_own_random_stream():
    """Draws the weights again with NumPy alone, because other weights would change the results of every job."""
    for index, W in enumerate(drawn_weights(Linear(4), ReLU(), Linear(4), Linear(4))):
        stream = np.random.SeedSequence(7, spawn_key=(0, index))
        drawn = np.random.Generator(np.random.PCG64(stream)).standard_normal((4, 4)) * np.sqrt(2 / 4)
        assert np.array_equal(W, drawn.astype(np.float32))


@pytest.mark.parametrize(
    "metrics",
    [
        Metrics(loss=0.0, accuracy=0.0, precision=0.0, recall=0.0, f1=0.0),
        Metrics(loss=0.5, mean_absolute_error=0.0, r2=0.0),
        Metrics(loss=0.25, accuracy=0.5),
    ],
)
def test_an_epoch_survives_conversion_to_a_message_and_back(metrics):
    for train, test in ((metrics, None), (None, metrics), (metrics, Metrics(loss=1.0))):
        epoch = Epoch(3, 0.0, train, test, 0.5, 0.25)
        assert epoch_of(EpochMessage.FromString(epoch_message(epoch).SerializeToString())) == epoch


def test_a_rebuilt_module_has_the_names_and_weights_of_the_model():
    spec = resolve(good_spec())
    weights = starting_weights(spec, None)
    model = build(spec.model, weights)
    assert [name for name, _ in model.named_modules()] == ["fc1", "relu", "fc2"]
    assert np.array_equal(trace(model).given_weights(), weights)


def test_a_loss_survives_conversion_to_a_message_and_back():
    spec = good_spec()
    spec.loss.cross_entropy.from_probabilities = True
    assert isinstance(loss_of(spec.loss), CrossEntropy)
    assert not loss_of(spec.loss).from_logits


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i1", "u2", "i2", "u4", "i4", "i8", ">f4", ">i8"])
def test_a_tensor_survives_conversion_to_a_message_and_back(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    back = from_tensor(to_tensor(array.T))
    assert np.array_equal(back, array.T)
    assert back.dtype == np.dtype(dtype).newbyteorder("<")


def test_a_digest_does_not_depend_on_the_memory_layout():
    assert tensor_ref(X).sha256 == tensor_ref(np.asfortranarray(X)).sha256 == tensor_ref(X.astype(">f4")).sha256


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Tensor(dtype=1, data=b""), "shape is missing"),
        (Tensor(dtype=1, shape=[2], data=b"1234"), "has 8 bytes, got 4"),
        (Tensor(dtype=0, shape=[1], data=b"1234"), "dtype must be one of .*, got 0"),
        (Tensor(dtype=1, shape=[-1], data=b""), "at least 1"),
        (Tensor(dtype=1, shape=[0], data=b""), "at least 1"),
        (Tensor(dtype=1, shape=[1, 0, 1], data=b""), "at least 1"),
        (Tensor(dtype=1, shape=[1] * 65, data=b"1234"), "at most 64 dimensions, got 65"),
        (Tensor(dtype=1, shape=[1] * 70, data=b"1234"), "at most 64 dimensions, got 70"),
        (Tensor(dtype=1, shape=[2**24, 2**24 + 1]), "more elements than"),
        (Tensor(dtype=1, shape=[2], data=b"123456789"), "has 8 bytes, got 9"),
    ],
)
def test_malformed_tensors_are_refused(message, text):
    with pytest.raises(TensorError, match=text):
        from_tensor(message)


def test_the_largest_shapes_are_accepted():
    assert from_tensor(Tensor(dtype=1, shape=[1] * 64, data=b"1234")).ndim == 64
    assert tensor_type(Tensor(dtype=2, shape=[2**24, 2**24])).size_bytes == 2**51


def test_a_reference_needs_a_valid_digest():
    with pytest.raises(TensorError, match="64 lower-case"):
        tensor_type(TensorRef(dtype=1, shape=[1], sha256="../../etc/passwd"))


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.array(["a"]), np.array([1j]), np.zeros((2, 0)), np.array(1.0)]
)
def test_arrays_that_do_not_fit_into_a_message_are_refused(array):
    with pytest.raises(TensorError):
        to_tensor(array)


@pytest.mark.parametrize(("dtype", "size"), [(DataType.DATA_TYPE_FLOAT32, 4), (DataType.DATA_TYPE_FLOAT64, 8)])
def test_the_size_of_the_weights_is_that_of_their_array(dtype, size):
    spec = good_spec()
    spec.dtype = dtype
    assert (
        weights_bytes(resolve(spec)) == size * (4 * 8 + 8 + 8 * 3 + 3) == starting_weights(resolve(spec), None).nbytes
    )
