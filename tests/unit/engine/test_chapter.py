"""The textbook classes: the model and training loop of the original chapter, and deferred layers."""

import inspect

import numpy as np
import pytest

import gradwire_engine as gw
from gradwire_engine import MSE, SGD, CrossEntropy, Linear, Module, Parameter, ReLU, Sequential, accuracy


class MyModel(Module):
    def __init__(self):
        super().__init__()
        self.fc1 = Linear(784, 128)
        self.relu1 = ReLU()
        self.fc2 = Linear(128, 32)
        self.relu2 = ReLU()
        self.fc3 = Linear(32, 10)

    def forward(self, x):
        x = self.fc1(x)
        x = self.relu1(x)
        x = self.fc2(x)
        x = self.relu2(x)
        return self.fc3(x)

    def backward(self, grad_output):
        grad_output = self.fc3.backward(grad_output)
        grad_output = self.relu2.backward(grad_output)
        grad_output = self.fc2.backward(grad_output)
        grad_output = self.relu1.backward(grad_output)
        return self.fc1.backward(grad_output)


class DeferredModel(MyModel):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = Linear(128), Linear(32), Linear(10)


def run_loop(model, optimizer, loss_fn, epochs=30, batch_size=10):
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 784)), rng.integers(0, 10, 40)
    losses = []
    for _ in range(epochs):
        for i in range(0, X.shape[0], batch_size):
            x_batch, y_batch = X[i : i + batch_size], y[i : i + batch_size]
            logits = model.forward(x_batch)
            loss_fn.forward(logits, y_batch)
            model.backward(loss_fn.backward())
            optimizer.step()
            optimizer.zero_grad()
        logits = model.forward(X)
        losses.append(float(loss_fn.forward(logits, y)))
    return losses, accuracy(logits, y)


@pytest.mark.parametrize(("loss_fn", "goal", "hits"), [(CrossEntropy(), 0.5, 36), (MSE(), 0.85, 10)])
@pytest.mark.parametrize("model_class", [MyModel, DeferredModel])
@pytest.mark.parametrize("as_list", [False, True])
def test_the_chapters_loop_learns(loss_fn, goal, hits, model_class, as_list):
    gw.seed(0)
    model = model_class()
    optimizer = SGD(model.parameters() if as_list else model, lr=0.1)
    losses, final_accuracy = run_loop(model, optimizer, loss_fn)
    assert losses[-1] < losses[0] * goal
    assert final_accuracy >= hits / 40  # Random guesses give 4.


def test_parameters_are_collected_in_order_and_once():
    model = MyModel()
    model.again = model.fc1
    assert [p.data.shape for p in model.parameters()] == [(128, 784), (128,), (32, 128), (32,), (10, 32), (10,)]


def test_the_same_seed_draws_the_same_weights():
    gw.seed(7)
    first = Linear(5, 3)
    gw.seed(7)
    assert np.array_equal(first.W.data, Linear(5, 3).W.data)


def test_kaiming_and_simple_have_the_documented_standard_deviation():
    gw.seed(0)
    assert Linear(200, 300).W.data.std() == pytest.approx(np.sqrt(2 / 200), rel=0.02)
    assert Linear(200, 300, init="simple").W.data.std() == pytest.approx(0.01, rel=0.02)
    assert np.all(Linear(4, 3).b.data == 0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Linear(4, 3),
        lambda: Linear(4, out_features=3),
        lambda: Linear(in_features=4, out_features=3),
        lambda: Linear(out_features=3, in_features=4),
    ],
)
def test_linear_takes_its_widths_by_position_and_by_keyword(layer):
    assert (layer().in_features, layer().out_features, layer().W.data.shape) == (4, 3, (3, 4))


@pytest.mark.parametrize("layer", [lambda: Linear(3), lambda: Linear(out_features=3)])
def test_linear_without_in_features_is_deferred(layer):
    deferred = layer()
    assert (deferred.in_features, deferred.out_features, deferred.W.initialized) == (None, 3, False)
    assert deferred(np.ones((2, 5))).shape == (2, 3)
    assert deferred.in_features == 5


@pytest.mark.parametrize("features", [(0,), (4, -1), (2.5, 3), (True, 2)])
def test_linear_refuses_widths_that_are_not_positive_whole_numbers(features):
    with pytest.raises(ValueError, match=r"positive whole number as (in|out)_features"):
        Linear(*features)


@pytest.mark.parametrize(
    ("positional", "named"),
    [((), {}), ((1, 2, 3), {}), ((), {"in_features": 4}), ((4,), {"in_features": 4}), ((), {"features": 4})],
)
def test_linear_refuses_other_arguments_and_names_them(positional, named):
    with pytest.raises(TypeError, match=r"takes \(in_features, out_features\) or \(out_features\), got \("):
        Linear(*positional, **named)


def test_linear_refuses_an_unknown_init():
    with pytest.raises(ValueError, match="init must be one of 'kaiming', 'simple', got 'xavier'"):
        Linear(4, 3, init="xavier")


