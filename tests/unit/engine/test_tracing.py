"""Tracing turns a model into a spec. An error names the operation that cannot be traced, and its class and line."""

import numpy as np
import pytest

from gradwire_engine import Linear, Module, ReLU, Sequential, TraceError
from gradwire_engine.spec.tracing import trace
from gradwire_proto.v1.spec_pb2 import Initialization, ModelSpec


class Base(Module):
    def __init__(self):
        super().__init__()
        self.fc1 = Linear(4, 3)
        self.relu = ReLU()
        self.fc2 = Linear(3, 2)


def names(model):
    return [(layer.name, layer.WhichOneof("kind")) for layer in trace(model).spec.layers]


def test_layers_are_named_after_their_attributes_in_the_order_of_forward():
    class Model(Base):
        def forward(self, x):
            return self.fc2(self.relu(self.fc1(x)))

    assert names(Model()) == [("fc1", "linear"), ("relu", "relu"), ("fc2", "linear")]


def test_layers_inside_other_modules_are_named_by_their_path():
    class Outer(Module):
        def __init__(self):
            super().__init__()
            self.encoder = Sequential(Linear(4, 3), ReLU())
            self.head = Linear(3, 2)

        def forward(self, x):
            return self.head(self.encoder(x))

    assert names(Outer()) == [("encoder.0", "linear"), ("encoder.1", "relu"), ("head", "linear")]


class WithContainers(Module):
    """A model with layers in a list, a tuple and a dict, and in a nested container."""

    def __init__(self):
        super().__init__()
        self.stack = [Linear(4, 3), (ReLU(), Linear(3, 3))]
        self.heads = {"classes": Linear(3, 2)}

    def forward(self, x):
        first, (relu, second) = self.stack
        return self.heads["classes"](second(relu(first(x))))


def test_layers_in_lists_tuples_and_dicts_are_named_by_their_path():
    assert names(WithContainers()) == [
        ("stack.0", "linear"),
        ("stack.1.0", "relu"),
        ("stack.1.1", "linear"),
        ("heads.classes", "linear"),
    ]


def test_the_parameters_of_layers_in_containers_are_found_once_even_in_a_list_that_contains_itself():
    model = WithContainers()
    model.stack.append(model.stack)
    assert len(model.parameters()) == 6


class MadeInForward(Module):
    """A model in which forward() creates one of the layers."""

    def __init__(self):
        super().__init__()
        self.fc1 = Linear(4, 3)

    def forward(self, x):
        return Linear(3, 2)(self.fc1(x))


def test_a_layer_that_is_created_in_forward_is_refused_with_its_class_and_line():
    with pytest.raises(TraceError) as caught:
        trace(MadeInForward())
    text = str(caught.value)
    assert text.startswith("MadeInForward.forward, line ")
    assert "the layer Linear(in_features=3, out_features=2), which is not an attribute of the model" in text
    assert text.endswith("return Linear(3, 2)(self.fc1(x))")


def test_the_in_features_of_a_deferred_layer_are_0():
    spec = trace(Sequential(Linear(8), Linear(8, 2))).spec
    assert [layer.linear.in_features for layer in spec.layers] == [0, 8]


OPERATIONS = {
    r"\*": lambda self, x: self.fc1(x) * 2,
    r"\+": lambda self, x: 1 + self.fc1(x),
    "@": lambda self, x: self.fc1(x) @ np.eye(3),
    "unary -": lambda self, x: -self.fc1(x),
    "a condition": lambda self, x: self.fc1(x) if x else x,
    "a comparison": lambda self, x: self.fc1(x) if x > 0 else x,
    "indexing": lambda self, x: self.fc1(x)[:, 0],
    r"len\(\)": lambda self, x: len(self.fc1(x)),
    "a loop over the rows": lambda self, x: list(self.fc1(x)),
    r"attribute \.shape": lambda self, x: self.fc1(x).shape,
    r"numpy\.maximum": lambda self, x: np.maximum(self.fc1(x), 0),
    r"numpy\.concatenate": lambda self, x: np.concatenate([self.fc1(x)]),
    "NumPy function": lambda self, x: np.asarray(self.fc1(x)),
    "used twice": lambda self, x: self.relu(self.relu(self.fc1(x))),
    "a branch": lambda self, x: (self.fc1(x), self.fc2(x))[1],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_cannot_be_traced_is_named_with_class_and_line(operation):
    class Model(Base):
        def forward(self, x):
            body = OPERATIONS[operation]
            return body(self, x)

    with pytest.raises(TraceError, match=operation) as caught:
        trace(Model())
    assert "Model.forward, line " in str(caught.value)
    assert "body(self, x)" in str(caught.value)


def test_the_class_and_line_are_named_whatever_forward_calls_its_first_argument():
    class Model(Base):
        def forward(this, x):  # noqa: N805
            return this.fc1(x) + 1

    with pytest.raises(TraceError, match=r"^Model\.forward, line \d+ of .*\n    return this\.fc1\(x\) \+ 1$"):
        trace(Model())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda self, x: None, "must return the last layer's output, got a value of type NoneType"),
        (lambda self, x: (self.fc1(x), 1), "got a value of type tuple$"),
        (lambda self, x: np.zeros((1000, 3)), r"got an array of shape \(1000, 3\)$"),
        (lambda self, x: (self.fc1(x), x)[1], "earlier layer"),
    ],
)
def test_forward_must_return_the_last_layers_output(result, message):
    class Model(Base):
        def forward(self, x):
            return result(self, x)

    with pytest.raises(TraceError, match=message):
        trace(Model())


