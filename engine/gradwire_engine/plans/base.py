"""The interface of plans. A plan trains and evaluates a network over whole epochs."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.losses import Loss
from gradwire_engine.metrics import Metrics
from gradwire_engine.network import Network


@dataclass(frozen=True)
class Problem:
    """A network, the loss to minimise, and the dtype of the arithmetic: float32 or float64."""

    network: Network
    loss: Loss
    dtype: np.dtype[Any]


class Plan(Protocol):
    """One way to run a problem on one kind of machine. A plan owns the weights while it runs.

    On the same machine, the same plan gives the same bits for the same problem, weights, rows and batch size.
    """

    # Short and stable: the events of a job contain it.
    name: str

    def place(self, examples: Examples) -> Any:
        """Return the examples in the form and the memory that `train` and `evaluate` need."""

    def train(
        self, placed: Any, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """Take one SGD step for every batch.

        Args:
            placed: The examples, from `place`.
            rows: The indices of the rows to train on, in order.
            batch_size: The number of rows in a batch. The last batch may be shorter.
            learning_rate: The learning rate.
            loss_sum: The sum of the losses so far.

        Returns:
            loss_sum plus the loss of each batch times its rows, added batch by batch.
        """

    def evaluate(self, placed: Any) -> Metrics:
        """Return the metrics over all examples with the current weights."""

    def predict(self, inputs: Array) -> Array:
        """Return the outputs of the last layer, (rows, outputs), for inputs of shape (rows, features), on the host."""

    def weights(self) -> Array:
        """Return a copy of the flat vector on the host, laid out as `Network` describes."""
