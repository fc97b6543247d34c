"""Converts a model to a PyTorch or Keras model with the same layers and weights."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwire_engine.backend import Array, to_numpy
from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.module import Module
from gradwire_engine.optional import required
from gradwire_engine.stack import layers_of

if TYPE_CHECKING:
    import keras
    import torch


def to_torch(model: Module) -> torch.nn.Sequential:
    """Return a torch.nn.Sequential on the CPU with a model's layers and names, and copies of its weights.

    PyTorch does not allow periods in names, so "encoder.fc1" becomes "encoder_fc1".

    Raises:
        ImportError: PyTorch is not installed.
        TraceError: The model is not a stack of Linear and ReLU layers.
        ValueError: A layer has no weights yet.
    """
    nn = required("torch", "model.to_torch()", "'gradwire[torch]'").nn
    converted = nn.Sequential()
    for name, layer in _named(model):
        if isinstance(layer, ReLU):
            converted.add_module(name, nn.ReLU())
            continue
        W, b = _weights(name, layer)
        linear = nn.Linear(W.shape[1], W.shape[0], device="meta")
        linear.load_state_dict({"weight": _tensor(W), "bias": _tensor(b)}, assign=True)
        converted.add_module(name, linear)
    return converted


def to_keras(model: Module) -> keras.Sequential:
    """Return a keras.Sequential with a model's layers and names, and copies of its weights.

    Raises:
        ImportError: Keras is not installed.
        TraceError: The model is not a stack of Linear and ReLU layers.
        ValueError: A layer has no weights yet, or there is no Linear layer.
    """
    keras = required("keras", "model.to_keras()", "'gradwire[keras]'")
    stack = _named(model)
    arrays = {name: _weights(name, layer) for name, layer in stack if isinstance(layer, Linear)}
    if not arrays:
        raise ValueError("the model has no Linear layer, so it has no number of inputs")
    first = next(iter(arrays.values()))[0]
    layers = [
        keras.layers.Dense(layer.out_features, name=name, dtype=str(first.dtype))
        if isinstance(layer, Linear)
        else keras.layers.ReLU(name=name, dtype=str(first.dtype))
        for name, layer in stack
    ]
    converted = keras.Sequential([keras.Input((first.shape[1],), dtype=str(first.dtype)), *layers])
    for name, (W, b) in arrays.items():
        converted.get_layer(name).set_weights([W.T, b])
    return converted


def _named(model: Module) -> list[tuple[str, Linear | ReLU]]:
    """Return the layers with names without periods. If two of these names are the same, the layers are numbered."""
    stack = [(name.replace(".", "_"), layer) for name, layer in layers_of(model)]
    if len(dict(stack)) < len(stack):
        stack = [(f"layer_{position}", layer) for position, (_, layer) in enumerate(stack)]
    return stack


def _weights(name: str, layer: Linear) -> tuple[Array, Array]:
    if not layer.W.initialized:
        raise ValueError(f"layer {name!r}, {layer!r}, has no weights yet. Train the model first.")
    return np.array(to_numpy(layer.W.data)), np.array(to_numpy(layer.b.data))


def _tensor(array: Array) -> Any:
    return importlib.import_module("torch").from_numpy(array)