def test_a_model_must_be_a_module():
    with pytest.raises(TraceError, match="a model must be a gradwire Module, got int"):
        trace(3)


def test_the_weights_of_a_traced_model_are_views_into_one_vector():
    model = Sequential(Linear(2, 3), ReLU(), Linear(3, 1))
    traced = trace(model)
    vector = traced.given_weights()
    assert traced.given_weights() is vector
    vector[...] = np.arange(len(vector))
    assert model["0"].W.data.ravel().tolist() == list(range(6))
    assert model["2"].b.data.tolist() == [len(vector) - 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_traced_model_gets_the_weights_and_class_names_of_the_trained_one(dtype):
    model = Sequential(Linear(2, 3), ReLU(), Linear(1))
    traced = trace(model)
    spec = trace(Sequential(Linear(2, 3), ReLU(), Linear(3, 1))).spec
    vector = np.arange(13, dtype=dtype)
    before = model["0"].W.data
    traced.load(spec, vector)
    assert np.array_equal(traced.given_weights(), vector)
    assert model["0"].W.data.dtype == model["2"].b.data.dtype == dtype
    assert (model["0"].W.data.tolist(), model["2"].b.data.tolist()) == ([[0, 1], [2, 3], [4, 5]], [12])
    assert not np.shares_memory(model["0"].W.data, vector)
    assert not np.shares_memory(model["0"].W.data, before)
    assert model.class_names == ()
    spec.class_names.extend(["cat"])
    traced.load(spec, vector)
    assert model.class_names == ("cat",)
    traced.load(ModelSpec(layers=spec.layers), vector)
    assert model.class_names == ("cat",), "a model without names does not delete them"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (("a", "b"), ["a", "b"]),
        (["a"], []),
        (["a", 5], []),
        ("ab", []),
        ({"a": 0, "b": 1}, []),
    ],
)
def test_class_names_that_are_not_those_of_the_outputs_are_ignored(given, names):
    model = Sequential(Linear(4, 3), ReLU(), Linear(3, 2), ReLU())
    model.class_names = given
    assert list(trace(model).spec.class_names) == names


def test_a_class_in_place_of_a_model_is_named():
    with pytest.raises(TraceError, match=r"got the class Base\. Pass Base\(\)"):
        trace(Base)


def test_a_symbol_says_what_it_stands_for():
    shown = []

    class Model(Base):
        def forward(self, x):
            shown.append(repr(x))
            y = self.fc1(x)
            z = self.relu(y)
            shown.extend([f"{y}", f"{self.fc2(z)}", f"{z}"])
            return y

    with pytest.raises(TraceError, match="the output of an earlier layer"):
        trace(Model())
    assert shown[0] == "<the input of the model, without data: gradwire traces forward()>"
    outputs = ["Linear(in_features=4, out_features=3", "Linear(in_features=3, out_features=2", "ReLU()"]
    for text, layer in zip(shown[1:], outputs, strict=True):
        assert text.startswith(f"<the output of {layer}")


def test_layers_with_weights_are_given_and_the_others_are_drawn():
    layers = trace(Sequential(Linear(2, 3), ReLU(), Linear(4), ReLU(), Linear(1, init="simple"))).spec.layers
    assert [layer.linear.initialization for layer in layers if layer.HasField("linear")] == [
        Initialization.INITIALIZATION_GIVEN,
        Initialization.INITIALIZATION_KAIMING,
        Initialization.INITIALIZATION_SIMPLE,
    ]
