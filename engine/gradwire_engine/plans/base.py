"""What every plan can do. A plan runs a network over whole epochs: weights, data and an order of rows in, sums out."""

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
    """A network, the loss it is trained on, and the type of its arithmetic: float32 or float64."""

    network: Network
    loss: Loss
    dtype: np.dtype[Any]


class Plan(Protocol):
    """One way to run a problem on one kind of machine. It owns the weights while it runs.

    The same problem, weights, rows and batch size give the same bits on every run of the same plan on the same machine.
    """

    # Short, stable: a job's events and checkpoints carry it.
    name: str

    def place(self, examples: Examples) -> Any:
        """Return the examples where and how the plan wants them, for `train` and `evaluate`."""

    def train(
        self, placed: Any, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """One SGD step for every batch of `rows`, the last one perhaps shorter.

        Returns loss_sum plus each batch's loss times its rows, added one batch after the other.
        """

    def evaluate(self, placed: Any) -> Metrics:
        """The metrics over all examples, with the weights as they are."""

    def predict(self, inputs: Array) -> Array:
        """The last layer's output for inputs of shape (rows, features), on the host."""

    def weights(self) -> Array:
        """A copy of the flat vector on the host, laid out as `Network` says."""
