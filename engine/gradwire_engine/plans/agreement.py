"""Whether a plan agrees with the reference plan: a few steps of small problems, held against each other."""

from collections.abc import Callable

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.losses import MSE, CrossEntropy, Loss
from gradwire_engine.network import Network
from gradwire_engine.plans.base import Plan, Problem
from gradwire_engine.plans.reference import ReferencePlan

# How far the plans' weights may be apart after a few steps, by the size of an element.
_TOLERANCE = {4: 1e-4, 8: 1e-10}
_ROWS, _BATCH, _WIDTHS = 45, 20, (21, 35, 18)


def check(make: Callable[[Problem, Array], Plan]) -> None:
    """Raise ArithmeticError if the plans that `make` makes differ from the reference plan."""
    losses: list[Loss] = [CrossEntropy(), CrossEntropy(from_logits=False), MSE()]
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        for loss in losses:
            difference = _difference(make, loss, dtype)
            if not difference <= _TOLERANCE[dtype.itemsize]:
                raise ArithmeticError(f"{dtype} weights differ from the reference plan's by {difference:.1e}")


def _difference(make: Callable[[Problem, Array], Plan], loss: Loss, dtype: "np.dtype[np.generic]") -> float:
    network = Network.from_stack([_WIDTHS[:2], None, _WIDTHS[1:]])
    rng = np.random.default_rng(0)
    classification = isinstance(loss, CrossEntropy)
    targets = rng.integers(0, _WIDTHS[-1], _ROWS) if classification else rng.random((_ROWS, _WIDTHS[-1]))
    examples = Examples.of(rng.random((_ROWS, _WIDTHS[0])), targets, classification)
    weights = (rng.random(network.size) * 0.2).astype(dtype)
    results = []
    problem = Problem(network, loss, dtype)
    for plan in (make(problem, weights), ReferencePlan(problem, weights)):
        placed = plan.place(examples)
        running_loss = plan.train(placed, np.arange(_ROWS), _BATCH, 0.01, 0.0)
        metrics = plan.evaluate(placed)
        outputs = plan.predict(examples.inputs.astype(dtype)).ravel()
        results.append(np.concatenate([plan.weights(), outputs, [running_loss / _ROWS, metrics.loss]]))
    return float(np.max(abs(results[0] - results[1])))
