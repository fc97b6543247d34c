"""The epoch loop, which trains with a plan and yields epochs. Training can continue after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradwire_engine.metrics import Metrics
from gradwire_engine.randomness import Purpose, job_generator

if TYPE_CHECKING:  # Clients read epochs without loading the plans.
    from numpy.typing import NDArray

    from gradwire_engine.examples import Examples
    from gradwire_engine.plans.base import Plan

# The approximate interval at which a long epoch checks whether to stop.
_STOP_CHECK_SECONDS = 0.1
# Error messages never suggest a learning rate above this value.
_USUAL_LEARNING_RATE = 0.1


class StoppedError(Exception):
    """Training was stopped. The results of the current epoch are lost."""


class LossNotFiniteError(ArithmeticError):
    """The loss became infinite or NaN."""

    def __init__(self, epoch: int, learning_rate: float) -> None:
        # If the rate is far above the usual range, a tenth of it would not help either.
        smaller = min(learning_rate / 10, _USUAL_LEARNING_RATE)
        super().__init__(
            f"the loss became infinite or NaN in epoch {epoch} with lr={learning_rate:g}; "
            f"try a smaller lr, for example {smaller:g}, or scale the inputs to about 0..1"
        )
        self.epoch = epoch


@dataclass(frozen=True)
class TrainingConfig:
    """The training parameters. The fields correspond to the fields of JobSpec in spec.proto."""

    epochs: int
    batch_size: int
    learning_rate: float
    shuffle: bool
    seed: int
    evaluate_every: int = 1


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch.

    Attributes:
        epoch: The number of the epoch. The first epoch is 1.
        running_loss: The mean loss over the rows of the epoch. The loss of a batch is computed before its update.
        train: The metrics on the training set after the epoch, or None if the epoch was not evaluated.
        test: The metrics on the test set, or None if there is no test set or the epoch was not evaluated.
        train_seconds: The training time in seconds.
        evaluate_seconds: The evaluation time in seconds.
    """

    epoch: int
    running_loss: float
    train: Metrics | None
    test: Metrics | None
    train_seconds: float
    evaluate_seconds: float

    @property
    def seconds(self) -> float:
        """The duration of the epoch, including evaluation, in seconds."""
        return self.train_seconds + self.evaluate_seconds


def train(
    plan: Plan,
    config: TrainingConfig,
    train_set: Examples,
    test_set: Examples | None = None,
    *,
    initial_epoch: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Epoch]:
    """Train, and yield each epoch when it ends.

    Until the caller requests the next epoch, plan.weights() returns the weights after the yielded epoch.

    Args:
        plan: The plan, which contains the initial weights.
        config: The training parameters.
        train_set: The training set.
        test_set: The test set, which is only evaluated.
        initial_epoch: The number of epochs that are already complete. Training continues with the next epoch.
        should_stop: A function that returns whether to stop. It is called about ten times a second during an epoch.

    Raises:
        LossNotFiniteError: The loss became infinite or NaN.
        StoppedError: should_stop() returned true.
    """
    placed_train = plan.place(train_set)
    placed_test = plan.place(test_set) if test_set else None
    pace = _Pace()
    for number in range(initial_epoch + 1, config.epochs + 1):
        started = time.perf_counter()
        order = _row_order(config, train_set.rows, number)
        running_loss = _train_epoch(plan, placed_train, order, config, pace, should_stop)
        trained = time.perf_counter()
        train_metrics = test_metrics = None
        if number % config.evaluate_every == 0 or number == config.epochs:
            train_metrics = plan.evaluate(placed_train)
            test_metrics = plan.evaluate(placed_test) if placed_test else None
        evaluated = time.perf_counter()
        losses = [running_loss, *(metrics.loss for metrics in (train_metrics, test_metrics) if metrics)]
        if not all(map(math.isfinite, losses)):
            raise LossNotFiniteError(number, config.learning_rate)
        yield Epoch(number, running_loss, train_metrics, test_metrics, trained - started, evaluated - trained)


def _row_order(config: TrainingConfig, rows: int, epoch: int) -> NDArray[np.int64]:
    if not config.shuffle:
        return np.arange(rows)
    return job_generator(config.seed, Purpose.ROW_ORDER, epoch).permutation(rows)


@dataclass
class _Pace:
    """The number of steps between calls of should_stop(), which grows while those steps take too little time."""

    steps: int = 1


def _train_epoch(
    plan: Plan,
    placed: object,
    order: NDArray[np.int64],
    config: TrainingConfig,
    pace: _Pace,
    should_stop: Callable[[], bool],
) -> float:
    """Train one epoch in slices of whole batches, and return the mean loss.

    The sum of the losses is passed from slice to slice, so slicing does not change the result.
    """
    loss_sum = 0.0
    start = 0
    while start < len(order):
        if should_stop():
            raise StoppedError
        began = time.perf_counter()
        rows = order[start : start + pace.steps * config.batch_size]
        loss_sum = plan.train(placed, rows, config.batch_size, config.learning_rate, loss_sum)
        start += len(rows)
        if time.perf_counter() - began < _STOP_CHECK_SECONDS / 2:
            pace.steps *= 2
    return loss_sum / len(order)
