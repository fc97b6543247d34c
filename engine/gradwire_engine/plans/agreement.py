"""Checks a plan against the reference plan by training both for a few steps on small problems."""

from collections.abc import Callable
from itertools import product

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.losses import MSE, CrossEntropy, Loss
from gradwire_engine.network import Network
from gradwire_engine.plans.base import Plan, Problem
from gradwire_engine.plans.reference import ReferencePlan

# The largest allowed difference after a few steps, by element size in bytes.
_TOLERANCE = {4: 1e-4, 8: 1e-10}
_ROWS, _BATCH = 45, 20
# Use a narrow and a wide network, because a plan may run them in different ways.
_WIDTHS = ((21, 35, 18), (9, 150, 5))


def check(make: Callable[[Problem, Array], Plan]) -> None:
    """Compare plans with the reference plan.

    Args:
        make: A function that creates a plan for a problem and initial weights.

    Raises:
        ArithmeticError: The results differ by more than the tolerance.
    """
    losses: list[Loss] = [CrossEntropy(), CrossEntropy(from_logits=False), MSE()]
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        for widths, loss in product(_WIDTHS, losses):
            difference = _difference(make, widths, loss, dtype)
            if not difference <= _TOLERANCE[dtype.itemsize]:
                raise ArithmeticError(f"{dtype} weights differ from the reference plan's by {difference:.1e}")


def _difference(
    make: Callable[[Problem, Array], Plan], widths: tuple[int, int, int], loss: Loss, dtype: "np.dtype[np.generic]"
) -> float:
    """Return the largest difference between weights, predictions or losses after a few steps."""
    inputs, hidden, outputs = widths
    network = Network.from_stack([(inputs, hidden), None, (hidden, outputs)])
    rng = np.random.default_rng(0)
    classification = isinstance(loss, CrossEntropy)
    targets = rng.integers(0, outputs, _ROWS) if classification else rng.random((_ROWS, outputs))
    examples = Examples.of(rng.random((_ROWS, inputs)), targets, classification)
    weights = (rng.random(network.size) * 0.2).astype(dtype)
    results = []
    problem = Problem(network, loss, dtype)
    for plan in (make(problem, weights), ReferencePlan(problem, weights)):
        placed = plan.place(examples)
        running_loss = plan.train(placed, np.arange(_ROWS), _BATCH, 0.01, 0.0)
        metrics = plan.evaluate(placed)
        predicted = plan.predict(examples.inputs.astype(dtype)).ravel()
        results.append(np.concatenate([plan.weights(), predicted, [running_loss / _ROWS, metrics.loss]]))
    return float(np.max(abs(results[0] - results[1])))
