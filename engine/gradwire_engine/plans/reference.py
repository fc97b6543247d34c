"""The reference plan: the textbook classes in the textbook loop. All other plans must agree with it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array, to_numpy
from gradwire_engine.examples import Examples
from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.metrics import ClassSums, ErrorSums, Metrics
from gradwire_engine.module import Sequential
from gradwire_engine.network import Network
from gradwire_engine.optim import SGD
from gradwire_engine.plans.base import Problem

# The number of rows that are evaluated together. It bounds the memory that an evaluation needs.
EVALUATION_ROWS = 4096


@dataclass(frozen=True)
class PlacedExamples:
    """A set of examples as NumPy or CuPy arrays."""

    inputs: Array
    targets: Array
    source: Examples


class ReferencePlan:
    """A plan that uses NumPy on the CPU, or CuPy on a GPU."""

    name = "reference"

    def __init__(self, problem: Problem, weights: Array, xp: Any = np) -> None:
        """Create the plan.

        Args:
            problem: The problem to train.
            weights: The flat vector of initial weights, of shape (network.size,). The plan copies it.
            xp: The array library, numpy or cupy.
        """
        self._xp = xp
        self._dtype = problem.dtype
        self._loss = problem.loss
        self._network = problem.network
        self._vector = xp.array(weights, dtype=problem.dtype)
        self._model = _model_over(problem.network, self._vector)
        self._optimizer = SGD(self._model)

    def place(self, examples: Examples) -> PlacedExamples:
        """Return the arrays unchanged on the CPU, or copy them to the GPU."""
        return PlacedExamples(self._xp.asarray(examples.inputs), self._xp.asarray(examples.targets), examples)

    def train(
        self, placed: PlacedExamples, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """See `Plan.train`."""
        self._optimizer.lr = learning_rate
        with np.errstate(
            over="ignore", invalid="ignore", divide="ignore"
        ):  # training.py reports a loss that overflows.
            for start in range(0, len(rows), batch_size):
                batch = self._xp.asarray(rows[start : start + batch_size])
                output = self._model.forward(placed.inputs[batch].astype(self._dtype, copy=False))
                loss_sum += float(self._loss.forward(output, placed.targets[batch])) * len(batch)
                self._model.backward(self._loss.backward())
                self._optimizer.step()
                self._optimizer.zero_grad()
        return loss_sum

    def evaluate(self, placed: PlacedExamples) -> Metrics:
        """See `Plan.evaluate`."""
        examples = placed.source
        outputs = self._network.out_features
        class_sums, error_sums = ClassSums.zero(outputs), ErrorSums.zero(outputs)
        loss_sum = 0.0
        for start in range(0, examples.rows, EVALUATION_ROWS):
            block = slice(start, start + EVALUATION_ROWS)
            output = self._model.forward(placed.inputs[block].astype(self._dtype, copy=False))
            targets = placed.targets[block]
            loss_sum += float(self._loss.forward(output, targets)) * len(output)
            if examples.classification:
                class_sums.add(output, targets if targets.ndim == 1 else targets.argmax(axis=1))
            else:
                error_sums.add(output, targets)
        loss = loss_sum / examples.rows
        if examples.classification:
            return class_sums.metrics(loss)
        return error_sums.metrics(loss, examples.rows, examples.spread)

    def predict(self, inputs: Array) -> Array:
        """See `Plan.predict`."""
        blocks = [
            to_numpy(self._model.forward(self._xp.asarray(inputs[start : start + EVALUATION_ROWS])))
            for start in range(0, len(inputs), EVALUATION_ROWS)
        ]
        return np.concatenate(blocks)

    def weights(self) -> Array:
        """See `Plan.weights`."""
        return to_numpy(self._vector.copy())


def _model_over(network: Network, vector: Array) -> Sequential:
    """Return a Sequential for a network, with weights that are views into the flat vector."""
    modules: list[Linear | ReLU] = [ReLU()] if network.relu_input else []
    for layer in network.layers:
        linear = Linear(layer.out_features, dtype=vector.dtype)
        linear.set_weights(*layer.weights(vector))
        modules.append(linear)
        if layer.relu:
            modules.append(ReLU())
    return Sequential(*modules)
