"""The interface for plans. A plan trains and evaluates a network over whole epochs."""

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
    """A network, the loss to minimize, and the dtype for arithmetic: float32 or float64."""

    network: Network
    loss: Loss
    dtype: np.dtype[Any]


class Plan(Protocol):
    """A way to train a problem on one kind of machine. The plan keeps the current weights.

    On the same machine, the same plan gives bit-identical results for the same problem, weights, rows and batch size.
    """

    # The name is stored in job events, so it must stay short and stable.
    name: str

    def place(self, examples: Examples) -> Any:
        """Prepare examples for `train` and `evaluate`: convert them, and copy them to the device if necessary."""

    def train(
        self, placed: Any, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """Take one SGD step for each batch.

        Args:
            placed: The examples that `place` returned.
            rows: The indices of the rows to train on, in order.
            batch_size: The number of rows in a batch. The last batch can have fewer rows.
            learning_rate: The learning rate.
            loss_sum: The sum of the losses so far.

        Returns:
            The new sum. For each batch, it grows by the loss of the batch times the number of rows in the batch.
        """

    def evaluate(self, placed: Any) -> Metrics:
        """Return the metrics of the current weights on all examples."""

    def predict(self, inputs: Array) -> Array:
        """Return the outputs of the network in host memory.

        Args:
            inputs: An array of shape (rows, features).

        Returns:
            The outputs of the last layer, of shape (rows, outputs).
        """

    def weights(self) -> Array:
        """Return a copy of the flat weight vector in host memory, in the layout that `DenseLayer` describes."""
