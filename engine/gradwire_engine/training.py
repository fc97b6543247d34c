"""The epoch loop: takes a plan, data and a configuration, and yields epochs. It can start after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradwire_engine.metrics import Metrics
from gradwire_engine.randomness import Purpose, job_generator

if TYPE_CHECKING:  # A client reads epochs without loading the plans.
    from numpy.typing import NDArray

    from gradwire_engine.examples import Examples
    from gradwire_engine.plans.base import Plan

# How often a long epoch checks whether it should stop.
_STOP_CHECK_SECONDS = 0.1


class StoppedError(Exception):
    """Training was told to stop. The epoch that was running is lost."""


class LossNotFiniteError(ArithmeticError):
    """The loss became infinite or NaN."""

    def __init__(self, epoch: int, learning_rate: float) -> None:
        super().__init__(
            f"the loss became infinite or NaN in epoch {epoch} with lr={learning_rate:g}; "
            f"try a smaller lr, for example {learning_rate / 10:g}, or scale the inputs to about 0..1"
        )
        self.epoch = epoch


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The fields are those of JobSpec in spec.proto."""

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
        epoch: Its number; the first is 1.
        running_loss: The mean loss over the batches of the epoch, each computed before its own update.
        train: The metrics over the training set after the epoch, or None if it was not evaluated.
        test: The same for the test set, if there is one.
        train_seconds: How long training took.
        evaluate_seconds: How long evaluation took.
    """

    epoch: int
    running_loss: float
    train: Metrics | None
    test: Metrics | None
    train_seconds: float
    evaluate_seconds: float

    @property
    def seconds(self) -> float:
        """How long the epoch took, with training and evaluation."""
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

    Until the next epoch is requested, plan.weights() returns the weights after the epoch that was yielded.

    Args:
        plan: The plan, with the weights to start from.
        config: How to train.
        train_set: The examples to train on.
        test_set: Examples that are only evaluated.
        initial_epoch: The number of epochs that the weights have behind them; training starts after them.
        should_stop: Called about ten times a second while an epoch runs.

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
    """The number of steps between two calls of should_stop(). It grows until they take long enough."""

    steps: int = 1


def _train_epoch(
    plan: Plan,
    placed: object,
    order: NDArray[np.int64],
    config: TrainingConfig,
    pace: _Pace,
    should_stop: Callable[[], bool],
) -> float:
    """Train one epoch in slices of whole batches. The slices change no bit: each passes the sum of the losses on."""
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