def test_help_shows_the_usual_form_of_linear():
    parameters = list(inspect.signature(Linear).parameters)
    assert parameters == ["in_features", "out_features", "init", "dtype"]


def test_an_input_of_the_wrong_shape_is_an_error_that_names_both_shapes():
    with pytest.raises(ValueError, match=r"expects x of shape \(batch, 784\), got \(2, 3\)"):
        Linear(784, 10).forward(np.ones((2, 3)))


@pytest.mark.parametrize("layer", [Linear(2, 3), ReLU()])
def test_a_list_is_accepted_as_input(layer):
    rows = [[1, -2], [3, 4]]
    np.testing.assert_array_equal(layer(rows), layer(np.array(rows)))


def test_inputs_are_converted_to_the_dtype_of_the_weights():
    gw.seed(0)
    layer, x = Linear(4, 3), np.random.default_rng(0).random((5, 4))
    output = layer.forward(x)
    assert output.dtype == np.float32
    assert np.array_equal(output, layer.forward(x.astype(np.float32)))
    layer.forward((x * 10).astype(np.uint8))
    assert layer.backward(np.ones((5, 3), np.float32)).dtype == np.float32
    assert np.array_equal(layer.W.grad[0], (x * 10).astype(np.uint8).sum(axis=0))


def test_a_missing_call_of_super_init_is_reported():
    class Forgetful(Module):
        def __init__(self):
            self.fc = Linear(1, 1)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) first in Forgetful"):
        Forgetful()


def test_sequential_exposes_layers_by_name_but_they_do_not_hide_its_methods():
    model = Sequential(fc1=Linear(4, 3), forward=ReLU())
    assert model.fc1.out_features == 3
    assert isinstance(model["forward"], ReLU)
    assert model(np.ones((2, 4))).shape == (2, 3)
    with pytest.raises(AttributeError, match="fc9"):
        _ = model.fc9


def test_assigning_to_parameter_data_copies_into_the_array_and_checks_the_shape():
    layer = Linear(2, 2)
    array = layer.W.data
    layer.W.data = np.eye(2)
    assert layer.W.data is array
    with pytest.raises(ValueError, match="shape"):
        layer.W.data = np.ones((3, 3))


def test_a_parameter_converts_integers_to_float32():
    assert Parameter([[1, 2]]).data.dtype == np.float32


@pytest.mark.parametrize("lr", [0, -1, float("nan"), float("inf"), "fast", None, True])
def test_sgd_refuses_learning_rates_that_are_not_finite_and_positive(lr):
    with pytest.raises(ValueError, match="lr must be"):
        SGD(Linear(1, 1), lr=lr)


@pytest.mark.parametrize("nothing", [[], Module(), Sequential(ReLU())])
def test_sgd_refuses_a_model_without_parameters(nothing):
    with pytest.raises(ValueError, match="SGD got no parameters"):
        SGD(nothing)


def test_sgd_accepts_a_model_with_deferred_layers():
    assert len(SGD(Sequential(Linear(3))).parameters()) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.ones(3)], "ndarray among them"),
        (DeferredModel, r"got the class DeferredModel\. Pass an instance, for example DeferredModel\(\)"),
        (5, "SGD takes a Module or parameters, got 5"),
    ],
)
def test_sgd_refuses_what_is_not_parameters(given, message):
    with pytest.raises(TypeError, match=message):
        SGD(given)


def test_a_sequence_of_modules_refuses_other_items():
    with pytest.raises(TypeError, match="Sequential takes modules, got an item of type int as '1'"):
        Sequential(ReLU(), 5)


@pytest.mark.parametrize("layer", [Linear(4, 3), ReLU()])
@pytest.mark.parametrize("x", ["abc", None, {}])
def test_a_layer_says_that_it_takes_an_array(layer, x):
    with pytest.raises(TypeError, match="a layer takes an array, got"):
        layer(x)


def test_a_module_shows_the_modules_inside_it():
    assert repr(Sequential(encoder=Sequential(Linear(4, 3), ReLU()), head=Linear(2))) == (
        "Sequential(\n"
        "  (encoder): Sequential(\n"
        "    (0): Linear(in_features=4, out_features=3)\n"
        "    (1): ReLU()\n"
        "  )\n"
        "  (head): Linear(out_features=2)\n"
        ")"
    )
    assert repr(DeferredModel()).startswith("DeferredModel(\n  (fc1): Linear(out_features=128)\n  (relu1): ReLU()\n")
    assert repr(Module()) == "Module()"


def test_losses_optimizers_and_parameters_show_their_settings():
    assert repr(MSE()) == "MSE()"
    assert repr(CrossEntropy()) == "CrossEntropy()"
    assert repr(CrossEntropy(from_logits=False)) == "CrossEntropy(from_logits=False)"
    assert repr(SGD(Linear(1, 1), lr=0.05)) == "SGD(lr=0.05)"
    assert repr(Parameter()) == "Parameter(uninitialised)"
    assert repr(Parameter([[1.5, 2.5]])) == "Parameter(shape=(1, 2), dtype=float64)"
