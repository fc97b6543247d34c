"""Rebuilds a Module from a model spec and weights, without the user's own class."""

from gradwire_engine.backend import Array
from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.module import Module, Sequential
from gradwire_engine.spec.resolve import network
from gradwire_proto.v1.spec_pb2 import ModelSpec


def build(spec: ModelSpec, weights: Array) -> Sequential:
    """Return a Sequential with the layers, layer names and class names of a model, and copies of its weights.

    Args:
        spec: A resolved model spec, in which all layer names and widths are set.
        weights: The flat vector of all weights, in the layout that `DenseLayer` describes.
    """
    dense = iter(network(spec).layers)
    modules: dict[str, Module] = {}
    for layer in spec.layers:
        if layer.HasField("linear"):
            linear = Linear(layer.linear.out_features, dtype=weights.dtype)
            W, b = next(dense).weights(weights)
            linear.set_weights(W.copy(), b.copy())
            modules[layer.name] = linear
        else:
            modules[layer.name] = ReLU()
    model = Sequential(**modules)
    model.class_names = tuple(spec.class_names)
    return model
