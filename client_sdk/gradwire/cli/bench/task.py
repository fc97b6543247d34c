"""The task that all contenders train: the same network, data, row order and initial weights."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.network import Network

LEARNING_RATE = 0.01
# The devices on which the contenders can run.
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Task:
    """A training task: a stack of Linear layers with a ReLU between each pair, cross-entropy, SGD, and full batches.

    Attributes:
        network: The network.
        weights: The initial weights, as a flat vector.
        inputs: A float32 array of shape (rows, features).
        labels: Class indices of shape (rows,).
        batch_size: The number of rows in a batch.
        order: The row indices of all batches. The number of indices is a multiple of batch_size.
    """

    network: Network
    weights: Array
    inputs: Array
    labels: NDArray[np.int64]
    batch_size: int
    order: NDArray[np.int64]

    @classmethod
    def of(cls, widths: tuple[int, ...], batch_size: int, rows: int) -> "Task":
        """Return the task for a network with these widths. Its data is random but reproducible."""
        stack = [layer for pair in pairwise(widths) for layer in (pair, None)]
        network = Network.from_stack(stack[:-1])
        rng = np.random.default_rng(0)
        weights = np.zeros(network.size, np.float32)
        for layer in network.layers:
            W, _ = layer.weights(weights)
            W[...] = rng.standard_normal(W.shape) * np.sqrt(2 / layer.in_features)
        inputs, labels = rng.random((rows, widths[0]), np.float32), rng.integers(0, widths[-1], rows)
        order = rng.permutation(rows)[: rows // batch_size * batch_size]
        return cls(network, weights, inputs, labels, batch_size, order)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Return copies of the initial (W, b) of each layer."""
        return [(W.copy(), b.copy()) for W, b in (layer.weights(self.weights) for layer in self.network.layers)]


class Contender(Protocol):
    """An implementation that trains a task from its initial weights."""

    def train_epoch(self) -> None:
        """Take one SGD step for each batch, in the order of the task, and wait until all steps are done."""

    def evaluate(self) -> tuple[float, float]:
        """Return the loss and the accuracy over all rows."""

    def first_weights(self) -> Array:
        """Return a copy of the first layer's current W, of shape (out_features, in_features)."""
