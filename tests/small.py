"""A small data set, small models and short training runs for the tests of the SDK."""

from itertools import pairwise
from typing import Any

import numpy as np

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential

X = np.random.default_rng(0).random((30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def stack(*widths: int) -> Sequential:
    """Return a model of Linear layers with a ReLU between each pair. Its weights are always the same."""
    gw.seed(0)
    layers = [Linear(a, b) for a, b in pairwise(widths)]
    return Sequential(*[module for layer in layers for module in (layer, ReLU())][:-1])


def fit(model: Any = None, train: Any = (X, Y), **changes: Any) -> gw.History:
    """Train briefly in this process. `changes` are additional arguments for `gw.fit`."""
    model = model or stack(4, 8, 3)
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=0.1), "epochs": 3, "batch_size": 8, "at": "local"}
    return gw.fit(model, train, **(arguments | changes))
