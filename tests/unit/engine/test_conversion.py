"""model.to_torch() and model.to_keras()."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gradwire_engine import Linear, Module, ReLU, Sequential, TraceError

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


class Nested(Module):
    """A model whose layers have names with periods, in a different order than its attributes."""

    def __init__(self):
        super().__init__()
        self.last = Linear(6, 3)
        self.encoder = Sequential(fc1=Linear(4, 6), relu=ReLU())

    def forward(self, x):
        return self.last(self.encoder(x))


def test_a_torch_model_has_the_same_layers_and_outputs():
    torch = pytest.importorskip("torch")
    model = Nested()
    converted = model.to_torch()
    assert [name for name, _ in converted.named_children()] == ["encoder_fc1", "encoder_relu", "last"]
    assert np.allclose(converted(torch.from_numpy(X)).detach().numpy(), model(X), atol=1e-6)
    assert all(parameter.requires_grad for parameter in converted.parameters())
    before = model(X)
    with torch.no_grad():
        converted[0].weight.zero_()
    assert np.array_equal(model(X), before), "the weights are copies"
    double = Sequential(Linear(4, 2, dtype=np.float64))
    assert double.to_torch()[0].weight.dtype == torch.float64


def test_a_torch_model_gets_copies_of_the_weights(monkeypatch):
    """Needs no PyTorch: a replacement keeps the arrays that the model would use."""
    states = []

    class FakeLinear:
        def __init__(self, _in_features, _out_features, device):
            assert device == "meta", "the weights are not drawn"

        def load_state_dict(self, state, assign):
            assert assign
            states.append(state)

    class FakeSequential:
        def add_module(self, _name, _layer):
            pass

    nn = SimpleNamespace(Sequential=FakeSequential, Linear=FakeLinear, ReLU=object)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(nn=nn, from_numpy=lambda array: array))
    model = Nested()
    model.to_torch()
    for state, layer in zip(states, (model.encoder["fc1"], model.last), strict=True):
        for name, parameter in (("weight", layer.W), ("bias", layer.b)):
            assert np.array_equal(state[name], parameter.data)
            assert not np.shares_memory(state[name], parameter.data)


def test_a_keras_model_has_the_same_layers_and_outputs(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    pytest.importorskip("keras")
    model = Nested()
    converted = model.to_keras()
    assert [layer.name for layer in converted.layers] == ["encoder_fc1", "encoder_relu", "last"]
    assert np.allclose(np.asarray(converted(X)), model(X), atol=1e-6)


@pytest.mark.parametrize(("library", "method"), [("torch", "to_torch"), ("keras", "to_keras")])
def test_a_missing_library_is_named_with_its_extra(monkeypatch, library, method):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"model\.{method}\(\) needs {library}.*pip install 'gradwire\[{library}\]'"):
        getattr(Sequential(Linear(4, 3)), method)()


class FakeLibrary:
    """A library that a conversion must not use."""


@pytest.mark.parametrize(("library", "method"), [("torch", "to_torch"), ("keras", "to_keras")])
def test_a_model_without_weights_or_with_other_layers_is_refused(monkeypatch, library, method):
    fake = FakeLibrary()
    fake.nn = FakeLibrary()
    fake.nn.Sequential = list
    monkeypatch.setitem(sys.modules, library, fake)
    with pytest.raises(ValueError, match=r"layer '0', Linear\(out_features=3\), has no weights yet"):
        getattr(Sequential(Linear(3)), method)()

    class Custom(Module):
        def forward(self, x):
            return x + 1

    with pytest.raises(TraceError, match="operation"):
        getattr(Custom(), method)()
