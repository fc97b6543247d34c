"""Turns a Module into a ModelSpec by tracing: calling forward() with a symbol records the layers in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.flat import pack
from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.module import Module
from gradwire_engine.network import Network
from gradwire_engine.randomness import Init
from gradwire_engine.spec.resolve import linear_layers, network
from gradwire_engine.stack import layers_of
from gradwire_proto.v1.spec_pb2 import Initialization, Layer, ModelSpec, Relu
from gradwire_proto.v1.spec_pb2 import Linear as LinearMessage

_INITIALIZATIONS: dict[Init, Initialization] = {
    "kaiming": Initialization.INITIALIZATION_KAIMING,
    "simple": Initialization.INITIALIZATION_SIMPLE,
}


@dataclass(frozen=True)
class TracedModel:
    """A traced model.

    Attributes:
        spec: The model as a message.
        layers: The user's layer objects, in the order in which forward() calls them.
        module: The user's model.
    """

    spec: ModelSpec
    layers: tuple[Linear | ReLU, ...]
    module: Module

    def given_weights(self) -> Array | None:
        """Return the weights of all initialised layers as one flat vector, in layer order.

        Returns None if no layer is initialised.
        """
        initialized = [layer for layer in self._linears() if layer.W.initialized]
        if not initialized:
            return None
        return pack([parameter for layer in initialized for parameter in (layer.W, layer.b)])

    def load(self, spec: ModelSpec, weights: Array) -> None:
        """Copy the weights and the class names of a trained model into the user's model.

        Args:
            spec: The resolved spec of the trained model.
            weights: The flat vector of its weights.
        """
        linears = self._linears()
        for layer, place in zip(linears, network(spec).layers, strict=True):
            W, b = place.weights(weights)
            if layer.W.initialized and layer.W.data.dtype == weights.dtype:
                layer.W.data, layer.b.data = W, b
            else:
                layer.set_weights(W.copy(), b.copy())
        pack([parameter for layer in linears for parameter in (layer.W, layer.b)])
        if spec.class_names:
            self.module.class_names = tuple(spec.class_names)

    def _linears(self) -> list[Linear]:
        return [layer for layer in self.layers if isinstance(layer, Linear)]


def trace(model: Module) -> TracedModel:
    """Record the layers of a model, in the order in which forward() calls them.

    Raises:
        TraceError: forward() does something other than pass its input from layer to layer. The message names the
            operation and the line.
    """
    stack = layers_of(model)
    layers = tuple(layer for _, layer in stack)
    messages = [_message(layer, name) for name, layer in stack]
    return TracedModel(ModelSpec(layers=messages, class_names=_class_names(model, layers)), layers, model)


def _class_names(model: Module, layers: Sequence[Linear | ReLU]) -> list[str]:
    """Return the names of a model's classes. If a subclass uses this attribute for something else, it is ignored."""
    given: object = model.class_names
    names = list(given) if isinstance(given, list | tuple) else []
    outputs = [layer.out_features for layer in layers if isinstance(layer, Linear)][-1:]
    return names if [len(names)] == outputs and all(isinstance(name, str) for name in names) else []


def _message(layer: Linear | ReLU, name: str) -> Layer:
    if isinstance(layer, ReLU):
        return Layer(name=name, relu=Relu())
    linear = LinearMessage(in_features=layer.in_features or 0, out_features=layer.out_features)
    linear.initialization = Initialization.INITIALIZATION_GIVEN if layer.W.initialized else _INITIALIZATIONS[layer.init]
    return Layer(name=name, linear=linear)


def unpacked_weights(weights: Array, spec: ModelSpec, network: Network) -> dict[str, Array]:
    """Split a flat vector into one contiguous array for each parameter, keyed by name.

    For example, a Linear layer named fc1 has "fc1.W" of shape (out_features, in_features) and "fc1.b" of shape
    (out_features,).
    """
    names = [layer.name for layer in linear_layers(spec)]
    parts: dict[str, Array] = {}
    for name, place in zip(names, network.layers, strict=True):
        W, b = place.weights(weights)
        parts[f"{name}.W"], parts[f"{name}.b"] = np.ascontiguousarray(W), np.ascontiguousarray(b)
    return parts


def packed_weights(parts: Mapping[str, Array], spec: ModelSpec) -> Array:
    """Return the flat vector of the arrays that `unpacked_weights` returns.

    Raises:
        KeyError: A parameter of the spec is missing.
    """
    names = [layer.name for layer in linear_layers(spec)]
    return np.concatenate([parts[f"{name}.{which}"].ravel() for name in names for which in ("W", "b")])
